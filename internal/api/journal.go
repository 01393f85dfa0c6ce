package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// Journal is what this node has recorded. It is safe for concurrent use; the
// errors wrap sentinels.
type Journal interface {
	// Status is how it is doing.
	Status() *belfryv1.JournalStatus
	// Durable is the place up to which everything is on the disk. The zero
	// Cursor: there is no journal.
	Durable() belfry.Cursor
	// Flush waits until what has happened so far is on the disk.
	Flush(ctx context.Context) (belfry.Cursor, error)
	// Read begins to read what the registrations are for, from since up to and
	// with a position. Of those that are [Timed] and go on from a cursor it counts.
	// ErrUnsupported: there is no journal.
	Read(all []belfry.Registration, since belfry.Since, until uint64) (Past, error)
}

// Past reads a journal; it is for one goroutine.
type Past interface {
	// Next is io.EOF at the end. The number of a notification's registration is
	// its place in the list, from 1; 0: it is about all. at resumes behind it.
	Next() (n belfry.Notification, at belfry.Cursor, err error)
	// Skipped is what the rules refused after the last of each event that Next
	// returned, and how far it counted.
	Skipped() []Skipped
	Close()
}

const (
	pastChunk = 512              // notifications in one message
	flushWait = 10 * time.Second // for a disk that is slow
)

func sinceOf(p *belfryv1.Since) (s belfry.Since, err error) {
	switch kind := p.GetKind().(type) {
	case *belfryv1.Since_Cursor:
		s.Cursor, err = belfry.ParseCursor(kind.Cursor)
	case *belfryv1.Since_Time:
		s.Time = kind.Time.AsTime()
	case *belfryv1.Since_Sequence:
		s.Sequence, s.HasSequence = kind.Sequence, true
	}
	return s, err
}

// judgePast says whether a subject may read the past of what a registration is
// for. Whose a subject was then, nobody can tell.
func (s *Server) judgePast(subject Subject, r belfry.Registration) error {
	if err := s.judgeClass(subject, r); err != nil {
		return err
	}
	if s.ownOnly(subject, r) {
		err := fmt.Errorf("%w: %s may observe %s as its own, but not what was before; leave --since out", belfry.ErrPermission, subject, selector(r))
		return s.deny(subject, opRegister, "", &belfry.Error{Op: opRegister, Subject: selector(r), Err: err})
	}
	return nil
}

// flushed is the place up to which everything is on the disk; what could not
// be written within flushWait is not waited for, and comes live.
func (s *Server) flushed(ctx context.Context) (at belfry.Cursor, whole bool) {
	waiting, done := context.WithTimeout(ctx, flushWait)
	defer done()
	at, err := s.opts.Journal.Flush(waiting)
	return at, err == nil
}

// notWritten is the gap for what the disk did not take in time.
func notWritten(number uint32) belfry.Notification {
	now := time.Now()
	return belfry.Notification{
		Kind: belfry.KindGap, Registration: number, FirstTime: now, Time: now,
		Gap: &belfry.Gap{Reason: belfry.GapJournal, From: now, To: now},
	}
}

// A chunk is some of the past.
type chunk struct {
	notifications []belfry.Notification
	cursors       []belfry.Cursor
	skipped       []Skipped // of the last one
}

// handAll hands on the past, chunk by chunk.
func handAll(past Past, hand func(chunk) error) error {
	var c chunk
	for {
		n, at, err := past.Next()
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return err
		}
		if !end {
			c.notifications, c.cursors = append(c.notifications, n), append(c.cursors, at)
		}
		if len(c.notifications) == pastChunk || end && len(c.notifications) > 0 {
			if err := hand(c); err != nil {
				return err
			}
			c.notifications, c.cursors = c.notifications[:0], c.cursors[:0]
		}
		if end {
			return nil
		}
	}
}

// maxPastLimit is the queue of a registration that begins in the past, unless
// it asks for another: it fills while the past is read.
const maxPastLimit = 65_536

// readable says whether a registration can begin in the past.
func (s *Server) readable(r *belfry.Registration) error {
	if r.Limit == 0 {
		r.Limit = maxPastLimit
	}
	past, err := s.opts.Journal.Read([]belfry.Registration{*r}, r.Since, s.opts.Journal.Durable().Position)
	if err != nil {
		return &belfry.Error{Op: opRegister, Subject: selector(*r), Err: err}
	}
	past.Close()
	return nil
}

// resumable tells whether the journal can give a registration what it missed
// while it was away.
func (s *Server) resumable(subject Subject, r belfry.Registration) bool {
	return !s.ownOnly(subject, r)
}

// Timed tells whether a registration has rules about time. What they would have
// let out in the past nobody can say: who goes on from a cursor is told how often
// each event happened, as a gap, and then the present states.
func Timed(r belfry.Registration) bool {
	return r.Hold != 0 || r.MinInterval != 0 || !r.Flap.IsZero()
}

