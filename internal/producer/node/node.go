// Package node serves node.state: what the cluster holds of each node.
//
// It watches nothing itself. The agent hands it every change of a verdict, in
// order, and this package makes occurrences of them for those who asked.
package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// Class is the one class of this producer.
const Class belfry.Class = "node.state"

// queueLimit is how many changes wait for a producer whose messages the event
// machine does not take; beyond it the oldest go and their number is only a
// lower bound. A cluster of 64 nodes would have to change 64 times over.
const queueLimit = 4096

// A State is what the cluster holds of one node.
type State struct {
	Node        belfry.NodeID
	Name        string // the subject; unique in the cluster
	Verdict     belfry.Verdict
	Cause       belfry.Cause
	Incarnation belfry.Incarnation
	Observers   int       // how many nodes saw the evidence
	Since       time.Time // when the verdict was reached
	Turn        uint16    // number of the claim within the incarnation
}

// A View is all nodes of the cluster, in any order.
type View struct{ Nodes []State }

// A Change is one new verdict. State is what it led to.
type Change struct {
	State
	From        belfry.Verdict
	View        uint64            // number of the change here: nodes that fail together share one
	SilentSince time.Time         // when the silence began; zero: it was never silent
	Evidence    []belfry.Evidence // in the order it came
}

// A Producer is fed by Update and Changed, which never wait and are safe for
// concurrent use with each other and with Run; their order is the order of
// what they say.
type Producer struct {
	mu      sync.Mutex
	nodes   map[string]State // by name, as of the last call
	running bool
	queue   []item        // what Run has not seen yet; empty while it does not run
	wake    chan struct{} // capacity 1
}

// An item is either a view or a change.
type item struct {
	view    map[string]State // nil: change
	change  Change
	skipped bool // changes before this one were dropped
}

// New makes a Producer that knows no node yet.
func New() *Producer {
	return &Producer{nodes: map[string]State{}, wake: make(chan struct{}, 1)}
}

// Name is the folder's.
func (*Producer) Name() string { return "node" }

// Classes is node.state.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{
		Class:    Class,
		Kind:     belfry.State,
		Summary:  "what the cluster holds of a node: joining, up, stalled, unreachable, down, left",
		Subject:  "NODE",
		Data:     "belfry.v1.NodeState",
		Globs:    true,
		Remote:   true,
		Optional: true,
	}}
}

// Update gives the nodes there are. It brings in what is not a verdict: nodes
// that came or went, names, observers. Call Changed first for verdicts that
// differ from the last view, else they change without an occurrence.
func (p *Producer) Update(view View) {
	nodes := make(map[string]State, len(view.Nodes))
	for _, n := range view.Nodes {
		nodes[n.Name] = n
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes = nodes
	p.put(item{view: nodes})
}

// Changed posts an occurrence for each change, in order.
func (p *Producer) Changed(changes ...Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range changes {
		nodes := maps.Clone(p.nodes) // Run may hold the old one
		nodes[c.Name] = c.State
		p.nodes = nodes
		p.put(item{change: c})
	}
}

func (p *Producer) put(i item) {
	if !p.running {
		return
	}
	if n := len(p.queue); i.view != nil && n > 0 && p.queue[n-1].view != nil {
		p.queue[n-1] = i // only the newest of views in a row counts
		return
	}
	if len(p.queue) >= queueLimit {
		p.queue = p.queue[1:]
		p.queue[0].skipped = true
	}
	p.queue = append(p.queue, i)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	s := &session{send: send, watches: map[event.WatchID]event.Watch{}, nodes: p.begin()}
	defer p.end()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			if r.Watch != nil {
				err = s.watch(*r.Watch)
			} else {
				delete(s.watches, r.Unwatch)
			}
		case <-p.wake:
			err = s.apply(p.take())
		}
		if err != nil {
			return nil // ctx has ended
		}
	}
}

func (p *Producer) begin() map[string]State {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.queue = true, nil
	return p.nodes
}

func (p *Producer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.queue = false, nil
}

func (p *Producer) take() []item {
	p.mu.Lock()
	defer p.mu.Unlock()
	items := p.queue
	p.queue = nil
	return items
}

// A session is one call of Run. Its view is exactly as old as the last change
// it has posted, so that no state is given before the occurrence it comes from.
type session struct {
	send    producer.Send
	watches map[event.WatchID]event.Watch
	nodes   map[string]State
}

func (s *session) watch(w event.Watch) error {
	if _, ok := s.watches[w.ID]; ok {
		return nil // a change: there is nothing in a Watch that matters here
	}
	s.watches[w.ID] = w
	if w.Entry == 0 {
		for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
			if err := s.found(w, name); err != nil {
				return err
			}
		}
		return nil
	}
	if state, ok := s.nodes[w.Subject]; ok {
		return s.associate(w, state)
	}
	if w.Wait {
		return nil
	}
	delete(s.watches, w.ID)
	return s.send(event.End{Entry: w.Entry, Err: s.unknown(w.Subject)})
}

