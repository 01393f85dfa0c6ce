package transport_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

// A relay carries connections to an address, and can lose the far end of all of
// them without a word to the near one, as a cut network does.
type relay struct {
	addr netip.AddrPort
	mu   sync.Mutex
	far  []net.Conn
}

func newRelay(t *testing.T, to netip.AddrPort) *relay {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	var near []net.Conn
	var copies sync.WaitGroup
	copies.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			near = append(near, in)
			out, err := net.Dial("tcp4", to.String())
			if err != nil {
				_ = in.Close()
				continue
			}
			r.mu.Lock()
			r.far = append(r.far, out)
			r.mu.Unlock()
			copies.Go(func() { _, _ = io.Copy(out, in) })
			copies.Go(func() { _, _ = io.Copy(in, out) }) // its end is not passed on
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.lose()
		for _, c := range near { // all are here: Accept has ended, or is about to
			_ = c.Close()
		}
		copies.Wait()
	})
	return r
}

func (r *relay) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.far {
		_ = c.Close()
	}
	r.far = nil
}

// TestAStreamThatOnlyItsAcceptorKnowsToBeGoneIsDialledAnew: the dialler has nothing
// to send, and its kernel nothing to tell.
func TestAStreamThatOnlyItsAcceptorKnowsToBeGoneIsDialledAnew(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	way := newRelay(t, c.addrs[1])
	low, high := c.start(t, 0, startOptions{alone: true}), c.start(t, 1, startOptions{alone: true})
	high.SetPeers(c.peers(1))
	low.SetPeers([]transport.StreamPeer{{ID: high.id, Addrs: []netip.AddrPort{way.addr}}})
	low.wantUp(t, high.id, 1)
	high.wantUp(t, low.id, 1)

	way.lose()
	high.want(t, transport.Reset{Peer: low.id, Incarnation: 1})
	low.want(t, transport.Goodbye{Peer: high.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
	low.wantUp(t, high.id, 1)
	high.wantUp(t, low.id, 1)
}

// TestOnlyThePeerItselfEndsItsStreamByKnocking: not an older start of it, and not
// another agent that runs with its identity.
func TestOnlyThePeerItselfEndsItsStreamByKnocking(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	low, high := c.start(t, 0, startOptions{}), c.start(t, 1, startOptions{incarnation: 5})
	low.wantUp(t, high.id, 5)
	high.wantUp(t, low.id, 1)
	as := security.NodeClientConfig(c.tlsOptions(high.id), low.id)
	for name, try := range map[string]struct {
		incarnation, boot uint32
		code              codes.Code
		text              string
	}{
		"an older start": {4, 1, codes.FailedPrecondition, "incarnation 4"},
		"another agent":  {5, 9, codes.AlreadyExists, "one agent per identity"},
	} {
		s := connect(t, c.addrs[0].String(), as)
		send(t, s, helloFrame(c.helloAs(1, try.incarnation, try.boot)))
		if _, err := s.Recv(); status.Code(err) != try.code || !strings.Contains(err.Error(), try.text) {
			t.Errorf("%s: error %v; want %s with %q", name, err, try.code, try.text)
		}
	}
	if err := high.SendConfiguration(low.id, 7, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	low.want(t, transport.Configuration{Peer: high.id, Document: []byte("{}")})
}
