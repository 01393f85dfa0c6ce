package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/producer/resource"
	"github.com/belfry-ha/belfry/internal/witness"
)

// witnessMembers is the member table in the words of the witness: clients reach
// a node where other nodes do.
func witnessMembers(table *Table) (m witness.Members) {
	for _, n := range table.Nodes {
		member := witness.Member{ID: n.ID, Name: n.Name, Zone: n.Zone}
		add := func(addr netip.Addr) {
			if text := net.JoinHostPort(addr.String(), strconv.Itoa(int(n.Streams.Port()))); !slices.Contains(member.Addresses, text) {
				member.Addresses = append(member.Addresses, text)
			}
			member.Hosts = append(member.Hosts, addr.String())
		}
		if n.Streams.IsValid() && !n.Streams.Addr().IsUnspecified() {
			add(n.Streams.Addr())
		}
		for _, network := range n.Networks {
			add(network.Heartbeat.Addr())
		}
		m.Nodes = append(m.Nodes, member)
	}
	return m
}

// witnessChanged is called by the cluster loop with each change: verdicts reach
// clients without a queue in between.
func (a *Agent) witnessChanged(c cluster.Change) {
	switch c := c.(type) {
	case cluster.NodeChange:
		a.witness.tell(witness.Verdict{Node: c.Node, Verdict: c.To, Cause: c.Cause, Incarnation: c.Incarnation, At: c.At})
	case cluster.ContactChange:
		a.witness.tell(witness.Link{Node: c.Peer, Good: c.Up && c.LinksUp == c.LinksTotal, Cut: !c.Up})
	}
}

// A witnessFeed asks all nodes for the reports that the witness wants, as a
// consumer of events like any other, and hands them on.
type witnessFeed struct {
	consumer api.Consumer
	loop     *witnessLoop
	log      *slog.Logger
	wishes   *mailbox[feedWish]
	members  func() *Table
	messages func(context.Context, ...event.Message) error
	id       event.ConsumerID

	numbers map[belfry.Resource]uint32
	names   map[uint32]belfry.Resource
	peers   uint32 // number of the registration for other witnesses; 0: there is none
	next    uint32

	seen map[belfry.Resource]uint64 // reports of events, which have no numbers of their own here
}

// A feedWish is one of two: reports on a resource, or what the other witnesses say
// of themselves.
type feedWish struct {
	witness.Interest
	peers *bool
}

func newWitnessFeed(events *eventLoop, members func() *Table, loop *witnessLoop, log *slog.Logger) *witnessFeed {
	f := &witnessFeed{
		loop: loop, log: log, wishes: newMailbox[feedWish](), members: members, messages: events.send,
		numbers: map[belfry.Resource]uint32{}, names: map[uint32]belfry.Resource{}, seen: map[belfry.Resource]uint64{},
	}
	f.consumer, f.id = events.openNumbered("witness")
	return f
}

// want is called by the witness loop; it does not wait.
func (f *witnessFeed) want(wishes []witness.Interest) {
	all := make([]feedWish, len(wishes))
	for i, w := range wishes {
		all[i].Interest = w
	}
	f.wishes.put(all...)
}

// wantPeers is called by the witness loop; it does not wait.
func (f *witnessFeed) wantPeers(on bool) { f.wishes.put(feedWish{peers: &on}) }

