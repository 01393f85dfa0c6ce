package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

// probeTimeout bounds the attempt to reach a peer's stream port. It is shorter
// than the second between two of them.
const probeTimeout = 900 * time.Millisecond

// openNetwork opens the sockets. What arrives waits in the loops' inputs
// until they run.
func (a *Agent) openNetwork() error {
	endpoint, err := wire.New(a.wireConfig(), time.Now())
	if err != nil {
		return err
	}
	var members []wire.Member
	for _, n := range a.members.Table().Nodes {
		members = append(members, wire.Member{ID: n.ID, Number: n.Number})
	}
	if err := endpoint.SetMembers(members); err != nil {
		return err
	}
	var local []netip.AddrPort
	for _, n := range a.id.node.Networks {
		local = append(local, n.Heartbeat)
	}
	log := a.log.With("component", "transport")
	a.udp, err = transport.ListenUDP(transport.UDPConfig{
		Local:    local,
		Endpoint: endpoint,
		Deliver:  a.datagram,
		Refused: func(peer belfry.NodeID, link uint8) {
			a.cluster.receive(cluster.Refused{Peer: peer, Link: link})
		},
		Unreachable: func(peer belfry.NodeID, link uint8) {
			a.cluster.receive(cluster.Unreachable{Peer: peer, Link: link})
		},
		Congested: func(n uint32) { a.cluster.receive(cluster.Congested{N: uint64(n)}) },
		Duplicate: a.duplicate,
		Dropped:   func(n uint32) { a.cluster.arrive(cluster.Dropped{N: uint64(n)}) },
		Logger:    log,
	})
	if err != nil {
		return err
	}
	a.cluster.network = a.udp
	a.onStop("datagrams", func(context.Context) error { return a.udp.Close() })

	listener, err := transport.ListenStreams(streamAddresses(a.id.node))
	if err != nil {
		return listenError("ports.streams", a.id.node.Streams.String(), err)
	}
	a.server = api.New(a.apiOptions())
	a.calls = a.peerCalls()
	a.onStop("api", a.server.Stop) // after the stream port, which serves it too
	a.agents = newAgentTable(a.members.Table())
	a.agents.set(a.hello())
	a.streams = transport.NewStreams(a.streamsConfig(listener))
	a.onStop("streams", func(ctx context.Context) error {
		return a.streams.Stop(ctx, cluster.GoodbyeRestart)
	})
	return nil
}

// duplicate tells of a second agent with the identity of a peer.
func (a *Agent) duplicate(peer belfry.NodeID) {
	name := a.nameOf(peer)
	a.log.Error("two agents run with the identity of a node, or a copy of its state; stop one", "peer", name)
	a.duplicates.note(peer, time.Now())
	a.notices.Tell(node.Duplicate, name, time.Now(), belfry.EdgeFailing, &belfryv1.NodeDuplicate{Node: name})
}

func (a *Agent) streamsConfig(listener net.Listener) transport.StreamsConfig {
	opts := security.TLSOptions{
		Keys: a.keys.now,
		Listed: func(id belfry.NodeID, key ed25519.PublicKey) error {
			return a.members.Table().Listed(id, key)
		},
		Client:  a.clientListed,
		Guests:  true,
		Settled: a.keys.settled,
	}
	return transport.StreamsConfig{
		Listener:  listener,
		Duplicate: a.duplicate,
		ServerTLS: security.NodeServerConfig(opts),
		ClientTLS: func(peer belfry.NodeID) *tls.Config { return security.NodeClientConfig(opts, peer) },
		Identify: func(state tls.ConnectionState) (belfry.NodeID, error) {
			id, err := security.Peer(state)
			if err == nil && id.Client != "" {
				err = fmt.Errorf("%w: %s is not a node", belfry.ErrPermission, id)
			}
			return id.Node, err
		},
		Self:          a.hello(),
		Deliver:       a.streamEvent,
		Guest:         security.IsJoin,
		Services:      a.server.RegisterRemote,
		ServerOptions: a.server.ServerOptions(),
		Serve:         a.serveCall,
		Logger:        a.log.With("component", "transport"),
	}
}

// hello is what this agent says of itself.
func (a *Agent) hello() transport.Hello {
	return transport.Hello{
		Node:        a.id.node.ID,
		Name:        a.id.node.Name,
		Incarnation: a.id.incarnation,
		Boot:        a.id.boot,
		Generation:  a.members.Table().Generation,
		PID:         uint32(os.Getpid()),
		Version:     a.opts.Version,
		Started:     a.started,
	}
}

// datagram is called by the cluster loop while it waits.
func (a *Agent) datagram(r transport.Received) {
	if n, ok := r.Body.(*wire.Notice); ok {
		a.takeNotice(r, n)
		return
	}
	if body := bodyFromWire(r.Body); body != nil {
		a.cluster.arrive(cluster.Datagram{
			From: r.From, Incarnation: r.Incarnation, Boot: r.Boot,
			Link: r.Link, At: r.At, Proven: r.Proven, Body: body,
		})
	}
}

