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
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// The classes of Notices. The subject of cluster.nontransitive is the name of
// the cluster; that of all others is a node.
const (
	Restarted     belfry.Class = "node.restarted"
	WasDown       belfry.Class = "node.was-down"
	Isolated      belfry.Class = "node.isolated"
	Duplicate     belfry.Class = "node.duplicate"
	Nontransitive belfry.Class = "cluster.nontransitive"
)

// Notices serves what the cluster machine says beside verdicts: things that
// happen once and have no state. Like Producer it watches nothing itself.
type Notices struct {
	mu       sync.Mutex
	subjects map[belfry.Class][]string
	running  bool
	queue    []notice

	overflowed bool // notices of the queue were lost
	wake       chan struct{}
}

type notice struct {
	class      belfry.Class
	subject    string
	occurrence belfry.Occurrence
}

// NewNotices makes a producer for a cluster with these nodes, of which self is
// this one. Names are the subjects there are.
func NewNotices(cluster, self string, nodes []string) *Notices {
	nodes = slices.Sorted(slices.Values(nodes))
	return &Notices{
		subjects: map[belfry.Class][]string{
			Restarted: nodes, Duplicate: nodes, WasDown: {self}, Isolated: {self}, Nontransitive: {cluster},
		},
		wake: make(chan struct{}, 1),
	}
}

// Name is for listings.
func (*Notices) Name() string { return "node-notices" }

// Classes are those of this producer.
func (*Notices) Classes() []belfry.ClassInfo {
	class := func(c belfry.Class, summary, subject, data string) belfry.ClassInfo {
		return belfry.ClassInfo{
			Class: c, Kind: belfry.Happening, Summary: summary, Subject: subject, Data: "belfry.v1." + data,
			Globs: true, Remote: true, Optional: true,
		}
	}
	return []belfry.ClassInfo{
		class(Restarted, "a newer incarnation of a node is running", "NODE", "NodeRestarted"),
		class(WasDown, "others held this node to be gone while it ran: it was paused, or cut off", "NODE", "NodeWasDown"),
		class(Isolated, "this node misses most of its peers and reaches nobody else, or no longer", "NODE", "NodeIsolated"),
		class(Duplicate, "two agents run with the identity of a node, or a copy of its state", "NODE", "NodeDuplicate"),
		class(Nontransitive, "nodes that are up do not reach each other, or do so again", "CLUSTER", "ClusterNontransitive"),
	}
}

// Tell posts one notice; it never waits and is safe for concurrent use.
func (p *Notices) Tell(class belfry.Class, subject string, at time.Time, edge belfry.Edge, data proto.Message) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil { // text that is not UTF-8: a broken name
		b = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return // nobody registered
	}
	if len(p.queue) >= queueLimit { // the oldest goes; what is left no longer says how many there were
		p.queue = p.queue[1:]
		p.overflowed = true
	}
	p.queue = append(p.queue, notice{class: class, subject: subject, occurrence: belfry.Occurrence{Time: at, Edge: edge, Data: b}})
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run serves watches until ctx ends.
func (p *Notices) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	p.mu.Lock()
	p.running, p.queue, p.overflowed = true, nil, false
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running, p.queue = false, nil
	}()
	watches := map[event.WatchID]event.Watch{}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			if r.Watch == nil {
				delete(watches, r.Unwatch)
			} else if _, known := watches[r.Watch.ID]; !known {
				watches[r.Watch.ID] = *r.Watch
				err = p.begin(*r.Watch, send)
			}
		case <-p.wake:
			err = p.post(watches, send)
		}
		if err != nil {
			return nil // ctx has ended
		}
	}
}

// begin answers a new watch.
func (p *Notices) begin(w event.Watch, send producer.Send) error {
	known := p.subjects[w.Class]
	if w.Entry == 0 {
		for _, subject := range known {
			if producer.Match(w.Subject, subject) {
				if err := send(event.Found{Watch: w.ID, Subject: subject}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	switch {
	case slices.Contains(known, w.Subject):
		return send(event.Associate{Entry: w.Entry})
	case w.Wait:
		return nil
	}
	return send(event.End{Entry: w.Entry, Err: fmt.Errorf("%w: %s of %q; there is %s", belfry.ErrNoEvent, w.Class, w.Subject, strings.Join(known, ", "))})
}

func (p *Notices) post(watches map[event.WatchID]event.Watch, send producer.Send) error {
	p.mu.Lock()
	queue, overflowed := p.queue, p.overflowed
	p.queue, p.overflowed = nil, false
	p.mu.Unlock()
	for _, n := range queue {
		n.occurrence.LowerBound = overflowed
		for _, id := range slices.Sorted(maps.Keys(watches)) {
			if w := watches[id]; w.Entry != 0 && w.Class == n.class && w.Subject == n.subject {
				if err := send(event.Post{Entry: w.Entry, Occurrence: n.occurrence}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
