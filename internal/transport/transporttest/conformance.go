package transporttest

import (
	"net"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/transport"
)

// An Implementation is what [Run] tests: one network with room for two nodes.
type Implementation interface {
	// Nodes are the two identities; the first has the lower id.
	Nodes() [2]belfry.NodeID
	// Listen takes a free stream port.
	Listen(t *testing.T) net.Listener
	// NewStreams starts the streams of cfg.Self.Node. What concerns TLS is filled
	// in here.
	NewStreams(t *testing.T, cfg transport.StreamsConfig) transport.Peers
	// Kill ends the streams of a node as SIGKILL would.
	Kill(node belfry.NodeID)
	// ListenUDP opens the datagrams of a node on loopback.
	ListenUDP(self belfry.NodeID, cfg transport.UDPConfig) (transport.Datagrams, error)
}

// patience bounds the wait for what must come.
const patience = 10 * time.Second

// Run tests one implementation; start makes a new one for each case. The
// explanation of a case is printed when it fails.
func Run(t *testing.T, start func(t *testing.T) Implementation) {
	for _, c := range []struct {
		name, explanation string
		run               func(*testing.T, *bench)
	}{
		{"hello", "both sides learn who the other is before anything else, and may send one batch", hello},
		{"frames", "frames arrive in order; after each batch the sender is told that it may send one more", inOrder},
		{"goodbye", "a stream that ends with a goodbye is no sign of a dead process", goodbye},
		{"reset", "a process that ends without a goodbye is a Reset at its peer", reset},
		{"return", "a peer that starts anew is connected again without anyone's help", comeBack},
		{"dropped", "a node that is not listed any more is closed at both ends, and that is no sign either", dropped},
		{"disconnect", "either side may close a stream; that is no sign, and the streams come back by themselves", disconnect},
		{"nobody", "what is sent to a node without stream is refused with ErrUnknown", nobody},
		{"calls", "a node answers what its peer asks for, in either direction, errors included", call},
		{"probe", "a listening port is told from a closed one", probe},
		{"datagram", "a datagram arrives with sender, link and time", datagram},
		{"stranger", "a node that is not in the table is not heard", stranger},
		{"refused", "a datagram to a closed socket is told as refused", refused},
		{"taken", "a second agent on one address is refused", taken},
		{"duplicate", "two agents that run as one node are told from each other, once a second", duplicate},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if t.Failed() {
					t.Log("what is wanted: " + c.explanation)
				}
			}()
			c.run(t, newBench(t, start(t)))
		})
	}
}

// A bench is two nodes of one implementation.
type bench struct {
	impl  Implementation
	ports [2]net.Listener
	nodes [2]*node
}

func newBench(t *testing.T, impl Implementation) *bench {
	b := &bench{impl: impl}
	for i := range b.ports {
		b.ports[i] = impl.Listen(t)
	}
	return b
}
