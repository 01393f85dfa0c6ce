package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cloudevents"
	"github.com/belfry-ha/belfry/internal/event"
)

const (
	sseIdle = 15 * time.Second // between two comments on a silent stream
	// sseKept is how many batches that were written stay unacknowledged: what
	// was on its way when the connection broke must be there to be sent again.
	sseKept    = 2
	maxClasses = 16 // registrations of one stream
)

// stream is GET /v1/events/stream: server-sent events (WHATWG HTML 9.2) with
// one CloudEvent each. The query holds the fields of Registration by their
// names in event.proto; class may stand several times. Snapshot is on unless
// it says otherwise; since is a cursor or a time (RFC 3339). Last-Event-ID
// resumes: at an agent that does not know the stream any more, from its journal.
func (w *web) stream(rw http.ResponseWriter, r *http.Request) {
	subject := subjectFrom(r.Context())
	registrations, err := parseStream(r.URL.Query())
	if err == nil {
		err = w.s.judge(subject, belfryv1.EventService_Subscribe_FullMethodName, "")
	}
	if err != nil {
		writeError(rw, err)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	o := &sseWriter{rw: rw, control: http.NewResponseController(rw), cluster: w.s.opts.Cluster.View().Name, server: w.s, told: overlap{}}
	h, skip, lost := w.resume(ctx, r.Header.Get("Last-Event-ID"), subject, cancel)
	var past []belfry.Registration
	o.has = skip.memory
	if h != nil {
		o.cursor, o.resumable = skip.cursor, !skip.cursor.IsZero()
	} else {
		if h, past, lost, err = w.begin(ctx, o, subject, registrations, skip.cursor, lost, cancel); err != nil {
			writeError(rw, err)
			return
		}
		skip = position{}
	}
	broken := true
	defer func() { w.s.consumers.release(h, broken) }()
	rw.Header().Set("Content-Type", "text/event-stream")
	rw.WriteHeader(http.StatusOK)
	if lost {
		now := time.Now()
		n := belfry.Notification{Kind: belfry.KindGap, Time: now, Gap: &belfry.Gap{Resync: true, Reason: belfry.GapLink, To: now}}
		o.event(h.token, position{}, &n)
	}
	if err := o.replay(ctx, h, past); err != nil {
		return
	}
	broken = !errors.Is(o.run(ctx, h, skip), io.EOF)
}

// begin opens a new consumer: where the client has been, from the journal, or
// else now. What lies in the past is still to be told.
func (w *web) begin(ctx context.Context, o *sseWriter, subject Subject, all []*belfryv1.Registration, from belfry.Cursor, lost bool, cancel context.CancelCauseFunc) (h *held, past []belfry.Registration, stillLost bool, err error) {
	before := w.s.opts.Journal.Durable()
	if lost && !from.IsZero() {
		again := make([]*belfryv1.Registration, len(all))
		for i, r := range all {
			again[i] = &belfryv1.Registration{}
			if err := transfer(again[i], r); err != nil {
				return nil, nil, lost, err
			}
			again[i].Since = &belfryv1.Since{Kind: &belfryv1.Since_Cursor{Cursor: from.String()}}
		}
		if h, past, err = w.open(ctx, subject, again, cancel); err == nil {
			o.cursor, o.resumable = from, true
			return h, past, false, nil
		}
	}
	if h, past, err = w.open(ctx, subject, all, cancel); err != nil {
		return nil, nil, lost, err
	}
	o.resumable = true
	for _, r := range past {
		o.resumable = o.resumable && w.s.resumable(subject, r)
	}
	if o.resumable {
		o.cursor = before
	}
	if past[0].Since.IsZero() { // they are all alike
		past = nil
	} else {
		o.cursor = past[0].Since.Cursor
	}
	return h, past, lost, nil
}

// open makes a consumer with all registrations, or none.
func (w *web) open(ctx context.Context, subject Subject, all []*belfryv1.Registration, cancel context.CancelCauseFunc) (*held, []belfry.Registration, error) {
	h, err := w.s.consumers.add(func() Consumer {
		return w.s.opts.Events.Open(event.ConsumerStream, consumerName(subject, "sse"), event.Limits{Window: sseKept + 1})
	}, subject, cancel)
	if err != nil {
		w.s.limited.Add(1)
		return nil, nil, &belfry.Error{Op: "stream", Err: err}
	}
	registered := make([]belfry.Registration, len(all))
	for i, r := range all {
		if registered[i], _, err = w.s.tryRegister(ctx, h, subject, uint32(i+1), r); err != nil {
			w.s.consumers.release(h, false)
			return nil, nil, err
		}
	}
	return h, registered, nil
}

// resume finds the consumer that an id names. skip is what the client has of
// the first batches; lost tells that something between is gone for good.
func (w *web) resume(ctx context.Context, id string, subject Subject, cancel context.CancelCauseFunc) (h *held, skip position, lost bool) {
	if id == "" {
		return nil, position{}, false
	}
	t, at, err := parseEventID(id)
	if err != nil {
		return nil, position{}, true
	}
	if at.batch == 0 && !at.cursor.IsZero() { // its past had not been told to the end
		return nil, at, true
	}
	if h = w.s.consumers.take(ctx, t, subject, cancel); h == nil {
		return nil, at, true
	}
	h.Resume(max(at.batch, 1) - 1)
	return h, at, at.batch < h.acked
}

// sseWriter writes the stream.
type sseWriter struct {
	rw      http.ResponseWriter
	control *http.ResponseController
	cluster string
	buffer  []byte
	err     error // of the first write that failed

	server    *Server
	told      overlap       // what the past had
	cursor    belfry.Cursor // everything up to it has been written
	resumable bool          // it moves on with what is written
	has       memory        // what was written behind it
	looks     chan uint64   // the journal is asked how far it is; nil: it is not
	edge      uint64        // where it has all that was written before that; 0: not known
}

// replay writes the past. With several registrations there is no place in it
// that would do for all of them, until all have been told.
func (o *sseWriter) replay(ctx context.Context, h *held, past []belfry.Registration) error {
	var reached []belfry.Cursor
	for i, r := range past {
		err := o.server.replayPast(ctx, uint32(i)+1, r, func(c chunk, last bool) error {
			for k := range c.notifications {
				n := &c.notifications[k]
				if !o.has.again(n) || !o.told.admit(n) {
					continue
				}
				o.told.told(n)
				if len(past) == 1 && o.resumable {
					o.cursor = c.cursors[k]
				}
				if len(past) > 1 || Timed(r) { // else the cursor says it
					o.has.note(n)
				}
				o.event(h.token, position{}, n)
			}
			h.skips.Add(uint32(i)+1, c.skipped)
			if last {
				reached = append(reached, c.cursors[len(c.cursors)-1])
			}
			return o.flush()
		})
		if err != nil {
			return err
		}
	}
	if len(reached) > 0 && o.resumable {
		o.cursor = reached[0]
		o.has.claims = nil // the rest is in no journal
	}
	return nil
}

// moveOn moves the cursor to a place up to which everything has been written. It
// never ends within what a gap over several events stands for.
func (o *sseWriter) moveOn(to belfry.Cursor) {
	select {
	case o.edge = <-o.looks:
		o.looks = nil
	default:
	}
	behind := o.edge > 0 && to.Position >= o.edge
	for _, c := range o.has.claims {
		if !c.old || !behind {
			return
		}
	}
	o.cursor = to
	if behind {
		o.has.forget()
		o.edge = 0
	}
}

// look asks how far the journal must be to have all that was written until now.
func (o *sseWriter) look(ctx context.Context) {
	if !o.resumable || o.looks != nil || o.edge > 0 || len(o.has.told) < lookTold && len(o.has.claims) == 0 {
		return
	}
	o.has.age()
	answer := make(chan uint64, 1)
	o.looks = answer
	o.server.group.Go(func() {
		at, whole := o.server.flushed(ctx)
		if !whole {
			at.Position = 0 // it is asked again
		}
		answer <- at.Position
	})
}

// run writes batch after batch. skip is what the client already has.
func (o *sseWriter) run(ctx context.Context, h *held, skip position) error {
	asked := false
	var before belfry.Cursor
	for {
		if err := o.flush(); err != nil {
			return err
		}
		if !asked { // what is on the disk by now comes with the batch that empties the queue
			before, asked = o.server.opts.Journal.Durable(), true
		}
		b, err := nextWithin(ctx, h, sseIdle)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			o.buffer = append(o.buffer, ": \n\n"...)
			continue
		}
		if err != nil {
			return err
		}
		for i := range b.Notifications {
			at := position{batch: b.Number, index: uint64(i) + 1}
			if at.batch < skip.batch || at.batch == skip.batch && at.index <= skip.index {
				continue
			}
			if i == len(b.Notifications)-1 && b.Drained && o.resumable && !overSeveral(b.Notifications[i]) {
				o.moveOn(before)
			}
			if n := b.Notifications[i]; o.told.admit(&n) {
				h.skips.Into(n.Registration, b.Number, &n)
				o.has.note(&n)
				o.event(h.token, at, &n)
			}
		}
		asked = false
		if err := o.flush(); err != nil {
			return err
		}
		o.look(ctx)
		if b.Number > sseKept && b.Number-sseKept > h.acked {
			h.acked = b.Number - sseKept
			h.Ack(h.acked)
		}
	}
}

// nextWithin gives up after d; the batch that comes later is not lost.
func nextWithin(ctx context.Context, c Consumer, d time.Duration) (event.Batch, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return c.Next(ctx)
}

func (o *sseWriter) event(t token, at position, n *belfry.Notification) {
	at.cursor, at.memory = o.cursor, o.has
	b := append(o.buffer, "id: "...)
	b = appendEventID(b, t, at)
	switch n.Kind {
	case belfry.KindGap:
		b = append(b, "\nevent: gap\ndata: "...)
	case belfry.KindState:
		b = append(b, "\nevent: state\ndata: "...)
	default:
		b = append(b, "\nevent: notification\ndata: "...)
	}
	b = cloudevents.Append(b, o.cluster, n)
	o.buffer = append(b, "\n\n"...)
	if len(o.buffer) >= 64<<10 {
		_ = o.flush() // the error stays for the next one
	}
}

func (o *sseWriter) flush() error {
	if o.err == nil && len(o.buffer) > 0 {
		_, o.err = o.rw.Write(o.buffer)
		o.buffer = o.buffer[:0]
	}
	if o.err == nil {
		o.err = o.control.Flush()
	}
	return o.err
}
