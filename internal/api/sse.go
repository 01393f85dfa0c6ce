package api

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

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
// it says otherwise. Last-Event-ID resumes.
func (w *web) stream(rw http.ResponseWriter, r *http.Request) {
	subject := subjectFrom(r.Context())
	registrations, err := parseStream(r.URL.Query())
	if err == nil {
		err = w.s.judge(subject, belfryv1.EventService_Subscribe_FullMethodName)
	}
	if err != nil {
		writeError(rw, err)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	o := &sseWriter{rw: rw, control: http.NewResponseController(rw), cluster: w.s.opts.Cluster.View().Name}
	h, skip, lost := w.resume(ctx, r.Header.Get("Last-Event-ID"), subject, cancel)
	if h == nil {
		if h, err = w.open(ctx, subject, registrations, cancel); err != nil {
			writeError(rw, err)
			return
		}
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
	broken = !errors.Is(o.run(ctx, h, skip), io.EOF)
}

// open makes a consumer with all registrations, or none.
func (w *web) open(ctx context.Context, subject Subject, all []*belfryv1.Registration, cancel context.CancelCauseFunc) (*held, error) {
	h, err := w.s.consumers.add(func() Consumer {
		return w.s.opts.Events.Open(event.ConsumerStream, consumerName(subject, "sse"), event.Limits{Window: sseKept + 1})
	}, subject, cancel)
	if err != nil {
		w.s.limited.Add(1)
		return nil, &belfry.Error{Op: "stream", Err: err}
	}
	for i, r := range all {
		if _, _, err := w.s.tryRegister(ctx, h, subject, uint32(i+1), r); err != nil {
			w.s.consumers.release(h, false)
			return nil, err
		}
	}
	return h, nil
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
	if h = w.s.consumers.take(ctx, t, subject, cancel); h == nil {
		return nil, position{}, true
	}
	h.Resume(max(at.batch, 1) - 1)
	return h, at, at.batch < h.acked
}

// A position is a notification in a consumer's batches: how many of a batch
// have been written.
type position struct{ batch, index uint64 }

func appendEventID(dst []byte, t token, at position) []byte {
	var raw [len(t) + 2*binary.MaxVarintLen64]byte
	b := append(raw[:0], t[:]...)
	b = binary.AppendUvarint(b, at.batch)
	b = binary.AppendUvarint(b, at.index)
	return base64.RawURLEncoding.AppendEncode(dst, b)
}

func parseEventID(s string) (t token, at position, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < len(t) {
		return t, at, fmt.Errorf("%w: event id %q is not one of ours", belfry.ErrUsage, s)
	}
	copy(t[:], b)
	b = b[len(t):]
	var n, m int
	at.batch, n = binary.Uvarint(b)
	if n > 0 {
		at.index, m = binary.Uvarint(b[n:])
	}
	if n <= 0 || m <= 0 || n+m != len(b) {
		return t, position{}, fmt.Errorf("%w: event id %q is not one of ours", belfry.ErrUsage, s)
	}
	return t, at, nil
}

// sseWriter writes the stream.
type sseWriter struct {
	rw      http.ResponseWriter
	control *http.ResponseController
	cluster string
	buffer  []byte
	err     error // of the first write that failed
}

// run writes batch after batch. skip is what the client already has.
func (o *sseWriter) run(ctx context.Context, h *held, skip position) error {
	for {
		if err := o.flush(); err != nil {
			return err
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
			at := position{b.Number, uint64(i) + 1}
			if at.batch < skip.batch || at.batch == skip.batch && at.index <= skip.index {
				continue
			}
			o.event(h.token, at, &b.Notifications[i])
		}
		if err := o.flush(); err != nil {
			return err
		}
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

// parseStream reads the query of a stream into one registration for each
// class. ErrUsage for a field there is not, or a value it can not have.
func parseStream(query url.Values) ([]*belfryv1.Registration, error) {
	fail := func(format string, args ...any) ([]*belfryv1.Registration, error) {
		return nil, &belfry.Error{Op: "stream", Err: fmt.Errorf("%w: "+format, append([]any{belfry.ErrUsage}, args...)...)}
	}
	r := &belfryv1.Registration{Snapshot: true}
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values := query[name]
		if len(values) != 1 && name != "class" && name != "nodes" {
			return fail("%s stands %d times; give it once", name, len(values))
		}
		if err := streamField(r, name, values); err != nil {
			return fail("%s=%s: %w", name, values[0], err)
		}
	}
	classes := query["class"]
	switch {
	case len(classes) == 0:
		return fail("no class; give at least one as class=NAME")
	case len(classes) > maxClasses:
		return fail("%d classes; at most %d on one stream", len(classes), maxClasses)
	case len(classes) > 1 && r.GetSubject() != "":
		return fail("a subject for %d classes; open a stream for each", len(classes))
	}
	all := make([]*belfryv1.Registration, len(classes))
	for i, class := range classes {
		one := &belfryv1.Registration{}
		if err := transfer(one, r); err != nil {
			return nil, err
		}
		one.Class = class
		all[i] = one
	}
	return all, nil
}

func durationField(value string) (*durationpb.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil {
		return nil, errNotDuration
	}
	return durationpb.New(d), nil
}

var (
	errNotDuration = errors.New("not a duration; write for example 5s")
	errNotBool     = errors.New("not true or false")
	errNotNumber   = errors.New("not a number")
	errNoField     = errors.New("no such field; event.proto lists those of Registration")
)

// streamField sets one field.
func streamField(r *belfryv1.Registration, name string, values []string) error {
	value := values[0]
	var err error
	flag := func(to *bool) {
		if *to, err = strconv.ParseBool(value); err != nil {
			err = errNotBool
		}
	}
	number := func() *float64 {
		f, parseErr := strconv.ParseFloat(value, 64)
		if parseErr != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			err = errNotNumber
		}
		return &f
	}
	switch name {
	case "class":
	case "subject":
		r.Subject = value
	case "nodes":
		r.Nodes = values
	case "filter":
		r.Filter = value
	case "scope":
		var scope belfry.Scope
		if scope, err = belfry.ParseScope(value); scope == belfry.ScopeCluster {
			r.Scope = belfryv1.Scope_SCOPE_CLUSTER
		}
	case "edge":
		var edge belfry.EdgeFilter
		edge, err = belfry.ParseEdgeFilter(value)
		r.Edge = belfryv1.EdgeFilter(edge)
	case "only_where_monitored":
		flag(&r.OnlyWhereMonitored)
	case "wait":
		flag(&r.Wait)
	case "no_follow":
		flag(&r.NoFollow)
	case "snapshot":
		flag(&r.Snapshot)
	case "coalesce_never":
		flag(&r.CoalesceNever)
	case "hi":
		r.Hi = number()
	case "lo":
		r.Lo = number()
	case "hysteresis":
		r.Hysteresis = *number()
	case "hold":
		r.Hold, err = durationField(value)
	case "min_interval":
		r.MinInterval, err = durationField(value)
	case "flap":
		var f belfry.Flap
		if f, err = belfry.ParseFlap(value); err == nil {
			r.Flap = &belfryv1.Flap{Window: durationpb.New(f.Window), High: uint32(max(0, f.High)), Low: uint32(max(0, f.Low))}
		}
	case "limit":
		limit, parseErr := strconv.ParseUint(value, 10, 16)
		if r.Limit = uint32(limit); parseErr != nil {
			err = errNotNumber
		}
	default:
		return errNoField
	}
	return err
}
