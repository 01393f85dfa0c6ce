package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/witness"
)

// testWitness is a real registry of node a, whose only other node is b.
type testWitness struct {
	mu      sync.Mutex
	m       *witness.Machine
	call    witness.CallID
	waiting map[witness.CallID]chan witness.Answer
	timer   *time.Timer
}

func newTestWitness() *testWitness {
	cfg := witness.Default()
	cfg.Node, cfg.Name, cfg.Incarnation, cfg.KeepAlive = nodeA, "a", 2, time.Second
	w := &testWitness{m: witness.New(cfg, time.Now(), rand.New(rand.NewPCG(1, 2))), waiting: map[witness.CallID]chan witness.Answer{}}
	w.timer = time.AfterFunc(time.Hour, func() { w.tell() })
	w.tell(
		witness.Members{Nodes: []witness.Member{
			{ID: nodeA, Name: "a", Addresses: []string{"127.0.0.1:7432"}, Hosts: []string{"127.0.0.1"}},
			{ID: nodeB, Name: "b", Addresses: []string{"127.0.0.2:7432"}, Hosts: []string{"127.0.0.2"}},
		}},
		witness.Verdict{Node: nodeB, Verdict: belfry.VerdictUp, Incarnation: 1})
	return w
}

func (w *testWitness) verdict(v belfry.Verdict) {
	w.tell(witness.Verdict{Node: nodeB, Verdict: v, Incarnation: 1})
}

func (w *testWitness) tell(messages ...witness.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range messages {
		w.m.Receive(time.Now(), m)
	}
	w.m.Advance(time.Now())
	for _, a := range w.m.Take().Answers {
		if reply := w.waiting[a.Call]; reply != nil {
			reply <- a
			delete(w.waiting, a.Call)
		}
	}
	if next := w.m.NextTimeout(); !next.IsZero() {
		w.timer.Reset(time.Until(next))
	}
}

func (w *testWitness) Ask(ctx context.Context, r witness.Request) (witness.Answer, error) {
	reply := make(chan witness.Answer, 1)
	w.mu.Lock()
	w.call++
	call := w.call
	w.waiting[call] = reply
	w.mu.Unlock()
	w.tell(r.Numbered(call))
	select {
	case a := <-reply:
		return a, a.Err
	case <-ctx.Done():
		w.tell(witness.Cancel{Call: call})
		return witness.Answer{}, ctx.Err()
	}
}

func (w *testWitness) NodeInformation(_ context.Context, q witness.Question) ([]witness.Witness, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all, incomplete := w.m.NodeInformation(q)
	return all, incomplete, nil
}

func (w *testWitness) Listing(context.Context) (WitnessListing, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return WitnessListing{Registrations: w.m.Registrations(time.Now()), Resources: w.m.Resources(time.Now())}, nil
}

func (w *testWitness) Settings() (keepAlive, unused time.Duration) {
	return time.Second, 30 * time.Second
}

func (w *testWitness) PeerWitness(context.Context, belfry.NodeID, string, proto.Message, proto.Message) error {
	return errors.New("b does not answer")
}

