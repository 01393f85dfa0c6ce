package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/sink/journal"
)

// journalView is the journal as the API sees it.
type journalView struct{ *recorder }

var _ api.Journal = journalView{}

func (v journalView) Status() *belfryv1.JournalStatus { return v.status() }

// Durable is the zero Cursor where there is no journal.
func (v journalView) Durable() belfry.Cursor {
	if v.store == nil {
		return belfry.Cursor{}
	}
	return v.cursor(v.store.Durable())
}

func (v journalView) Flush(ctx context.Context) (belfry.Cursor, error) {
	if v.store == nil {
		return belfry.Cursor{}, nil
	}
	at, err := v.flush(ctx)
	return v.cursor(at), err
}

func (v journalView) Read(all []belfry.Registration, since belfry.Since, until uint64) (api.Past, error) {
	return v.past(all, since, until)
}

func (r *recorder) cursor(position uint64) belfry.Cursor {
	return belfry.Cursor{Node: r.agent.id.node.ID, Incarnation: r.agent.id.incarnation, Position: position}
}

// A past reads what registrations are for.
type past struct {
	recorder *recorder
	in       *journal.Reader // nil: there is nothing to read
	judges   []*event.Judge
	values   []bool  // by judge: it is for values past a threshold
	missed   *missed // of registrations that it can only count for; nil: there is none
	since    belfry.Since
	quiet    bool                        // boundaries are left out
	at       belfry.Cursor               // of what was read last
	waiting  []belfry.Notification       // follow what was read last
	begun    bool                        // of a number: something was read
	skipped  map[journal.Key]api.Skipped // refused by the rules since the last one
}

// past begins to read. For a registration that goes on from a cursor, and has rules
// about time, it counts. ErrUsage: since is none of this journal.
func (r *recorder) past(all []belfry.Registration, since belfry.Since, until uint64) (*past, error) {
	if r.store == nil {
		return nil, errNoJournal
	}
	p := &past{recorder: r, since: since, skipped: map[journal.Key]api.Skipped{}}
	for i, one := range all {
		if api.Timed(one) {
			if one.Since.Cursor.IsZero() || since.Cursor.IsZero() {
				return nil, errTimedPast
			}
			p.counts(i)
			one.Hold, one.MinInterval, one.Flap = 0, 0, belfry.Flap{}
		}
		one.Since = since
		j, err := event.NewJudge(r.agent.events.cfg, one)
		if err != nil {
			return nil, err
		}
		p.judges, p.values = append(p.judges, j), append(p.values, !one.Threshold.IsZero())
	}
	if until == 0 {
		return p, nil
	}
	q := journal.Query{Until: until, Since: since.Time, Match: p.match}
	if c := since.Cursor; !c.IsZero() {
		if c.Node != r.agent.id.node.ID {
			return nil, fmt.Errorf("%w: this cursor is of node %s; ask there", belfry.ErrUsage, r.agent.nameOf(c.Node))
		}
		q.From, q.Incarnation = c.Position, c.Incarnation
	}
	var err error
	p.in, err = r.store.Read(q)
	return p, err
}

func (p *past) match(class belfry.Class, subject string, node belfry.NodeID) bool {
	for _, j := range p.judges {
		if j.Event(class, subject, node) {
			return true
		}
	}
	return false
}

// Next is io.EOF at the end.
func (p *past) Next() (belfry.Notification, belfry.Cursor, error) {
	for p.in != nil {
		if len(p.waiting) > 0 {
			n, at := p.next()
			return n, at, nil
		}
		item, err := p.in.Next()
		if errors.Is(err, io.EOF) && p.missed.any() {
			return p.missed.take(), p.since.Cursor, nil
		}
		if err != nil {
			return belfry.Notification{}, belfry.Cursor{}, err
		}
		p.judged(&item)
		if len(p.waiting) == 0 {
			continue
		}
		if p.at = p.recorder.cursor(item.Position); p.missed != nil {
			p.at = p.since.Cursor // what has been counted is still to be told
		}
		if gap, missing := p.before(&p.waiting[0]); missing {
			return gap, p.recorder.cursor(item.Position - 1), nil
		}
	}
	return belfry.Notification{}, belfry.Cursor{}, io.EOF
}

// next takes the first of what waits. Who goes on from there gets the rest.
func (p *past) next() (n belfry.Notification, at belfry.Cursor) {
	n, at = p.waiting[0], p.at
	if p.waiting = p.waiting[1:]; len(p.waiting) > 0 && p.missed == nil {
		at.Position--
	}
	return n, at
}