// replayPast hands on all of the past of a registration that is in force.
func (s *Server) replayPast(ctx context.Context, number uint32, r belfry.Registration, hand func(c chunk, last bool) error) error {
	at, whole := s.flushed(ctx)
	past, err := s.opts.Journal.Read([]belfry.Registration{r}, r.Since, at.Position)
	if err != nil {
		return err
	}
	defer past.Close()
	err = handAll(past, func(c chunk) error {
		for i := range c.notifications {
			c.notifications[i].Registration = number
		}
		return hand(c, false)
	})
	if err != nil {
		return err
	}
	last := chunk{cursors: []belfry.Cursor{at}, skipped: past.Skipped()}
	if !whole {
		last.notifications = []belfry.Notification{notWritten(number)}
	}
	return hand(last, true)
}

// replay sends the past of one registration; nothing else is sent meanwhile.
func (sub *subscription) replay(ctx context.Context, number uint32, r belfry.Registration) error {
	return sub.s.replayPast(ctx, number, r, func(c chunk, last bool) error {
		m := sub.encoder.encode(event.Batch{Notifications: c.notifications})
		sub.held.skips.Add(number, c.skipped)
		b := m.GetBatch()
		for i := range c.notifications {
			b.Notifications[i].JournalPosition = c.cursors[i].Position
		}
		b.JournalPosition = c.cursors[len(c.cursors)-1].Position
		b.Replay = &belfryv1.Replay{Registration: number, Last: last}
		return sub.send(m)
	})
}

// noJournal is the journal of an agent without one.
type noJournal struct{}

func (noJournal) Status() *belfryv1.JournalStatus { return nil }
func (noJournal) Durable() belfry.Cursor          { return belfry.Cursor{} }
func (noJournal) Flush(context.Context) (belfry.Cursor, error) {
	return belfry.Cursor{}, nil
}

func (noJournal) Read([]belfry.Registration, belfry.Since, uint64) (Past, error) {
	return nil, fmt.Errorf("%w: this agent keeps no journal", belfry.ErrUnsupported)
}

// ListEvents reads the journal of this node.
func (e *eventService) ListEvents(req *belfryv1.ListEventsRequest, stream grpc.ServerStreamingServer[belfryv1.ListEventsResponse]) error {
	ctx := stream.Context()
	fail := func(err error) error { return &belfry.Error{Op: "ListEvents", Err: err} }
	wanted := req.GetRegistrations()
	if len(wanted) == 0 {
		wanted = []*belfryv1.Registration{{Class: "*", Scope: belfryv1.Scope_SCOPE_CLUSTER}}
	}
	all := make([]belfry.Registration, len(wanted))
	for i, p := range wanted {
		r, err := e.s.registration(p)
		if err != nil {
			return err
		}
		if err := e.s.judgePast(subjectFrom(ctx), r); err != nil {
			return err
		}
		all[i] = r
	}
	since, err := sinceOf(req.GetSince())
	if err != nil {
		return fail(err)
	}
	at, whole := e.s.flushed(ctx)
	past, err := e.s.opts.Journal.Read(all, since, at.Position)
	if err != nil {
		return fail(err)
	}
	defer past.Close()
	enc := newEncoder()
	send := func(c chunk) error { return stream.Send(enc.listed(c, untilOf(req.GetUntil()))) }
	if err := handAll(past, send); err != nil {
		return err
	}
	if !whole {
		return send(chunk{notifications: []belfry.Notification{notWritten(0)}, cursors: []belfry.Cursor{at}})
	}
	return nil
}

func untilOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Unix(0, math.MaxInt64)
	}
	return t.AsTime()
}

// listed is a chunk without what came later than until.
func (e *encoder) listed(c chunk, until time.Time) *belfryv1.ListEventsResponse {
	resp := &belfryv1.ListEventsResponse{}
	kept := make([]belfry.Notification, 0, len(c.notifications))
	for i, n := range c.notifications {
		if !n.Time.After(until) {
			kept = append(kept, n)
			resp.Cursors = append(resp.Cursors, c.cursors[i].String())
		}
	}
	b := e.encode(event.Batch{Notifications: kept}).GetBatch()
	resp.Entries, resp.Notifications = b.GetEntries(), b.GetNotifications()
	return resp
}

// overlap knows how far the past was told of each event, and cuts that off
// what comes live.
type overlap map[overlapKey]uint64

type overlapKey struct {
	registration uint32
	entryKey
}

// An entryKey names an event of any node.
type entryKey struct {
	node        belfry.NodeID
	incarnation belfry.Incarnation
	entry       uint64
}

func overlapKeyOf(n *belfry.Notification) overlapKey {
	return overlapKey{n.Registration, entryKey{n.Node, n.Incarnation, n.Entry}}
}

func (o overlap) told(n *belfry.Notification) {
	if k := overlapKeyOf(n); n.Entry != 0 && n.Last > o[k] {
		o[k] = n.Last
	}
}

// admit tells whether something of n is new.
func (o overlap) admit(n *belfry.Notification) bool {
	last, known := o[overlapKeyOf(n)]
	if !known || n.Last == 0 || !accounts(n.Kind) {
		return true
	}
	from := n.Last - min(n.Last, accounted(n))
	if about := n.Count == 0 && n.Gap == nil; about { // that it flaps is news
		n.Skipped -= min(n.Skipped, last-min(last, from))
		return true
	}
	if n.Last <= last {
		return false
	}
	if from < last {
		curtail(n, last-from)
		n.First = max(n.First, last+1)
	}
	return true
}
