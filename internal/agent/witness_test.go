package agent

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"

	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/config"
)

// startWith starts an agent whose settings file declares resources.
func startWith(t *testing.T, n LocalNode, resources ...config.Resource) *Agent {
	t.Helper()
	settings := settingsOf(n)
	settings.Resources = resources
	a, err := New(Options{Config: settings, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopAgent(t, a) })
	return a
}

func openWitness(t *testing.T, cfg client.WitnessConfig, seeds ...LocalNode) *client.Witness {
	t.Helper()
	for _, n := range seeds {
		cfg.Seeds = append(cfg.Seeds, settingsOf(n).Socket.Path)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	w, err := client.OpenWitness(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// toldNext is the next thing that a witness says but for where it is registered, in
// one line.
func toldNext(t *testing.T, w *client.Witness) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	for {
		e, err := w.Next(ctx)
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Kind == client.WitnessAt, e.Kind == client.WitnessMissing:
		case e.Kind == client.WitnessMove:
			return fmt.Sprintf("move to %v (%s)", e.Change.Move.To, e.Change.Move.Reason)
		default:
			word := "now"
			if e.Kind == client.WitnessChange {
				word = "changed"
			}
			return fmt.Sprintf("%s %s %s x%d", word, e.Change.Resource, e.Change.Level.State, e.Change.Count)
		}
	}
}

func expectTold(t *testing.T, w *client.Witness, want ...string) {
	t.Helper()
	for _, line := range want {
		if got := toldNext(t, w); got != line {
			t.Fatalf("told %q; want %q", got, line)
		}
	}
}

func expectNothing(t *testing.T, w *client.Witness, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return
		}
		if e.Kind != client.WitnessAt && e.Kind != client.WitnessMissing {
			t.Fatalf("told %+v; want nothing", e)
		}
	}
}

// W1: a client whose witness is not on b is told that b restarts: a doubt, since
// it says goodbye to come back. That b is killed is in the script witness.txtar.
func TestAClientIsToldThatANodeRestarts(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 3)
	agents := []*Agent{startAgent(t, nodes[0]), startAgent(t, nodes[1]), startAgent(t, nodes[2])}
	waitUp(t, nodes[0], "b", "c")
	waitUp(t, nodes[2], "b")
	info, err := dialAgent(t, nodes[1]).WitnessNodes(t.Context(), "test", "", []string{"node/b"})
	if err != nil || len(info.GetWitnesses()) != 3 || info.GetWitnesses()[2].GetNode() != "b" || !info.GetWitnesses()[2].GetCoLocated() {
		t.Fatalf("witnesses of who uses b: %v, %v; want a and c, and b last", info, err)
	}
	w := openWitness(t, client.WitnessConfig{Resources: []string{"node/b"}, At: "b", Name: "test"}, nodes...)
	expectTold(t, w, "now node/b available x0")
	if w.Node() == "b" {
		t.Error("the witness is on the node that is used")
	}
	stopAgent(t, agents[1])
	expectTold(t, w, "changed node/b unknown x1")
	startAgent(t, nodes[1])
	expectTold(t, w, "changed node/b available x1")
}

// W3, W4, W6: a service is observed where it is, also if the client is there.
func TestAServiceIsObservedByItsHolder(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	service, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	address := service.Addr().String()
	startAgent(t, nodes[0])
	startWith(t, nodes[1], config.Resource{Name: "service/db", Watch: []string{"tcp:" + address}, Address: address})
	waitUp(t, nodes[0], "b")
	far := openWitness(t, client.WitnessConfig{Resources: []string{"service/db", "address/127.0.0.1"}}, nodes[0])
	near := openWitness(t, client.WitnessConfig{Resources: []string{"service/db"}}, nodes[1])
	expectTold(t, far, "now address/127.0.0.1 available x0", "now service/db available x0")
	expectTold(t, near, "now service/db available x0")
	if err := service.Close(); err != nil {
		t.Fatal(err)
	}
	expectTold(t, far, "changed service/db unavailable x1")
	expectTold(t, near, "changed service/db unavailable x1")
	list, err := dialAgent(t, nodes[0]).ListWitness(t.Context(), &belfryv1.ListWitnessRequest{})
	if err != nil || len(list.GetNodes()) != 2 || len(list.GetNodes()[0].GetRegistrations()) != 1 || len(list.GetNodes()[1].GetRegistrations()) != 1 {
		t.Errorf("listing %v, %v; want one registration at each witness", list, err)
	}
	far.Close()
	list, err = dialAgent(t, nodes[0]).ListWitness(t.Context(), &belfryv1.ListWitnessRequest{Node: "a"})
	if err != nil || list.GetNodes()[0].GetTotal() != 0 { // W2
		t.Errorf("listing %v, %v; want nothing after the client has closed", list, err)
	}
}

// W7: the witness dies, then the resource: exactly one notification.
func TestTheDeathOfTheWitnessIsNoChange(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 4)
	service, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	agents := map[string]*Agent{}
	for _, n := range nodes {
		if n.Name == "d" {
			agents[n.Name] = startWith(t, n, config.Resource{Name: "service/db", Watch: []string{"tcp:" + service.Addr().String()}})
			continue
		}
		agents[n.Name] = startAgent(t, n)
	}
	for _, n := range nodes[:3] {
		waitUp(t, n, "d")
	}
	w := openWitness(t, client.WitnessConfig{Resources: []string{"service/db", "node/d"}, At: "d"}, nodes[:3]...)
	expectTold(t, w, "now node/d available x0", "now service/db available x0")
	first := w.Node()
	stopAgent(t, agents[first])
	expectNothing(t, w, 3*time.Second)
	if second := w.Node(); second == first || second == "" {
		t.Fatalf("registered at %q after %q had gone; want another witness", second, first)
	}
	if err := service.Close(); err != nil {
		t.Fatal(err)
	}
	expectTold(t, w, "changed service/db unavailable x1")
	expectNothing(t, w, 2*time.Second)
}

// W8: an operator's move reaches the client, once; a drained witness is left.
func TestMovesAndDrainsReachTheClient(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 3)
	for _, n := range nodes {
		startAgent(t, n)
	}
	waitUp(t, nodes[0], "b", "c")
	waitUp(t, nodes[2], "a", "b")
	w := openWitness(t, client.WitnessConfig{Resources: []string{"node/b"}, At: "b", Name: "web"}, nodes...)
	expectTold(t, w, "now node/b available x0")
	operator := dialAgent(t, nodes[1])
	moved, err := operator.MoveClients(t.Context(), &belfryv1.MoveClientsRequest{
		Selector: &belfryv1.RegistrationSelector{At: "b"}, To: []string{"c"},
	})
	if err != nil || len(moved.GetMatches()) != 3 {
		t.Fatalf("moved %v, %v", moved, err)
	}
	expectTold(t, w, "move to [c] (operator)")
	first := w.Node()
	if _, err := operator.DrainNode(t.Context(), &belfryv1.DrainNodeRequest{Node: first, Rate: 1000}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	for {
		e, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == client.WitnessAt && e.Node != first {
			return
		}
		if e.Kind == client.WitnessChange {
			t.Fatalf("told %+v; a drain is no change", e.Change)
		}
	}
}
