package agent

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
)

// registeredAt is the witnesses that have a registration of a client.
func registeredAt(t *testing.T, n LocalNode, name string) (at []string) {
	t.Helper()
	list, err := dialAgent(t, n).ListWitness(t.Context(), &belfryv1.ListWitnessRequest{Selector: &belfryv1.RegistrationSelector{Client: "^" + name + "$"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range list.GetNodes() {
		for range w.GetRegistrations() {
			at = append(at, w.GetNode())
		}
	}
	return at
}

// waitRegistered waits until a client is registered n times.
func waitRegistered(t *testing.T, node LocalNode, name string, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); ; {
		at := registeredAt(t, node, name)
		if len(at) == n {
			return at
		}
		if time.Now().After(deadline) {
			t.Fatalf("registered at %v; want %d witnesses", at, n)
		}
	}
}

// W7: registered at two witnesses a client is told each change once, and the death
// of one of them makes nothing late.
func TestTwoWitnessesTellOfAChangeOnce(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 4)
	service, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	address := service.Addr().String()
	agents := map[string]*Agent{}
	for _, n := range nodes {
		agents[n.Name] = startWith(t, n, config.Resource{Name: "service/db", Holders: []string{"d"}, Watch: []string{"tcp:" + address}})
	}
	for _, n := range nodes[:3] {
		waitUp(t, n, "d")
	}
	w := openWitness(t, client.WitnessConfig{Resources: []string{"service/db"}, At: "d", Name: "twice", Redundancy: 2}, nodes[:3]...)
	expectTold(t, w, "now service/db available x0")
	at := waitRegistered(t, nodes[3], "twice", 2)
	if at[0] == at[1] {
		t.Fatalf("registered at %v; want two different ones", at)
	}
	if err := service.Close(); err != nil {
		t.Fatal(err)
	}
	expectTold(t, w, "changed service/db unavailable x1")
	expectNothing(t, w, 2*time.Second)
	stopAgent(t, agents[at[0]])
	if service, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Close() })
	expectTold(t, w, "changed service/db available x1")
	expectNothing(t, w, 2*time.Second)
	if again := waitRegistered(t, nodes[3], "twice", 2); again[0] == at[0] || again[1] == at[0] {
		t.Errorf("registered at %v after %s had stopped", again, at[0])
	}
	w.Close()
	waitRegistered(t, nodes[3], "twice", 0) // W2
}

// W5, W8: a dialer's connection fails at once when its holder does, also if the
// server at the other end says nothing; a new one waits until there is a holder.
func TestADialersConnectionEndsWithItsHolder(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	first, address := silentServer(t, "127.0.0.2:0")
	_, elsewhere := silentServer(t, "127.0.0.2:0")
	service := config.Resource{Name: "service/db", Holders: []string{"b"}, Watch: []string{"tcp:" + address}, Address: address}
	startWith(t, nodes[0], service)
	startWith(t, nodes[1], service)
	waitUp(t, nodes[0], "b")
	d, err := client.OpenDialer(t.Context(), client.WitnessConfig{Seeds: []string{settingsOf(nodes[0]).Socket.Path}, Resources: []string{"service/db"}, Name: "dialer"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	ended := dialResource(t, d, address)
	if err := first.Close(); err != nil { // the connection that it took stays
		t.Fatal(err)
	}
	expectEnd(t, ended, belfry.ErrResourceUnavailable)
	silentServer(t, address)
	ended = dialResource(t, d, address)
	waitRegistered(t, nodes[0], "dialer", 1)
	if _, err := dialAgent(t, nodes[0]).MoveClients(t.Context(), &belfryv1.MoveClientsRequest{
		Selector: &belfryv1.RegistrationSelector{Client: "^dialer$"}, To: []string{elsewhere},
	}); err != nil {
		t.Fatal(err)
	}
	expectEnd(t, ended, belfry.ErrResourceMoved)
	ended = dialResource(t, d, elsewhere)
	d.Close()
	expectEnd(t, ended, net.ErrClosed)
	if _, err := d.DialContext(t.Context(), "tcp", "db:1"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dialled after Close: %v; want net.ErrClosed", err)
	}
}

// silentServer takes connections and says nothing on them.
func silentServer(t *testing.T, address string) (net.Listener, string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	return l, l.Addr().String()
}

// dialResource connects, and gives how a read of that ends.
func dialResource(t *testing.T, d *client.ResourceDialer, want string) <-chan error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", "db:1")
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.RemoteAddr().String(); got != want {
		t.Fatalf("connected to %s; want %s", got, want)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	return ended
}

func expectEnd(t *testing.T, ended <-chan error, want error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, want) {
			t.Errorf("the read ends with %v; want %v", err, want)
		}
	case <-time.After(testTimeout):
		t.Fatalf("the read goes on; want %v", want)
	}
}
