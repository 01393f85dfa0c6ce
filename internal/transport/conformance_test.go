package transport_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"net"
	"sync"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/transport/transporttest"
)

// loopbackNetwork is the real thing on 127.0.0.1.
type loopbackNetwork struct {
	identities *streamCluster

	mu        sync.Mutex
	listeners map[belfry.NodeID]*trackedListener
}

func (n *loopbackNetwork) Nodes() [2]belfry.NodeID { return [2]belfry.NodeID(n.identities.ids) }

func (n *loopbackNetwork) Listen(t *testing.T) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func (n *loopbackNetwork) NewStreams(_ *testing.T, cfg transport.StreamsConfig) transport.Peers {
	l := &trackedListener{Listener: cfg.Listener}
	n.mu.Lock()
	n.listeners[cfg.Self.Node] = l
	n.mu.Unlock()
	cfg.Listener = l
	opts := n.identities.tlsOptions(cfg.Self.Node)
	cfg.ServerTLS = security.NodeServerConfig(opts)
	cfg.ClientTLS = func(peer belfry.NodeID) *tls.Config { return security.NodeClientConfig(opts, peer) }
	cfg.Identify = identify
	return transport.NewStreams(cfg)
}

func (n *loopbackNetwork) Kill(node belfry.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[node].kill()
}

func (n *loopbackNetwork) ListenUDP(_ belfry.NodeID, cfg transport.UDPConfig) (transport.Datagrams, error) {
	return transport.ListenUDP(cfg)
}

func TestTheRealNetworkConforms(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t *testing.T) transporttest.Implementation {
		return &loopbackNetwork{identities: newStreamCluster(t, 2), listeners: map[belfry.NodeID]*trackedListener{}}
	})
}

// tlsOptions are those of one node: all of the cluster are listed.
func (c *streamCluster) tlsOptions(self belfry.NodeID) security.TLSOptions {
	return security.TLSOptions{
		Keys: func() *security.Keys { return c.keysOf(self) },
		Listed: func(id belfry.NodeID, key ed25519.PublicKey) error {
			if keys := c.keysOf(id); keys == nil || !keys.Public().Equal(key) {
				return belfry.ErrNotMember
			}
			return nil
		},
		Client: func(_ string, key ed25519.PublicKey) error {
			if c.letIn == nil {
				return nil
			}
			return c.letIn(key)
		},
	}
}

func (c *streamCluster) keysOf(id belfry.NodeID) *security.Keys {
	for i := range c.ids {
		if c.ids[i] == id {
			return c.keys[i]
		}
	}
	return nil
}