// run ends when ctx does.
func (f *witnessFeed) run(ctx context.Context) error {
	batches := make(chan event.Batch)
	failed := make(chan error, 1)
	go func() {
		for {
			b, err := f.consumer.Next(ctx)
			if err != nil {
				failed <- err
				return
			}
			select {
			case batches <- b:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	for {
		select {
		case err := <-failed:
			if ctx.Err() != nil || errors.Is(err, errStopped) || errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-f.wishes.wake:
			for _, w := range f.wishes.take() {
				if err := f.wish(ctx, w); err != nil {
					<-failed //nolint:errcheck // the agent stops: err says it
					return nil
				}
			}
		case b := <-batches:
			for i := range b.Notifications {
				f.take(&b.Notifications[i])
			}
			f.consumer.Ack(b.Number)
		}
	}
}

// wish begins or ends a registration. Nobody waits for its answer: each node
// answers with a state, now or when it is back.
func (f *witnessFeed) wish(ctx context.Context, w feedWish) error {
	switch {
	case w.peers != nil && *w.peers:
		f.next++
		f.peers = f.next
		return f.messages(ctx, event.Register{Consumer: f.id, Number: f.next, Registration: belfry.Registration{
			Class: string(node.WitnessState), Scope: belfry.ScopeCluster, Wait: true, Snapshot: true,
		}})
	case w.peers != nil:
		number := f.peers
		f.peers = 0
		return f.messages(ctx, event.Unregister{Consumer: f.id, Number: number})
	case !w.On:
		number, ok := f.numbers[w.Resource]
		if !ok {
			return nil
		}
		delete(f.numbers, w.Resource)
		delete(f.names, number)
		return f.messages(ctx, event.Unregister{Consumer: f.id, Number: number})
	}
	f.next++
	f.numbers[w.Resource], f.names[f.next] = f.next, w.Resource
	return f.messages(ctx, event.Register{Consumer: f.id, Number: f.next, Registration: f.registration(w.Resource)})
}

// registration asks the nodes that a name leaves over: all, or the one that it is
// bound to.
func (f *witnessFeed) registration(name belfry.Resource) belfry.Registration {
	r := belfry.Registration{
		Class: string(resource.Class), Subject: string(name.Everywhere()), Scope: belfry.ScopeCluster, Wait: true, Snapshot: true,
	}
	if class, subject := name.Event(); class != "" {
		r.Class, r.Subject = string(class), subject
	}
	if where := name.Node(); where != "" {
		if n, ok := f.members().named(where); ok {
			r.Nodes = []belfry.NodeID{n.ID}
		} else {
			r.Nodes = []belfry.NodeID{{}} // nobody: it is no member
		}
	}
	return r
}

// take reads one notification.
func (f *witnessFeed) take(n *belfry.Notification) {
	name, ok := f.names[n.Registration]
	switch {
	case n.Registration == f.peers:
		f.takePeer(n)
		return
	case !ok:
		return // it was unregistered meanwhile
	case name.Kind() == belfry.KindEvent:
		f.takeEvent(name, n)
		return
	}
	switch n.Kind {
	case belfry.KindCoverage:
		f.takeCoverage(name, n)
		return
	case belfry.KindOccurrence, belfry.KindState:
	default:
		return // a gap is followed by the state
	}
	var data belfryv1.ResourceState
	if err := proto.Unmarshal(n.Data, &data); err != nil {
		f.log.Error("report not understood", "node", n.NodeName, "resource", name, "err", err)
		return
	}
	state, err := belfry.ParseResourceState(data.GetState())
	if err != nil {
		f.log.Error("report not understood", "node", n.NodeName, "resource", name, "err", err)
		return
	}
	f.loop.tell(witness.Report{
		Resource: name, Node: n.Node, Incarnation: belfry.Incarnation(data.GetIncarnation()), Seq: data.GetSeq(), State: state, At: n.Time,
	})
}

// takeCoverage tells whether what a node reports arrives here.
func (f *witnessFeed) takeCoverage(name belfry.Resource, n *belfry.Notification) {
	if event.CoverageState(n.Code) == event.CoverageInstalled {
		f.loop.tell(witness.Covered{Resource: name, Node: n.Node})
	} else {
		f.loop.tell(witness.Uncovered{Resource: name, Node: n.Node})
	}
}

// takePeer reads what another witness says of itself.
func (f *witnessFeed) takePeer(n *belfry.Notification) {
	if n.Kind != belfry.KindOccurrence && n.Kind != belfry.KindState {
		return
	}
	var data belfryv1.WitnessState
	if err := proto.Unmarshal(n.Data, &data); err != nil {
		f.log.Error("state of a witness not understood", "node", n.NodeName, "err", err)
		return
	}
	f.loop.tell(witness.Peer{
		Node: n.Node, Off: data.GetState() == witnessOff, Draining: data.GetState() == witnessDraining, Registrations: int(data.GetRegistrations()),
	})
}

// takeEvent reads one notification of an event that is a resource: with an edge it
// is a state, else it has happened.
func (f *witnessFeed) takeEvent(name belfry.Resource, n *belfry.Notification) {
	switch n.Kind {
	case belfry.KindCoverage:
		f.takeCoverage(name, n)
		return
	case belfry.KindGap:
		if n.Gap != nil && !n.Gap.Resync {
			f.loop.tell(witness.Occurred{Resource: name, Node: n.Node, Count: n.Gap.Total, At: n.Time})
		}
		return
	case belfry.KindOccurrence, belfry.KindState:
	default:
		return
	}
	state := belfry.ResourceAvailable
	switch {
	case n.Edge == belfry.EdgeNone && n.Kind == belfry.KindState:
		return // what is known of it is no state of these
	case n.Edge == belfry.EdgeNone:
		f.loop.tell(witness.Occurred{Resource: name, Node: n.Node, Count: n.Count, At: n.Time})
		return
	case n.Edge == belfry.EdgeFailing:
		state = belfry.ResourceUnavailable
	}
	f.seen[name]++
	f.loop.tell(witness.Report{Resource: name, Node: n.Node, Incarnation: n.Incarnation, Seq: f.seen[name], State: state, At: n.Time})
}
