package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/sink"
)

const (
	// sharePeriod is between two looks at what other nodes are done with.
	sharePeriod = 500 * time.Millisecond
	// sharePatience is how long a node that is up may take for a notification
	// before this one runs it: it may have missed it.
	sharePatience = 10 * time.Minute
	// maxProgress is the most events in one question.
	maxProgress = 1000
)

// The turns let one of the nodes that have a handler run it for an event
// (docs/adr/0014). The others keep the notification and ask that node how far
// it is; when it is down, or has been started again since, it is the next
// one's turn.
type turns struct {
	agent *Agent

	mu    sync.Mutex
	waits map[*turn]struct{}
	asks  bool // a goroutine looks after the waits
}

// A turn is one notification that waits for its node.
type turn struct {
	handler string
	key     sink.Key
	first   uint64
	since   time.Time
	out     map[belfry.NodeID]bool               // nodes whose turn it is not
	met     map[belfry.NodeID]belfry.Incarnation // in which they were up when it came
	over    chan outcome                         // with room for it
}

type outcome struct {
	mine bool
	done uint64
}

var _ sink.Share = (*turns)(nil)

// Await is sink.Share. What has no numbers of its own, a state or a gap over
// several events, is not waited for.
func (s *turns) Await(ctx context.Context, handler string, n *belfry.Notification) (mine bool, done uint64, err error) {
	t := &turn{
		handler: handler, key: sink.KeyOf(n), first: n.First, since: time.Now(),
		out: map[belfry.NodeID]bool{}, met: map[belfry.NodeID]belfry.Incarnation{}, over: make(chan outcome, 1),
	}
	up := s.agent.incarnations()
	for id, incarnation := range up {
		t.met[id] = incarnation
	}
	if owner := t.owner(up); owner == s.agent.id.node.ID || owner.IsZero() {
		return true, 0, nil
	}
	if n.Kind != belfry.KindOccurrence && (n.Kind != belfry.KindGap || n.Event.Class == "") {
		return false, n.Last, nil
	}
	s.add(t)
	defer s.remove(t)
	select {
	case o := <-t.over:
		return o.mine, o.done, nil
	case <-ctx.Done():
		return false, 0, ctx.Err()
	}
}

// owner is whose turn it is among the nodes that are up.
func (t *turn) owner(up map[belfry.NodeID]belfry.Incarnation) belfry.NodeID {
	var nodes []belfry.NodeID
	for id := range up {
		if !t.out[id] {
			nodes = append(nodes, id)
		}
	}
	if len(nodes) == 0 {
		return belfry.NodeID{}
	}
	return sink.Order(t.handler, t.key, nodes)[0]
}

// incarnations are the nodes that are up, this one included.
func (a *Agent) incarnations() map[belfry.NodeID]belfry.Incarnation {
	up := map[belfry.NodeID]belfry.Incarnation{}
	a.cluster.call(func(m *cluster.Machine) {
		for _, n := range m.Nodes(time.Now()) {
			if n.Verdict == belfry.VerdictUp {
				up[n.ID] = n.Incarnation
			}
		}
	})
	up[a.id.node.ID] = a.id.incarnation
	return up
}

func (s *turns) add(t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits[t] = struct{}{}
	if !s.asks {
		s.asks = true
		s.agent.group.Go(func() error { s.ask(s.agent.ended); return nil })
	}
}

func (s *turns) remove(t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waits, t)
}

// ask looks after the waits for as long as there are any.
func (s *turns) ask(ctx context.Context) {
	tick := time.NewTicker(sharePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		var waits []*turn
		for t := range s.waits {
			waits = append(waits, t)
		}
		s.asks = len(waits) > 0
		s.mu.Unlock()
		if len(waits) == 0 {
			return
		}
		s.look(ctx, waits)
	}
}

// look finds out whose turn it is for each wait, and asks each of those nodes
// once.
func (s *turns) look(ctx context.Context, waits []*turn) {
	up := s.agent.incarnations()
	of := map[belfry.NodeID][]*turn{}
	for _, t := range waits {
		for id, met := range t.met {
			if now, ok := up[id]; ok && now != met { // started again: it may not have heard of it
				t.out[id] = true
			}
		}
		owner := t.owner(up)
		if owner == s.agent.id.node.ID || owner.IsZero() || time.Since(t.since) > sharePatience {
			t.settle(outcome{mine: true})
			continue
		}
		of[owner] = append(of[owner], t)
	}
	var group sync.WaitGroup
	for owner, turns := range of {
		group.Go(func() {
			for some := range slices.Chunk(turns, maxProgress) {
				s.askOne(ctx, owner, some)
			}
		})
	}
	group.Wait()
}

func (t *turn) settle(o outcome) {
	select {
	case t.over <- o:
	default: // it is settled
	}
}

// askOne asks a node how far it is. One that does not answer is asked again,
// until it does or its verdict says that it never will.
func (s *turns) askOne(ctx context.Context, owner belfry.NodeID, turns []*turn) {
	req := &belfryv1.GetProgressRequest{}
	for _, t := range turns {
		req.Events = append(req.Events, &belfryv1.ProgressOf{
			Handler: t.handler, Node: t.key.Node[:], Incarnation: uint32(t.key.Incarnation), Entry: t.key.Entry,
		})
	}
	ctx, cancel := context.WithTimeout(ctx, replicateTimeout)
	defer cancel()
	var resp belfryv1.GetProgressResponse
	if err := s.agent.ask(ctx, owner, belfryv1.MemberPeerService_GetProgress_FullMethodName, req, &resp); err != nil {
		s.agent.log.Debug("progress not known", "peer", s.agent.nameOf(owner), "err", err)
		return
	}
	for i, p := range resp.GetProgress() {
		if i >= len(turns) {
			break
		}
		t := turns[i]
		switch {
		case p.GetDone() >= t.first:
			t.settle(outcome{done: p.GetDone()})
		case !p.GetShares(), belfry.Incarnation(resp.GetIncarnation()) != t.met[owner]:
			t.out[owner] = true // the next one's turn, from the next look on
		}
	}
}

// getProgress answers another member.
func (a *Agent) getProgress(_ context.Context, req *belfryv1.GetProgressRequest) (*belfryv1.GetProgressResponse, error) {
	if n := len(req.GetEvents()); n > maxProgress {
		return nil, fmt.Errorf("%w: %d events in one question; at most %d", belfry.ErrLimit, n, maxProgress)
	}
	resp := &belfryv1.GetProgressResponse{Incarnation: uint32(a.id.incarnation)}
	for _, of := range req.GetEvents() {
		resp.Progress = append(resp.Progress, a.handlers.progress(of))
	}
	return resp, nil
}

func (h *handlers) progress(of *belfryv1.ProgressOf) *belfryv1.Progress {
	one, err := h.find(of.GetHandler())
	if err != nil || one.spec.RunOn != config.RunOnOne || one.runner.Load() == nil || len(of.GetNode()) != len(belfry.NodeID{}) {
		return &belfryv1.Progress{}
	}
	store, err := h.open()
	if err != nil {
		return &belfryv1.Progress{}
	}
	done, err := store.Done(of.GetHandler(), sink.Key{
		Node: belfry.NodeID(of.GetNode()), Incarnation: belfry.Incarnation(of.GetIncarnation()), Entry: of.GetEntry(),
	})
	return &belfryv1.Progress{Shares: err == nil, Done: done}
}
