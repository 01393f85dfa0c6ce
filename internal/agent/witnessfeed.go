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
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/resource"
	"github.com/belfry-ha/belfry/internal/witness"
)

// witnessMembers is the member table in the words of the witness: clients reach
// a node where other nodes do.
func witnessMembers(table *Table) (m witness.Members) {
	for _, n := range table.Nodes {
		member := witness.Member{ID: n.ID, Name: n.Name}
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
		a.witness.tell(witness.Link{Node: c.Peer, Good: c.Up && c.LinksUp == c.LinksTotal})
	}
}

// declareResources tells of the resources of the settings file.
func (a *Agent) declareResources(settings config.Settings) {
	var msg witness.Declared
	var held []belfry.Resource
	for _, r := range settings.Resources {
		name, err := belfry.ParseResource(r.Name)
		if err != nil {
			continue // the settings were validated
		}
		d := witness.Declaration{Name: name, Holders: r.Holders, Sources: r.Watch, Address: r.Address}
		d.Own = len(r.Holders) == 0 || slices.Contains(r.Holders, a.id.node.Name)
		if d.Own {
			held = append(held, name)
		}
		msg.Resources = append(msg.Resources, d)
	}
	a.witness.tell(msg)
	a.resources.Declare(held)
}

// A witnessFeed asks all nodes for the reports that the witness wants, as a
// consumer of events like any other, and hands them on.
type witnessFeed struct {
	consumer api.Consumer
	loop     *witnessLoop
	log      *slog.Logger
	wishes   *mailbox[witness.Interest]
	messages func(context.Context, ...event.Message) error
	id       event.ConsumerID

	numbers map[belfry.Resource]uint32
	names   map[uint32]belfry.Resource
	next    uint32
}

func newWitnessFeed(events *eventLoop, loop *witnessLoop, log *slog.Logger) *witnessFeed {
	f := &witnessFeed{
		loop: loop, log: log, wishes: newMailbox[witness.Interest](), messages: events.send,
		numbers: map[belfry.Resource]uint32{}, names: map[uint32]belfry.Resource{},
	}
	f.consumer, f.id = events.openNumbered("witness")
	return f
}

// want is called by the witness loop; it does not wait.
func (f *witnessFeed) want(wishes []witness.Interest) { f.wishes.put(wishes...) }

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
					_ = <-failed // the agent stops
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
func (f *witnessFeed) wish(ctx context.Context, w witness.Interest) error {
	if !w.On {
		number := f.numbers[w.Resource]
		delete(f.numbers, w.Resource)
		delete(f.names, number)
		return f.messages(ctx, event.Unregister{Consumer: f.id, Number: number})
	}
	f.next++
	f.numbers[w.Resource], f.names[f.next] = f.next, w.Resource
	return f.messages(ctx, event.Register{Consumer: f.id, Number: f.next, Registration: belfry.Registration{
		Class: string(resource.Class), Subject: string(w.Resource), Scope: belfry.ScopeCluster, Wait: true, Snapshot: true,
	}})
}

// take reads one notification.
func (f *witnessFeed) take(n *belfry.Notification) {
	name, ok := f.names[n.Registration]
	if !ok {
		return // it was unregistered meanwhile
	}
	switch n.Kind {
	case belfry.KindCoverage:
		if event.CoverageState(n.Code) == event.CoverageInstalled {
			f.loop.tell(witness.Covered{Resource: name, Node: n.Node})
		}
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