func (s *session) unknown(name string) error {
	if len(s.nodes) == 0 {
		return fmt.Errorf("%w: no node %q; this node knows none yet", belfry.ErrNoEvent, name)
	}
	return fmt.Errorf("%w: no node %q; there are %s", belfry.ErrNoEvent, name,
		strings.Join(slices.Sorted(maps.Keys(s.nodes)), ", "))
}

func (s *session) found(w event.Watch, name string) error {
	if !producer.Match(w.Subject, name) {
		return nil
	}
	return s.send(event.Found{Watch: w.ID, Subject: name})
}

func (s *session) associate(w event.Watch, state State) error {
	now := occurrence(Change{State: state}, "") // whence it came is not known here
	return s.send(event.Associate{Entry: w.Entry, State: &now})
}

func (s *session) apply(items []item) error {
	for _, i := range items {
		if i.view != nil {
			if err := s.update(i.view); err != nil {
				return err
			}
			continue
		}
		if err := s.change(i.change, i.skipped); err != nil {
			return err
		}
	}
	return nil
}

// change posts one new verdict. A node that nobody knew begins with it.
func (s *session) change(c Change, skipped bool) error {
	if _, known := s.nodes[c.Name]; !known {
		nodes := maps.Clone(s.nodes)
		nodes[c.Name] = c.State
		return s.update(nodes)
	}
	nodes := maps.Clone(s.nodes) // Update's callers may hold it
	nodes[c.Name] = c.State
	s.nodes = nodes
	for _, w := range s.sorted() {
		if w.Entry == 0 || w.Subject != c.Name {
			continue
		}
		o := occurrence(c, c.From.String())
		o.LowerBound = skipped
		if err := s.send(event.Post{Entry: w.Entry, Occurrence: o}); err != nil {
			return err
		}
	}
	return nil
}

// update takes a new set of nodes: those that came are found, those that went
// lose their identifier.
func (s *session) update(nodes map[string]State) error {
	old := s.nodes
	s.nodes = nodes
	for _, w := range s.sorted() {
		var err error
		if w.Entry == 0 {
			for _, name := range slices.Sorted(maps.Keys(nodes)) {
				if _, known := old[name]; !known && err == nil {
					err = s.found(w, name)
				}
			}
		} else {
			state, is := nodes[w.Subject]
			_, was := old[w.Subject]
			switch {
			case is && !was:
				err = s.associate(w, state)
			case was && !is:
				err = s.send(event.Invalidate{Entry: w.Entry})
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) sorted() []event.Watch {
	all := make([]event.Watch, 0, len(s.watches))
	for _, id := range slices.Sorted(maps.Keys(s.watches)) {
		all = append(all, s.watches[id])
	}
	return all
}

// Edge tells whether a verdict is a change for the worse. A node that joins
// is neither; one that left is worse, because it serves no longer, whatever
// the reason.
func Edge(v belfry.Verdict) belfry.Edge {
	switch v {
	case belfry.VerdictUp:
		return belfry.EdgeRecovered
	case belfry.VerdictStalled, belfry.VerdictUnreachable, belfry.VerdictDown, belfry.VerdictLeft:
		return belfry.EdgeFailing
	}
	return belfry.EdgeNone
}

// maxEvidence bounds the evidence in one event; `belfry node why` has all.
const maxEvidence = 16

// occurrence has the verdict's number as its code.
func occurrence(c Change, from string) belfry.Occurrence {
	data := &belfryv1.NodeState{
		Node:        c.Name,
		NodeId:      c.Node.String(),
		From:        from,
		To:          c.Verdict.String(),
		Cause:       c.Cause.String(),
		Incarnation: uint32(c.Incarnation),
		Observers:   uint32(max(c.Observers, 0)),
		Turn:        uint32(c.Turn),
		View:        c.View,
	}
	if !c.SilentSince.IsZero() {
		data.SilentSince = c.SilentSince.UnixNano()
	}
	for i, e := range c.Evidence {
		if i == maxEvidence {
			data.Evidence = append(data.Evidence, fmt.Sprintf("and %d more", len(c.Evidence)-i))
			break
		}
		data.Evidence = append(data.Evidence, line(e))
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil { // the message holds text that is not UTF-8: a broken name
		b = nil
	}
	return belfry.Occurrence{Time: c.Since, Code: int32(c.Verdict), Edge: Edge(c.Verdict), Data: b}
}

func line(e belfry.Evidence) string {
	text := strings.ToValidUTF8(e.Text, "?")
	if e.Link != "" {
		text = e.Link + ": " + text
	}
	if !e.By.IsZero() {
		text = e.By.String() + " " + text
	}
	return e.Time.UTC().Format(time.RFC3339Nano) + " " + text
}
