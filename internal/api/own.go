package api

import (
	"maps"
	"slices"
	"sync"

	"github.com/belfry-ha/belfry"
)

// ownOnly tells whether a subject may make a registration only because, and as
// long as, what it names is its own.
func (s *Server) ownOnly(subject Subject, r belfry.Registration) bool {
	ask := Ask{Right: belfry.RightObserve, Class: r.Class, Remote: r.Scope == belfry.ScopeCluster}
	if _, all := s.opts.Decide(subject, ask); all {
		return false
	}
	ask.Own = true
	_, own := s.opts.Decide(subject, ask)
	return own
}

// RejudgeEvent judges again who may observe an event of this node only as its
// own, and ends the streams of those whose own it is not any more with
// ErrPermission. It is to be called when the event has another identifier, and
// before anything that happens under that one goes to a consumer: what comes
// later does not reach them.
func (s *Server) RejudgeEvent(class, subject string) {
	for _, p := range s.consumers.own.of(ownKey{class, subject}) {
		who := s.consumers.subjectOf(p.held)
		r := belfry.Registration{Class: class, Subject: subject}
		if err := s.judgeClass(who, r); err != nil {
			s.consumers.revoke(p.held, err)
		}
	}
}

type (
	// An ownKey names an event of this node.
	ownKey struct{ class, subject string }

	// An ownPart is one registration of a consumer.
	ownPart struct {
		held   *held
		number uint32
	}
)

// ownParts are the registrations that depend on whose an event's subject is. It
// is safe for concurrent use.
type ownParts struct {
	mu sync.Mutex
	by map[ownKey]map[ownPart]struct{}
}

// put notes a registration, unless it has ended meanwhile.
func (o *ownParts) put(r belfry.Registration, h *held, number uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !h.parts.has(number) {
		return
	}
	k := ownKey{r.Class, r.Subject}
	if o.by == nil {
		o.by = map[ownKey]map[ownPart]struct{}{}
	}
	if o.by[k] == nil {
		o.by[k] = map[ownPart]struct{}{}
	}
	o.by[k][ownPart{h, number}] = struct{}{}
}

// drop is called after the registration has gone from its consumer's parts.
func (o *ownParts) drop(r belfry.Registration, h *held, number uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := ownKey{r.Class, r.Subject}
	delete(o.by[k], ownPart{h, number})
	if len(o.by[k]) == 0 {
		delete(o.by, k)
	}
}

// of are those of one event, in no order.
func (o *ownParts) of(k ownKey) []ownPart {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.by[k]))
}