// streamEvent carries what happens on a node-to-node stream to the machines
// that it concerns. It is called in order for one peer.
func (a *Agent) streamEvent(e transport.StreamEvent) {
	switch e := e.(type) {
	case transport.Up:
		a.agents.set(e.Hello)
		a.cluster.receive(cluster.Stream{Peer: e.Peer, Incarnation: e.Hello.Incarnation, Event: cluster.StreamUp})
		a.tellEvents(event.PeerUp{Node: e.Peer, Name: e.Hello.Name, Incarnation: e.Hello.Incarnation})
		a.greetTable(e.Peer, e.Hello.Generation)
		a.dutyDue() // it was not asked yet what it holds
	case transport.Reset:
		a.cluster.receive(cluster.Stream{Peer: e.Peer, Incarnation: e.Incarnation, Event: cluster.StreamReset})
		a.streamEnded(e.Peer)
	case transport.Goodbye:
		a.cluster.receive(cluster.Stream{Peer: e.Peer, Incarnation: e.Incarnation, Event: e.Reason})
		a.streamEnded(e.Peer)
	case transport.Configuration:
		a.passed(e.Peer, e.Document)
	case transport.Frame:
		received := event.PeerReceived{Node: e.Peer, Frame: e.Frame}
		_ = a.events.put(context.Background(), input{messages: []event.Message{received}, frame: e.Frame}) // as tellEvents
	case transport.Ready:
		a.tellEvents(event.PeerReady{Node: e.Peer})
	case transport.Dialed:
		a.cluster.receive(cluster.Dialed{Peer: e.Peer, Link: e.Link, Result: e.Result})
	}
}

// streamEnded tells the event machine. No verdict follows on a stopped node,
// so that nothing else would say that its agent is gone.
func (a *Agent) streamEnded(peer belfry.NodeID) {
	if a.isStopped(peer) {
		a.tellEvents(event.PeerGone{Node: peer})
		return
	}
	a.tellEvents(event.PeerLost{Node: peer})
}

// tellEvents fails only when the loop has ended.
func (a *Agent) tellEvents(m event.Message) { _ = a.events.send(context.Background(), m) }

// probe tries a peer's stream port for the cluster machine, on the network of
// the link that is in doubt.
func (a *Agent) probe(d cluster.Dial) {
	n, ok := a.members.Table().Node(d.Peer)
	if !ok {
		return
	}
	at := n.Streams
	for _, l := range linksTo(a.id.node, n) {
		if l.Index == d.Link {
			at = netip.AddrPortFrom(l.Remote.Addr(), n.Streams.Port())
		}
	}
	a.streams.Probe(d.Peer, d.Link, at, probeTimeout)
}

// linksTo are the links from this node to a member: one for each network that
// both are on.
func linksTo(self, n Node) (links []cluster.Link) {
	for _, mine := range self.Networks {
		for _, its := range n.Networks {
			if mine.Name == its.Name {
				links = append(links, cluster.Link{Index: uint8(len(links)), Network: mine.Name, Local: mine.Heartbeat, Remote: its.Heartbeat})
			}
		}
	}
	return links
}

// memberTable is the table as the cluster machine takes it.
func memberTable(t *Table) cluster.Members {
	var rows []cluster.Member
	for _, n := range t.Nodes {
		row := cluster.Member{ID: n.ID, Number: n.Number, Name: n.Name, Stopped: n.Stopped}
		for _, network := range n.Networks {
			row.Addresses = append(row.Addresses, cluster.Address{Network: network.Name, Addr: network.Heartbeat})
		}
		rows = append(rows, row)
	}
	return cluster.Members{Table: cluster.NewTable(t.Cluster, t.Generation, rows)}
}

func datagramPeers(t *Table, self Node) (peers []transport.Peer) {
	for _, n := range t.Nodes {
		if n.ID == self.ID {
			continue
		}
		p := transport.Peer{ID: n.ID, Number: n.Number}
		for _, l := range linksTo(self, n) {
			p.Links = append(p.Links, transport.PeerLink{Index: l.Index, Local: l.Local, Remote: l.Remote})
		}
		peers = append(peers, p)
	}
	return peers
}

func streamPeers(t *Table, self Node) (peers []transport.StreamPeer) {
	for _, n := range t.Nodes {
		if n.ID != self.ID {
			peers = append(peers, transport.StreamPeer{ID: n.ID, Addrs: streamAddresses(n)})
		}
	}
	return peers
}

// streamAddresses are where a node's stream port is: on each of its networks,
// so that one that is cut takes no stream with it for longer than a redial.
func streamAddresses(n Node) []netip.AddrPort {
	addrs := []netip.AddrPort{n.Streams}
	for _, network := range n.Networks {
		if at := netip.AddrPortFrom(network.Heartbeat.Addr(), n.Streams.Port()); !slices.Contains(addrs, at) {
			addrs = append(addrs, at)
		}
	}
	return addrs
}

// listenError says what to do about an address that can not be had.
func listenError(setting, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		err = fmt.Errorf("%w: %s is in use; stop the other agent there or change %s", belfry.ErrExist, address, setting)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		err = fmt.Errorf("%w: %s is not an address of this machine; compare the member table with ip address", belfry.ErrNotFound, address)
	}
	return &belfry.Error{Op: "agent", Subject: address, Err: err}
}
