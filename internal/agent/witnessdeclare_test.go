package agent

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
)

// rawWitness is the service itself, for what the library has no method.
func rawWitness(t *testing.T, n LocalNode) belfryv1.WitnessServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+settingsOf(n).Socket.Path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return belfryv1.NewWitnessServiceClient(conn)
}

// A resource that is declared at run time is in force on all nodes at once, and
// after a restart of an agent. W3.
func TestAResourceIsDeclaredAtRunTime(t *testing.T) {
	t.Parallel()
	service, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	nodes := localNodes(t, 3)
	agents := []*Agent{startAgent(t, nodes[0]), startAgent(t, nodes[1]), startAgent(t, nodes[2])}
	waitUp(t, nodes[0], "b", "c")
	waitUp(t, nodes[2], "a", "b")
	api := rawWitness(t, nodes[2])
	declare := &belfryv1.DeclareResourceRequest{Resource: &belfryv1.DeclaredResource{
		Name: "service/db", Holders: []string{"b"}, Watch: []string{"tcp:" + service.Addr().String()},
	}}
	declare.DryRun = true
	if got, err := api.DeclareResource(t.Context(), declare); err != nil || !got.GetChanged() {
		t.Fatalf("dry run: %v, %v", got, err)
	}
	if got, err := api.ListDeclared(t.Context(), &belfryv1.ListDeclaredRequest{}); err != nil || len(got.GetResources()) != 0 {
		t.Fatalf("after a dry run: %v, %v", got, err)
	}
	declare.DryRun = false
	if got, err := api.DeclareResource(t.Context(), declare); err != nil || !got.GetChanged() || len(got.GetUnconfirmed()) != 0 {
		t.Fatalf("declared: %v, %v", got, err)
	}
	if got, err := api.DeclareResource(t.Context(), declare); err != nil || got.GetChanged() {
		t.Fatalf("declared again: %v, %v; want no change", got, err)
	}
	w := openWitness(t, client.WitnessConfig{Resources: []string{"service/db"}}, nodes[0])
	expectTold(t, w, "now service/db available x0")
	stopAgent(t, agents[1])
	expectTold(t, w, "changed service/db unknown x1") // it says goodbye to come back
	startAgent(t, nodes[1])
	expectTold(t, w, "changed service/db available x1")
	if err := service.Close(); err != nil {
		t.Fatal(err)
	}
	expectTold(t, w, "changed service/db unavailable x1")
	if _, err := api.WithdrawResource(t.Context(), &belfryv1.WithdrawResourceRequest{Name: "service/db"}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.WithdrawResource(t.Context(), &belfryv1.WithdrawResourceRequest{Name: "service/db"}); err == nil || !strings.Contains(err.Error(), "not in the configuration of the cluster") {
		t.Errorf("withdrawn again: %v", err)
	}
}

// Whatever can not be declared says why.
func TestWhatCannotBeDeclaredIsSaid(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 1)
	startAgent(t, nodes[0])
	api := rawWitness(t, nodes[0])
	for want, r := range map[string]*belfryv1.DeclaredResource{
		"unknown kind":                 {Name: "disk/x", Holders: []string{"a"}},
		"a node is declared by nobody": {Name: "node/a", Holders: []string{"a"}},
		"without the @":                {Name: "service/db@a", Holders: []string{"a"}},
		"no holder":                    {Name: "service/db"},
		"node x is not a member":       {Name: "service/db", Holders: []string{"x"}},
		"name one":                     {Name: "service/db", Holders: []string{"a"}, Watch: []string{"unit:a.service", "unit:b.service"}},
		"want one of unit:":            {Name: "service/db", Holders: []string{"a"}, Watch: []string{"exec:/bin/true"}},
		"want IP or IP:PORT":           {Name: "service/db", Holders: []string{"a"}, Address: "db.example"},
		"write IP:PORT":                {Name: "service/db", Holders: []string{"a"}, Probe: "db:1"},
		"beside a probe":               {Name: "service/db", Holders: []string{"a"}, ProbePath: "/x"},
	} {
		_, err := api.DeclareResource(t.Context(), &belfryv1.DeclareResourceRequest{Resource: r})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %q", r, err, want)
		}
	}
	if _, err := api.SetZone(t.Context(), &belfryv1.SetZoneRequest{Node: "a", Zone: strings.Repeat("z", 64)}); err == nil {
		t.Error("a zone of 64 bytes was taken")
	}
}

