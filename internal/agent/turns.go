package agent

import (
	"context"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/sink"
)

const (
	// sharePeriod is between two looks at what other nodes do and are done with.
	sharePeriod = 500 * time.Millisecond
	// sharePatience is how long a node that is up may take for a notification
	// before this one claims it: it may have missed it.
	sharePatience = 10 * time.Minute
	// claimPatience is how long a node that is up, but answers no question, keeps
	// others from running anything.
	claimPatience = 10 * time.Second
	// membersPatience is how long after its start an agent waits to hear of each
	// member, or what others say of it, before it takes those for gone.
	membersPatience = 10 * time.Second
	// maxProgress is the most events in one question.
	maxProgress = 1000
)

// The turns let one of the nodes that have a handler run it for an event
// (docs/adr/0014, 0034). A node whose turn it is claims the notification: it asks
// all others, and runs it when none is done with it, runs it or has a claim that
// comes first. The others keep the notification and ask that node how far it is;
// when it is down, or has been started again since, it is the next one's turn.
type turns struct {
	// present is who is there.
	present func() presence
	// ask asks another node; the answer has one element for each event.
	ask func(ctx context.Context, node belfry.NodeID, req *belfryv1.GetProgressRequest) (*belfryv1.GetProgressResponse, error)
	// spawn starts a goroutine; ctx ends with the agent.
	spawn func(func(ctx context.Context))

	mu      sync.Mutex
	all     map[turnKey]*turn
	follows bool                      // a goroutine looks after those that wait
	fresh   chan struct{}             // capacity 1: one is new
	silent  map[belfry.NodeID]silence // of the goroutine
}

// A silence is since when, and when last, a node did not answer.
type silence struct{ since, last time.Time }

// A presence is which nodes are there.
type presence struct {
	self  belfry.NodeID
	up    map[belfry.NodeID]belfry.Incarnation // self included
	known bool                                 // of each member whether it is up
}

// A turnKey names a turn: a handler has at most one of an event at a time.
type turnKey struct {
	handler string
	key     sink.Key
}

// A stand is what a node does about a notification.
type stand uint8

const (
	waits  stand = iota // for the node whose turn it is
	claims              // it asks whether it may run it
	runs
)

// A turn is one notification that waits for its node, or runs on this one.
type turn struct {
	turnKey
	event    sink.Event
	first    uint64
	last     uint64
	numbered bool // it has numbers of its own, by which others know it
	since    time.Time

	// Of the goroutine that follows.
	placed bool
	met    map[belfry.NodeID]belfry.Incarnation // in which they were up when it came
	out    map[belfry.NodeID]bool               // nodes whose turn it is not
	owner  belfry.NodeID                        // whose turn it was at the last look
	begun  int                                  // attempts that others have begun, or may have
	heard  map[belfry.NodeID]*belfryv1.Progress // at this look

	stand  stand // of turns.mu
	looked bool  // of turns.mu

	over chan sink.Turn // with room for it
}

var _ sink.Share = (*turns)(nil)

func newTurns(a *Agent) *turns {
	return &turns{
		present: a.present,
		ask: func(ctx context.Context, node belfry.NodeID, req *belfryv1.GetProgressRequest) (*belfryv1.GetProgressResponse, error) {
			ctx, cancel := context.WithTimeout(ctx, replicateTimeout)
			defer cancel()
			resp := &belfryv1.GetProgressResponse{}
			err := a.ask(ctx, node, belfryv1.MemberPeerService_GetProgress_FullMethodName, req, resp)
			if err != nil {
				a.log.Debug("progress not known", "peer", a.nameOf(node), "err", err)
			}
			return resp, err
		},
		spawn: func(f func(context.Context)) { a.group.Go(func() error { f(a.ended); return nil }) },
	}
}

// present is who is there. Soon after the start a member that nobody has said
// anything of yet may be up all the same.
func (a *Agent) present() presence {
	var nodes []cluster.NodeStatus
	a.cluster.call(func(m *cluster.Machine) { nodes = m.Nodes(time.Now()) })
	return presenceOf(a.id.node.ID, a.id.incarnation, nodes, time.Since(a.started))
}

func presenceOf(self belfry.NodeID, incarnation belfry.Incarnation, nodes []cluster.NodeStatus, age time.Duration) presence {
	p := presence{self: self, up: map[belfry.NodeID]belfry.Incarnation{}, known: true}
	for _, n := range nodes {
		switch {
		case n.Verdict == belfry.VerdictUp:
			p.up[n.ID] = n.Incarnation
		case n.Verdict == belfry.VerdictJoining && n.ID != self && age < membersPatience:
			p.known = false
		}
	}
	p.up[self] = incarnation
	return p
}

// Await is sink.Share. What has no numbers of its own, a state or a gap over
// several events, is run by the node whose turn it is, and not waited for.
func (s *turns) Await(ctx context.Context, handler string, n *belfry.Notification) (sink.Turn, error) {
	t := &turn{
		turnKey: turnKey{handler, sink.KeyOf(n)}, event: sink.EventOf(n), first: n.First, last: n.Last, since: time.Now(),
		numbered: n.Kind == belfry.KindOccurrence || n.Kind == belfry.KindGap && n.Event.Class != "",
		out:      map[belfry.NodeID]bool{}, over: make(chan sink.Turn, 1),
	}
	s.add(t)
	select {
	case turn := <-t.over:
		if turn.Mine {
			turn.Release = func() { s.remove(t) }
		} else {
			s.remove(t)
		}
		return turn, nil
	case <-ctx.Done():
		s.remove(t)
		return sink.Turn{}, ctx.Err()
	}
}

func (s *turns) add(t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all, s.silent, s.fresh = map[turnKey]*turn{}, map[belfry.NodeID]silence{}, make(chan struct{}, 1)
	}
	s.all[t.turnKey] = t
	if !s.follows {
		s.follows = true
		s.spawn(s.follow)
	}
	select {
	case s.fresh <- struct{}{}:
	default:
	}
}

func (s *turns) remove(t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[t.turnKey] == t {
		delete(s.all, t.turnKey)
	}
}

// follow looks after the turns for as long as any waits: at a new one at once.
func (s *turns) follow(ctx context.Context) {
	tick := time.NewTicker(sharePeriod)
	defer tick.Stop()
	for {
		due := false
		select {
		case <-ctx.Done():
			return
		case <-s.fresh:
		case <-tick.C:
			due = true
		}
		waiting, end := s.waiting(due)
		if end {
			return
		}
		s.look(ctx, waiting)
	}
}

// waiting are the turns to look at: all, or those that are new. At the end there
// are none.
func (s *turns) waiting(all bool) (waiting []*turn, end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.all {
		if t.stand != runs && (all || !t.looked) {
			t.looked = true
			waiting = append(waiting, t)
		}
	}
	s.follows = !all || len(waiting) > 0
	return waiting, !s.follows
}

// progress is what this node says of a turn when it is asked.
func (s *turns) progress(k turnKey) (runsIt, claimsIt bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.all[k]
	return t != nil && t.stand == runs, t != nil && t.stand == claims
}

func (s *turns) become(t *turn, st stand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.stand = st
}
