package transport

import (
	"context"
	"net/netip"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/wire"
)

// Datagrams is what an agent needs of its datagrams: [UDP], or memory
// (transporttest).
type Datagrams interface {
	SetPeers([]Peer) error
	Send(to belfry.NodeID, link uint8, body wire.Body) error
	Wait(until time.Time) error
	Wake()
	Keys(func(*wire.Endpoint) error) error
	Addrs() []netip.AddrPort
	Stats() UDPStats
	Close() error
}

// Peers is what an agent needs of its streams: [Streams], or memory
// (transporttest).
type Peers interface {
	SetPeers([]StreamPeer)
	SetGeneration(uint64)
	Wake(peer belfry.NodeID)
	Disconnect(peer belfry.NodeID)
	SendFrame(peer belfry.NodeID, f event.Frame) error
	Probe(peer belfry.NodeID, link uint8, addr netip.AddrPort, timeout time.Duration)
	Call(ctx context.Context, peer belfry.NodeID, method string, request []byte) ([]byte, error)
	Stop(ctx context.Context, reason cluster.StreamEvent) error
}

var (
	_ Datagrams = (*UDP)(nil)
	_ Peers     = (*Streams)(nil)
)