// startWitnessed is an agent with a witness, as its subject reaches it.
func startWitnessed(t *testing.T, subject Subject) (belfryv1.WitnessServiceClient, *testWitness) {
	t.Helper()
	a := startAgent(t, subject)
	stop(t, a.Server)
	w := newTestWitness()
	a.witness = w
	a.start(t)
	conn, err := grpc.NewClient("unix:"+a.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return belfryv1.NewWitnessServiceClient(conn), w
}

func wishFor(resources ...string) *belfryv1.ClientRegistration {
	return &belfryv1.ClientRegistration{Client: "test", Resources: resources}
}

func TestOneRequestDiscoversAndRegisters(t *testing.T) { // W1, W10
	t.Parallel()
	c, w := startWitnessed(t, operator)
	got, err := c.GetNodeInformation(t.Context(), &belfryv1.GetNodeInformationRequest{Accessed: "b", Resources: []string{"node/b"}, Register: wishFor("node/b")})
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for _, n := range got.GetWitnesses() {
		nodes = append(nodes, n.GetNode())
	}
	state := got.GetRegistered().GetResources()[0].GetChange()
	if diff := cmp.Diff([]string{"a", "b"}, nodes); diff != "" || !got.GetWitnesses()[1].GetCoLocated() || state.GetState() != "available" || got.GetIncomplete() {
		t.Errorf("got %v; want a, then b, and node/b available", got)
	}
	w.verdict(belfry.VerdictDown)
	changes, err := c.WaitChanges(t.Context(), &belfryv1.WaitChangesRequest{Registration: got.GetRegistered().GetRegistration()})
	if err != nil || len(changes.GetChanges()) != 1 || changes.GetChanges()[0].GetState() != "unavailable" || changes.GetTimedOut() {
		t.Errorf("changes %v, %v; want node/b unavailable", changes, err)
	}
}

func TestAWatchSaysThatItLivesAndThenWhatChanges(t *testing.T) { // W3, W9
	t.Parallel()
	c, w := startWitnessed(t, operator)
	stream, err := c.WatchChanges(t.Context(), &belfryv1.WatchChangesRequest{Register: wishFor("node/b"), KeepAlive: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetRegistered().GetNodeName() != "a" {
		t.Fatalf("first %v, %v; want registered at a", first, err)
	}
	idle, err := stream.Recv()
	if err != nil || !idle.GetKeepAlive() || len(idle.GetChanges()) != 0 {
		t.Fatalf("idle %v, %v; want a keep-alive", idle, err)
	}
	w.verdict(belfry.VerdictDown)
	told, err := stream.Recv()
	if err != nil || len(told.GetChanges()) != 1 || told.GetChanges()[0].GetSeq() != 1 {
		t.Fatalf("told %v, %v; want one change", told, err)
	}
	// Made again elsewhere: the older stream is not told any more.
	again, err := c.RegisterClient(t.Context(), &belfryv1.RegisterClientRequest{Registration: &belfryv1.ClientRegistration{
		Key: first.GetRegistered().GetRegistration(), Resources: []string{"node/b"},
		Known: []*belfryv1.KnownResource{{Resource: "node/b", State: "unavailable", Version: told.GetChanges()[0].GetVersion()}},
	}})
	if err != nil || again.GetResources()[0].GetChanged() != 0 {
		t.Fatalf("again %v, %v; want nothing new", again, err)
	}
	if _, err := stream.Recv(); err == nil || !strings.Contains(err.Error(), "was made again") {
		t.Errorf("the older stream ends with %v", err)
	}
}

func TestWhatARegistrationCanNotBeIsSaid(t *testing.T) {
	t.Parallel()
	c, _ := startWitnessed(t, operator)
	register := func(r *belfryv1.ClientRegistration) error {
		_, err := c.RegisterClient(t.Context(), &belfryv1.RegisterClientRequest{Registration: r})
		return err
	}
	many := make([]string, 65)
	for i := range many {
		many[i] = "node/b"
	}
	wait := func(key string, d time.Duration) error {
		_, err := c.WaitChanges(t.Context(), &belfryv1.WaitChangesRequest{Registration: key, Timeout: durationpb.New(d)})
		return err
	}
	for want, err := range map[string]error{
		"no resource; name at least one":      register(wishFor()),
		"unknown kind":                        register(wishFor("disk/x")),
		"65 resources; one registration has":  register(wishFor(many...)),
		"no node holds node/x":                register(wishFor("node/x")),
		"write its 32 hexadecimal digits":     register(&belfryv1.ClientRegistration{Key: "x", Resources: []string{"node/b"}}),
		"unknown resource state":              register(&belfryv1.ClientRegistration{Resources: []string{"node/b"}, Known: []*belfryv1.KnownResource{{Resource: "node/b", State: "dead"}}}),
		"more than 0, up to 2m0s":             wait("6b310000000000000000000000000000", time.Hour),
		"is not, or not any longer, at this ": wait("6b310000000000000000000000000000", time.Second),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
	}
	if _, err := c.MoveClients(t.Context(), &belfryv1.MoveClientsRequest{To: []string{"b"}}); err == nil {
		t.Error("a move without a selector moves everybody")
	}
}

func TestWhoDoesNotAnswerIsNamed(t *testing.T) {
	t.Parallel()
	c, _ := startWitnessed(t, operator)
	if _, err := c.RegisterClient(t.Context(), &belfryv1.RegisterClientRequest{Registration: wishFor("node/b")}); err != nil {
		t.Fatal(err)
	}
	got, err := c.ListWitness(t.Context(), &belfryv1.ListWitnessRequest{})
	if err != nil || len(got.GetNodes()) != 2 || got.GetNodes()[0].GetTotal() != 1 || !strings.Contains(got.GetNodes()[1].GetError(), "it is down") {
		t.Errorf("got %v, %v; want a registration at a, and that b is down", got, err)
	}
	ended, err := c.EndRegistrations(t.Context(), &belfryv1.EndRegistrationsRequest{Selector: &belfryv1.RegistrationSelector{Client: "^te"}})
	if err != nil || len(ended.GetMatches()[0].GetRegistrations()) != 1 {
		t.Errorf("ended %v, %v", ended, err)
	}
}

func TestAWitnessOverHTTP(t *testing.T) { // JSON, and server-sent events
	t.Parallel()
	s := startSite(t)
	w := newTestWitness()
	s.opts.Witness = w
	post := []string{bearer, "Content-Type: application/json"}
	var registered struct {
		Registration string
		Resources    []struct{ Change struct{ State string } }
	}
	resp := s.request(t, t.Context(), `POST /v1/witness/registrations {"registration":{"resources":["node/b"]}}`, post...)
	if err := json.NewDecoder(resp.Body).Decode(&registered); err != nil || resp.StatusCode != http.StatusOK || registered.Resources[0].Change.State != "available" {
		t.Fatalf("%s, %+v, %v", resp.Status, registered, err)
	}
	stream := s.request(t, t.Context(), "GET /v1/witness/stream?resource=node/b&resource=node/a&client=page", bearer)
	lines := bufio.NewScanner(stream.Body)
	next := func() string {
		for lines.Scan() {
			if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				lines.Scan()
				return event + " " + strings.TrimPrefix(lines.Text(), "data: ")
			}
		}
		return ""
	}
	if first := next(); !strings.HasPrefix(first, "registered {") {
		t.Fatalf("first event %s", first)
	}
	w.verdict(belfry.VerdictDown)
	if change := next(); !strings.HasPrefix(change, "change {") || !strings.Contains(strings.ReplaceAll(change, " ", ""), `"state":"unavailable"`) {
		t.Fatalf("event %s", change)
	}
	for _, c := range []struct{ line, want string }{
		{"GET /v1/witness/registrations/" + registered.Registration + ":wait?timeout=1s", `"state":"unavailable"`},
		{"GET /v1/witness/nodes?accessed=b", `"rank":1`},
		{"GET /v1/witness/registrations", `"client":"page"`},
		{"GET /v1/witness/stream?resource=disk/x", `"code":"USAGE"`},
		{"GET /v1/witness/stream?resourc=node/b", `unknown field`},
		{"POST /v1/witness/registrations/" + registered.Registration + ":unregister {}", `{}`},
		{"GET /v1/witness/registrations/00000000000000000000000000000001:wait", `"code":"NOT_FOUND"`},
		{`POST /v1/witness:move {"selector":{"all":true},"to":["b"],"dryRun":true}`, `"matches"`},
		{`POST /v1/witness:set {"resource":"node/b","state":"unavailable","duration":"999999s"}`, `"code":"USAGE"`},
	} {
		resp := s.request(t, t.Context(), c.line, post...)
		body, err := io.ReadAll(resp.Body)
		if text := strings.ReplaceAll(string(body), `: `, ":"); err != nil || !strings.Contains(text, c.want) {
			t.Errorf("%s: %s %s, %v; want %s", c.line, resp.Status, body, err, c.want)
		}
	}
}

func TestAReaderRegistersNowhere(t *testing.T) {
	t.Parallel()
	c, _ := startWitnessed(t, reader)
	if _, err := c.RegisterClient(t.Context(), &belfryv1.RegisterClientRequest{Registration: wishFor("node/b")}); err == nil || !strings.Contains(err.Error(), "it takes witness") {
		t.Errorf("got %v; want what it takes", err)
	}
}
