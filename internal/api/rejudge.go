package api

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/numbered"
)

// Rejudge judges all streams and consumers again, these also while nobody has
// them, and ends those whose subject has lost a right that they need: with
// ErrPermission, and for good. It is to be called when [Options.Decide] has
// begun to answer otherwise.
func (s *Server) Rejudge() {
	for _, o := range s.streams.all() {
		if err := s.judge(o.subject, o.method, ""); err != nil {
			o.end(err)
		}
	}
	for _, h := range s.consumers.all() {
		if err := s.rejudge(h); err != nil {
			s.consumers.revoke(h, err)
		}
	}
}

func (s *Server) rejudge(h *held) error {
	subject := s.consumers.subjectOf(h)
	role, ok := s.opts.Decide(subject, Ask{Right: belfry.RightObserve, Entry: true})
	if !ok {
		subject.Role = role
		return s.deny(subject, opRegister, "", &belfry.Error{Op: opRegister, Err: refusal(subject, "to observe takes "+belfry.RoleReader.String())})
	}
	for number, noted := range h.parts.all() {
		r := noted.registration()
		if s.ownOnly(subject, r) {
			s.consumers.own.put(r, h, number)
		}
		if err := s.judgeClass(subject, r); err != nil {
			return err
		}
	}
	return nil
}

// A judgedStream is one that goes on for as long as its caller may call its
// method.
type judgedStream struct {
	subject Subject
	method  string
	end     context.CancelCauseFunc
}

// judgedStreams are all that are open. Safe for concurrent use.
type judgedStreams struct {
	mu   sync.Mutex
	open map[*judgedStream]struct{}
}

func (j *judgedStreams) add(o *judgedStream) (remove func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.open == nil {
		j.open = map[*judgedStream]struct{}{}
	}
	j.open[o] = struct{}{}
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.open, o)
	}
}

func (j *judgedStreams) all() []*judgedStream {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Collect(maps.Keys(j.open))
}

// parts are the registrations of one consumer by number. Safe for concurrent
// use.
type parts struct {
	mu   sync.Mutex
	of   numbered.Table[*part]
	last *part // that was noted; the next one is often the same
}

// A part is what a registration is judged by, and is never written again. There
// may be 10,000 of a consumer, so nothing else is kept, and of equal ones in a row one.
type part struct {
	class, subject string
	scope          belfry.Scope
}

func (p part) registration() belfry.Registration {
	return belfry.Registration{Class: p.class, Subject: p.subject, Scope: p.scope}
}

// put notes a registration unless its number is taken.
func (p *parts) put(number uint32, r belfry.Registration) (noted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.of.Get(uint64(number)); taken {
		return false
	}
	one := part{r.Class, r.Subject, r.Scope}
	if p.last != nil && p.last.class == one.class {
		one.class = p.last.class // the text need not be there twice
	}
	if p.last == nil || *p.last != one {
		p.last = &one
	}
	p.of.Set(uint64(number), p.last)
	return true
}

// drop returns what [Server.judgeClass] looks at.
func (p *parts) drop(number uint32) (r belfry.Registration, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	noted, known := p.of.Get(uint64(number))
	p.of.Delete(uint64(number))
	if !known {
		return r, false
	}
	return noted.registration(), true
}

func (p *parts) has(number uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.of.Get(uint64(number))
	return known
}

// all is a copy.
func (p *parts) all() map[uint32]*part {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[uint32]*part, p.of.Len())
	for number, noted := range p.of.All() {
		all[uint32(number)] = noted
	}
	return all
}

// register judges one registration and makes it. It is noted before it is
// judged, so that a right that is lost meanwhile is found by Rejudge, and by
// RejudgeEvent if own says so.
func (h *held) register(ctx context.Context, number uint32, r belfry.Registration, own func() bool, judge func() error) (event.Answer, error) {
	noted := h.parts.put(number, r)
	if noted && own() {
		h.own.put(r, h, number)
	}
	var answer event.Answer
	err := judge()
	if err == nil {
		answer, err = h.Register(ctx, number, r)
	}
	if err == nil {
		err = answer.Err
	}
	if err != nil && noted {
		h.forget(number)
	}
	return answer, err
}

// Unregister ends one registration.
func (h *held) Unregister(number uint32) {
	h.Consumer.Unregister(number)
	h.forget(number)
}

// forget is the end of a registration that was noted.
func (h *held) forget(number uint32) {
	if r, known := h.parts.drop(number); known {
		h.own.drop(r, h, number)
	}
}

// Next forgets the registrations that have ended.
func (h *held) Next(ctx context.Context) (event.Batch, error) {
	b, err := h.Consumer.Next(ctx)
	for i := range b.Notifications {
		if n := &b.Notifications[i]; n.Kind == belfry.KindEnded {
			h.forget(n.Registration)
		}
	}
	return b, err
}

// all are those that there are now, in no order.
func (c *consumers) all() []*held {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.byToken))
}

// subjectOf is whoever has the consumer, or had it last.
func (c *consumers) subjectOf(h *held) Subject {
	c.mu.Lock()
	defer c.mu.Unlock()
	return h.subject
}

// revoke ends a consumer and its stream, if it has one, for good.
func (c *consumers) revoke(h *held, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.revoked = true
	if h.cancel != nil {
		h.cancel(err) // its stream will release it
		return
	}
	if h.expiry != nil {
		h.expiry.Stop()
	}
	c.remove(h)
}

// endedBy is why a stream ended whose context has: the cause, if somebody gave
// one, else err.
func endedBy(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil && cause != ctx.Err() { //nolint:errorlint // the value itself
		return cause
	}
	return err
}