// judged gives an item to the first registration that wants it. Where it merged
// occurrences of which only the newest is known, to those whose filters do not look
// at that; if there is none, a gap and the newest.
func (p *past) judged(item *journal.Item) {
	p.waiting = p.waiting[:0]
	if b := item.Boundary; b != nil {
		if !p.quiet && !p.since.HasSequence && p.blind(b) {
			p.waiting = append(p.waiting, p.unwatched(b))
		}
		return
	}
	n := item.Notification
	switch {
	case n.Event.Class == "": // nobody knows what it was about
		if !p.since.HasSequence {
			p.waiting = append(p.waiting, n)
		}
		return
	case p.since.HasSequence && !p.after(&n):
		return
	}
	unable := -1
	for i, j := range p.judges {
		one := p.seenBy(i, n)
		switch {
		case !j.Event(n.Event.Class, n.Event.Subject, n.Node):
		case p.missed.of(i) && (n.Gap == nil || n.Gap.Known):
			p.missed.count(journal.KeyOf(&n), &one, uint32(i)+1, j.Blind(&one) || j.Wants(&one))
			return
		case n.Kind != belfry.KindGap && j.Blind(&one):
			if unable < 0 {
				unable = i
			}
		case n.Kind == belfry.KindGap || j.Wants(&one):
			p.give(&one, i)
			return
		}
	}
	if unable < 0 {
		p.skip(&n)
		return
	}
	gap, newest := parted(&n)
	p.give(&gap, unable)
	for i, j := range p.judges {
		if one := p.seenBy(i, newest); j.Event(n.Event.Class, n.Event.Subject, n.Node) && j.Wants(&one) {
			p.give(&one, i)
			return
		}
	}
	p.skip(&newest)
}

// seenBy is what a registration judges. For one with a threshold what is past it has
// failed; what is recorded is about whose threshold was crossed.
func (p *past) seenBy(registration int, n belfry.Notification) belfry.Notification {
	if p.values[registration] && n.Kind == belfry.KindOccurrence {
		n.Edge = belfry.EdgeFailing
	}
	return n
}

// parted makes two of several occurrences that merged: of the newest the data is known.
func parted(n *belfry.Notification) (gap, newest belfry.Notification) {
	gap, newest = *n, *n
	newest.First, newest.Count, newest.Skipped, newest.FirstTime, newest.Mixed = n.Last, 1, 0, n.Time, false
	gap.Kind, gap.Last, gap.Count, gap.Data, gap.Value, gap.Edge, gap.Mixed = belfry.KindGap, n.Last-1, 0, nil, 0, belfry.EdgeNone, false
	gap.Gap = &belfry.Gap{Total: n.Count - 1, Known: true, Reason: belfry.GapMerged, From: n.FirstTime, To: n.Time}
	return gap, newest
}

// give lets a notification go to a registration, with what was refused before it.
func (p *past) give(n *belfry.Notification, judge int) {
	key := journal.KeyOf(n)
	n.Registration = uint32(judge) + 1
	n.Skipped += p.skipped[key].Count
	delete(p.skipped, key)
	p.waiting = append(p.waiting, *n)
}

// skip counts what the rules refuse.
func (p *past) skip(n *belfry.Notification) {
	key := journal.KeyOf(n)
	p.skipped[key] = api.Skipped{
		Node: n.Node, Incarnation: n.Incarnation, Entry: n.Entry, Class: n.Event.Class, Subject: n.Event.Subject,
		Count: p.skipped[key].Count + n.Count + n.Skipped, Last: n.Last,
	}
}

// Skipped is what the next notifications, which are none of the past, are to say.
func (p *past) Skipped() []api.Skipped {
	return append(slices.Collect(maps.Values(p.skipped)), p.missed.ends()...)
}

// after leaves out the numbers up to that of since.
func (p *past) after(n *belfry.Notification) bool {
	seq := p.since.Sequence
	if n.Incarnation != p.recorder.agent.id.incarnation || n.Last <= seq {
		return false
	}
	if whole := n.Last - n.First + 1; n.First <= seq && n.Gap == nil && n.Count == whole {
		n.First, n.Count = seq+1, n.Last-seq
	}
	return true
}

// before is the gap between the number of since and the first one that is kept.
func (p *past) before(n *belfry.Notification) (gap belfry.Notification, missing bool) {
	first := p.since.HasSequence && !p.begun
	p.begun = true
	had := n.First - 1 - min(n.Skipped, n.First-1)
	if !first || had <= p.since.Sequence {
		return gap, false
	}
	gap = *n
	gap.Kind, gap.First, gap.Last, gap.Count, gap.Skipped, gap.Data, gap.Edge = belfry.KindGap, p.since.Sequence+1, had, 0, 0, nil, belfry.EdgeNone
	gap.Time = n.FirstTime
	gap.Gap = &belfry.Gap{Total: had - p.since.Sequence, Known: true, Reason: belfry.GapJournal, From: n.FirstTime, To: n.FirstTime}
	return gap, true
}

// blind tells whether something of this node's own events may be missing between
// two lives of its agent. What others had to say comes with its numbers. And
// nobody can send an event where no agent runs, if the last one ended in order.
func (p *past) blind(b *journal.Boundary) bool {
	for _, j := range p.judges {
		if own, sent := j.Own(); own && (!sent || !b.Complete) {
			return true
		}
	}
	return false
}

// unwatched is the gap between two lives of the agent.
func (p *past) unwatched(b *journal.Boundary) belfry.Notification {
	self := p.recorder.agent.id.node
	return belfry.Notification{
		Kind: belfry.KindGap, Node: self.ID, NodeName: self.Name, FirstTime: b.From, Time: b.To,
		Gap: &belfry.Gap{Reason: belfry.GapNotMonitored, From: b.From, To: b.To},
	}
}

// Close lets go of what is being read.
func (p *past) Close() {
	if p.in != nil {
		p.in.Close()
	}
}

// timestampOf is nil for the zero time.
func timestampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