// W3: a service that answers over HTTP, and then does not with success.
func TestAServiceIsAskedOverHTTP(t *testing.T) {
	t.Parallel()
	ok := make(chan bool, 1)
	ok <- true
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		good := <-ok
		ok <- good
		if !good || r.URL.Path != "/healthz" {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	nodes := localNodes(t, 2)
	startAgent(t, nodes[0])
	startWith(t, nodes[1], config.Resource{Name: "service/web", Watch: []string{server.URL + "/healthz"}})
	waitUp(t, nodes[0], "b")
	w := openWitness(t, client.WitnessConfig{Resources: []string{"service/web@b"}}, nodes[0])
	expectTold(t, w, "now service/web@b available x0")
	<-ok
	ok <- false
	expectTold(t, w, "changed service/web@b unavailable x1")
	<-ok
	ok <- true
	expectTold(t, w, "changed service/web@b available x1")
}

// W8: a drain outlives the agents, on all of which it is known.
func TestADrainOutlivesTheAgents(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 3)
	agents := []*Agent{startAgent(t, nodes[0]), startAgent(t, nodes[1]), startAgent(t, nodes[2])}
	waitUp(t, nodes[0], "b", "c")
	waitUp(t, nodes[2], "a", "b")
	// What others say of their witnesses reaches a a moment later.
	ranked := func(when string, want ...string) {
		t.Helper()
		for deadline := time.Now().Add(testTimeout); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // of several agents, whose views are asked
			info, err := dialAgent(t, nodes[0]).WitnessNodes(t.Context(), "test", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, w := range info.GetWitnesses() {
				names = append(names, w.GetNode())
			}
			got := strings.Join(names, " ")
			if slices.Contains(want, got) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("a ranks %q %s; want one of %q", got, when, want)
			}
		}
	}
	got, err := dialAgent(t, nodes[0]).DrainNode(t.Context(), &belfryv1.DrainNodeRequest{Node: "b"})
	if err != nil || !got.GetChanged() || !strings.HasPrefix(got.GetId(), "drain-") {
		t.Fatalf("drained %v, %v", got, err)
	}
	for i := range agents {
		stopAgent(t, agents[i])
		startAgent(t, nodes[i])
	}
	waitUp(t, nodes[0], "b", "c")
	waitUp(t, nodes[2], "a", "b")
	ranked("after all have started again", "c a")
	if _, err := rawWitness(t, nodes[1]).RegisterClient(t.Context(), &belfryv1.RegisterClientRequest{Registration: &belfryv1.ClientRegistration{Resources: []string{"node/c"}}}); err == nil || !strings.Contains(err.Error(), "is being drained") {
		t.Errorf("b takes a registration: %v", err)
	}
	if got, err := dialAgent(t, nodes[2]).DrainNode(t.Context(), &belfryv1.DrainNodeRequest{Node: "b", Undo: true}); err != nil || !got.GetChanged() {
		t.Fatalf("undone %v, %v", got, err)
	}
	ranked("after that was undone", "b c a", "c b a")
}

