package agent

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// W8: a move is an event of each resource whose clients were asked to go, found by a
// pattern too; metrics and status tell of registrations and of what was handed out.
func TestMovesAreEventsAndAreCounted(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	a := startAgent(t, nodes[0])
	startAgent(t, nodes[1])
	waitUp(t, nodes[0], "b")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	observer := dialAgent(t, nodes[0])
	moved, err := observer.Register(ctx, belfry.Registration{Class: "witness.moved"})
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	w := openWitness(t, client.WitnessConfig{Resources: []string{"node/b"}, At: "b", Name: "web"}, nodes[0])
	expectTold(t, w, "now node/b available x0")
	got, err := observer.MoveClients(ctx, &belfryv1.MoveClientsRequest{
		Selector: &belfryv1.RegistrationSelector{All: true}, To: []string{"a"}, Reason: "balance",
	})
	if err != nil {
		t.Fatal(err)
	}
	expectTold(t, w, "move to [a] (balance)")
	n, err := moved.Next(ctx)
	for err == nil && n.Kind != belfry.KindOccurrence {
		n, err = moved.Next(ctx)
	}
	var data belfryv1.WitnessMoved
	if err == nil {
		err = proto.Unmarshal(n.Data, &data)
	}
	if err != nil || n.Event.Subject != "node/b" || data.GetMove() != got.GetId() || data.GetClients() != 1 || data.GetReason() != "balance" || data.GetWitness() != "a" {
		t.Errorf("event of %q with %v, %v; want that one client of node/b was moved by a", n.Event.Subject, &data, err)
	}
	page := httptest.NewRecorder()
	a.metricsHandler().ServeHTTP(page, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`belfry_witness_registrations{protocol="native"} 1`,
		`belfry_witness_registers_total{protocol="native",result="ok"} 1`,
		`belfry_witness_notifications_total{protocol="native",type="move"} 1`,
		`belfry_witness_waits 1`,
	} {
		if !strings.Contains(page.Body.String(), line+"\n") {
			t.Errorf("the metrics do not have %s", line)
		}
	}
	status := a.witnessStatus(ctx)
	if others := status.GetOthers(); len(others) != 1 || others[0].GetNode() != "b" || others[0].GetState() != witnessServing {
		t.Errorf("others %v; b has said how it does", others)
	}
	if status.GetState() != witnessServing || status.GetRegistrations() != 1 || status.GetWitnesses() != 2 {
		t.Errorf("status %v; want one registration, and two witnesses that serve", status)
	}
}
