package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/sink"
)

// look finds out whose turn it is for each that waits, claims what is this
// node's, and asks each other node once about all that concerns it.
//
// Of two nodes that ask each other at most one runs: each claims before it asks,
// and keeps the claim until it runs or gives way. So whoever is asked second has
// the first one's claim, or run, in the answer to its own question. The claim of
// the node that comes first in the order of the event is not given way to; that
// one waits until the other's is gone.
func (s *turns) look(ctx context.Context, waiting []*turn) {
	p := s.present()
	maps.DeleteFunc(s.silent, func(id belfry.NodeID, _ silence) bool { return p.up[id] == 0 })
	of := map[belfry.NodeID][]*turn{}
	for _, t := range waiting {
		t.heard = map[belfry.NodeID]*belfryv1.Progress{}
		mine := t.place(p)
		switch {
		case !t.placed:
		case !t.numbered:
			s.end(t, sink.Turn{Mine: mine, Done: t.last})
		case mine:
			s.become(t, claims)
			for id := range p.up {
				if id != p.self {
					of[id] = append(of[id], t)
				}
			}
		default:
			s.become(t, waits)
			of[t.owner] = append(of[t.owner], t)
		}
	}
	s.askAll(ctx, of)
	for _, t := range waiting {
		if t.placed && t.numbered {
			s.judge(t, p)
		}
	}
}

// place finds whose turn it is among the nodes that are up and were, in the same
// life, when the notification came. It is not placed while it is not known which
// those are.
func (t *turn) place(p presence) (mine bool) {
	if !t.placed {
		t.placed, t.met = p.known, p.up
	}
	if _, up := p.up[t.owner]; !up && !t.owner.IsZero() {
		t.begun = max(t.begun, 1) // nobody can say
	}
	var nodes []belfry.NodeID
	for id, incarnation := range p.up {
		if id == p.self || t.met[id] == incarnation && !t.out[id] {
			nodes = append(nodes, id)
		}
	}
	t.owner = sink.Order(t.handler, t.event, nodes)[0]
	if t.owner == p.self {
		t.owner = belfry.NodeID{}
	}
	return t.owner.IsZero() || time.Since(t.since) > sharePatience
}

// askAll asks each node about its turns.
func (s *turns) askAll(ctx context.Context, of map[belfry.NodeID][]*turn) {
	var group sync.WaitGroup
	var mu sync.Mutex // of what was heard
	for id, turns := range of {
		group.Go(func() {
			for some := range slices.Chunk(turns, maxProgress) {
				resp, err := s.ask(ctx, id, questionOf(some))
				mu.Lock()
				s.hear(id, some, resp, err)
				mu.Unlock()
			}
		})
	}
	group.Wait()
}

func questionOf(turns []*turn) *belfryv1.GetProgressRequest {
	req := &belfryv1.GetProgressRequest{}
	for _, t := range turns {
		req.Events = append(req.Events, &belfryv1.ProgressOf{
			Handler: t.handler, Node: t.key.Node[:], Incarnation: uint32(t.key.Incarnation), Entry: t.key.Entry,
		})
	}
	return req
}

// hear notes what a node says. One that does not answer is asked again, until it
// does, its verdict says that it never will, or patience ends.
func (s *turns) hear(id belfry.NodeID, turns []*turn, resp *belfryv1.GetProgressResponse, err error) {
	if err != nil || len(resp.GetProgress()) != len(turns) {
		now, was := time.Now(), s.silent[id]
		if now.Sub(was.last) > claimPatience { // nothing was asked meanwhile
			was.since = now
		}
		s.silent[id] = silence{was.since, now}
		return
	}
	delete(s.silent, id)
	for i, p := range resp.GetProgress() {
		t := turns[i]
		t.heard[id] = p
		if p.GetStarted() >= t.first && p.GetStarted() > p.GetDone() {
			t.begun = max(t.begun, int(p.GetAttempt()))
		}
		if !p.GetShares() || belfry.Incarnation(resp.GetIncarnation()) != t.met[id] { // it may not have heard of it
			t.out[id] = true // the next one's turn, from the next look on
		}
	}
}

// judge says what follows from what was heard.
func (s *turns) judge(t *turn, p presence) {
	var done uint64
	busy, way, free := false, false, true
	for id := range p.up {
		a := t.heard[id]
		done = max(done, a.GetDone())
		switch {
		case id == p.self:
		case a == nil && !s.deaf(id):
			free = false
		case a == nil:
			t.begun = max(t.begun, 1) // nobody can say
		case a.GetRuns():
			busy = true
		case a.GetClaims():
			free = false
			way = way || sink.Order(t.handler, t.event, []belfry.NodeID{id, p.self})[0] == id
		}
	}
	switch {
	case done >= t.first:
		s.end(t, sink.Turn{Done: done})
	case t.stand != claims: // which only this goroutine changes
	case busy || way:
		s.become(t, waits)
	case free:
		s.end(t, sink.Turn{Mine: true, Begun: t.begun})
	}
}

// deaf tells whether a node has not answered for so long that it is not waited
// for.
func (s *turns) deaf(id belfry.NodeID) bool {
	was, silent := s.silent[id]
	return silent && was.last.Sub(was.since) > claimPatience
}

func (s *turns) end(t *turn, turn sink.Turn) {
	s.become(t, runs) // it is not looked at any more; if another ran it, it is about to go
	if !turn.Mine {
		s.remove(t)
	}
	t.over <- turn
}

// getProgress answers another member.
func (a *Agent) getProgress(_ context.Context, req *belfryv1.GetProgressRequest) (*belfryv1.GetProgressResponse, error) {
	if n := len(req.GetEvents()); n > maxProgress {
		return nil, fmt.Errorf("%w: %d events in one question; at most %d", belfry.ErrLimit, n, maxProgress)
	}
	resp := &belfryv1.GetProgressResponse{Incarnation: uint32(a.id.incarnation)}
	for _, of := range req.GetEvents() {
		p, err := a.handlers.progress(of)
		if err != nil {
			return nil, err
		}
		resp.Progress = append(resp.Progress, p)
	}
	return resp, nil
}

// progress is how far a handler is, also one that does not run yet or any more.
// The error: it can not be said now. What it runs is looked at first: a run that
// ends meanwhile is seen as done.
func (h *handlers) progress(of *belfryv1.ProgressOf) (*belfryv1.Progress, error) {
	p := &belfryv1.Progress{}
	if len(of.GetNode()) != len(belfry.NodeID{}) {
		return p, nil
	}
	key := sink.Key{Node: belfry.NodeID(of.GetNode()), Incarnation: belfry.Incarnation(of.GetIncarnation()), Entry: of.GetEntry()}
	p.Runs, p.Claims = h.turns.progress(turnKey{of.GetHandler(), key})
	one, err := h.find(of.GetHandler())
	p.Shares = err == nil && one.spec.RunOn == config.RunOnOne && one.runner.Load() != nil
	if _, err := os.Stat(filepath.Join(h.agent.opts.Config.State, handlerState)); errors.Is(err, fs.ErrNotExist) {
		return p, nil // no handler ever ran
	}
	store, err := h.open()
	if err != nil {
		return p, nil // none runs
	}
	var attempt int
	p.Done, p.Started, attempt, err = store.Progress(of.GetHandler(), key)
	p.Attempt = uint32(attempt)
	return p, err
}