// W1: zones and load decide among witnesses that are as good otherwise.
func TestZonesAndLoadDecideTheRanking(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 4)
	for _, n := range nodes {
		startAgent(t, n)
	}
	for _, n := range nodes {
		waitUp(t, n, "b", "c", "d")
	}
	api := rawWitness(t, nodes[0])
	for node, zone := range map[string]string{"a": "east", "b": "east", "c": "west", "d": "west"} {
		if _, err := api.SetZone(t.Context(), &belfryv1.SetZoneRequest{Node: node, Zone: zone}); err != nil {
			t.Fatal(err)
		}
	}
	first := func(want string) {
		t.Helper()
		var got string
		for deadline := time.Now().Add(testTimeout); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // of several agents, whose views are asked
			info, err := dialAgent(t, nodes[0]).WitnessNodes(t.Context(), "test", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, w := range info.GetWitnesses() {
				names = append(names, w.GetNode()+"/"+w.GetZone())
			}
			if got = strings.Join(names, " "); got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("ranked %q; want %q", got, want)
			}
		}
	}
	load := func(n LocalNode) (end func()) {
		t.Helper()
		var keys []string
		for range 3 {
			got, err := rawWitness(t, n).RegisterClient(t.Context(), &belfryv1.RegisterClientRequest{Registration: &belfryv1.ClientRegistration{Resources: []string{"node/a"}}})
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, got.GetRegistration())
		}
		return func() {
			for _, key := range keys {
				if _, err := rawWitness(t, n).UnregisterClient(t.Context(), &belfryv1.UnregisterClientRequest{Registration: key}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	end := load(nodes[2])
	first("d/west c/west b/east a/east")
	end()
	load(nodes[3])
	first("c/west d/west b/east a/east")
}

// W10: one request, and the registration is at the first of the ranking.
func TestARegistrationIsDelegated(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 3)
	agents := map[string]*Agent{}
	for _, n := range nodes {
		agents[n.Name] = startAgent(t, n)
	}
	waitUp(t, nodes[0], "b", "c")
	waitUp(t, nodes[1], "a", "c")
	got, err := rawWitness(t, nodes[1]).GetNodeInformation(t.Context(), &belfryv1.GetNodeInformationRequest{
		Client: "test", Delegate: true, Register: &belfryv1.ClientRegistration{Client: "test", Resources: []string{"node/b"}, At: "b"},
	})
	if err != nil || got.GetRegistered().GetNodeName() != got.GetWitnesses()[0].GetNode() || got.GetNodeName() != "b" {
		t.Fatalf("got %v, %v; want b's answer, and a registration at the first witness", got, err)
	}
	at := nodes[0]
	if got.GetRegistered().GetNodeName() == "c" {
		at = nodes[2]
	}
	stopAgent(t, agents["b"])
	told, err := rawWitness(t, at).WaitChanges(t.Context(), &belfryv1.WaitChangesRequest{
		Registration: got.GetRegistered().GetRegistration(), Timeout: durationpb.New(testTimeout),
	})
	if err != nil || len(told.GetChanges()) != 1 || told.GetChanges()[0].GetState() != "unknown" {
		t.Errorf("told %v, %v; want that b is in doubt", told, err)
	}
}

// W10: the library has one call register it at the best witness, which it dials then.
func TestAClientHasItsRegistrationDelegated(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 3)
	agents := map[string]*Agent{}
	for _, n := range nodes {
		agents[n.Name] = startAgent(t, n)
	}
	for _, n := range nodes {
		waitUp(t, n, "a", "b", "c")
	}
	identity, err := ClientTLS(filepath.Join(filepath.Dir(nodes[0].State), "client"))
	if err != nil {
		t.Fatal(err)
	}
	w := openWitness(t, client.WitnessConfig{
		Seeds: []string{nodes[1].Streams.String()}, TLS: identity, Resources: []string{"node/b"}, At: "b", Name: "web", Delegate: true,
	})
	expectTold(t, w, "now node/b available x0")
	at := agents[w.Node()]
	held, err := at.witness.Listing(t.Context())
	if err != nil || w.Node() == "b" || len(held.Registrations) != 1 || held.Registrations[0].Owner.Source != "" {
		t.Fatalf("at %s: %+v, %v; want one registration, that another agent made", w.Node(), held.Registrations, err)
	}
	stopAgent(t, agents["b"])
	expectTold(t, w, "changed node/b unknown x1")
	w.Close()
	if held, err = at.witness.Listing(t.Context()); err != nil || len(held.Registrations) != 0 {
		t.Errorf("after Close: %+v, %v; want none", held.Registrations, err)
	}
}

// An event is a resource, of one class with states and of one that only happens.
func TestAnEventIsAResource(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	agents := []*Agent{startAgent(t, nodes[0]), startAgent(t, nodes[1])}
	waitUp(t, nodes[0], "b")
	waitUp(t, nodes[1], "a")
	w := openWitness(t, client.WitnessConfig{Resources: []string{"event/user.backup/nightly", "event/witness.state/b"}}, nodes[0])
	expectTold(t, w, "now event/user.backup/nightly unknown x0", "now event/witness.state/b available x0")
	if _, err := dialAgent(t, nodes[1]).Send(t.Context(), "user.backup", "nightly", nil, 1); err != nil {
		t.Fatal(err)
	}
	expectTold(t, w, "changed event/user.backup/nightly unknown x1")
	if _, err := dialAgent(t, nodes[0]).DrainNode(t.Context(), &belfryv1.DrainNodeRequest{Node: "b"}); err != nil {
		t.Fatal(err)
	}
	expectTold(t, w, "changed event/witness.state/b unavailable x1")
	stopAgent(t, agents[1])
	for _, name := range []string{"event/nosuch.class/x", "event/cpu.wait/x", "event/unit.state/%2A"} {
		if _, err := rawWitness(t, nodes[0]).RegisterClient(t.Context(), &belfryv1.RegisterClientRequest{Registration: &belfryv1.ClientRegistration{Resources: []string{name}}}); err == nil {
			t.Errorf("%s was registered", name)
		}
	}
}

// What an operator holds stays so when the agent starts again.
func TestWhatIsHeldOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	agents := []*Agent{startAgent(t, nodes[0]), startAgent(t, nodes[1])}
	waitUp(t, nodes[0], "b")
	if _, err := rawWitness(t, nodes[0]).SetResource(t.Context(), &belfryv1.SetResourceRequest{Resource: "node/b", State: "unavailable", Duration: durationpb.New(time.Hour), Local: true}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(testTimeout); len(readHoldings(settingsOf(nodes[0]).State, agents[0].log).list(time.Now())) != 1; time.Sleep(time.Millisecond) { //nolint:forbidigo // a file tells nobody
		if time.Now().After(end) {
			t.Fatal("what is held is in no file")
		}
	}
	stopAgent(t, agents[0])
	startAgent(t, nodes[0])
	w := openWitness(t, client.WitnessConfig{Resources: []string{"node/b"}}, nodes[0])
	expectTold(t, w, "now node/b unavailable x0")
}
