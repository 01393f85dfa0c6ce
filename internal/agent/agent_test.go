package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/cloudevents"
	"github.com/belfry-ha/belfry/internal/config"
)

// testTimeout bounds each wait of a test that runs real agents.
const testTimeout = 20 * time.Second

// localNodes gives n nodes free ports of their own.
func localNodes(t testing.TB, n int) []LocalNode {
	t.Helper()
	dir := t.TempDir()
	var nodes []LocalNode
	for i := range n {
		name := string(rune('a' + i))
		state := filepath.Join(dir, name)
		if err := os.Mkdir(state, 0o700); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, LocalNode{Name: name, State: state, Networks: []Network{{Name: "net1", Heartbeat: freePort(t)}}, Streams: freePort(t), Web: freePort(t)})
	}
	if _, err := CreateLocal("test", nodes, filepath.Join(dir, "client"), ""); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// The ports of agents are none that the kernel gives to connections: one that is
// free now would be in use when the agent starts.
const firstPort, manyPorts = 20_000, 12_000

var portsTried atomic.Uint32

// freePort is a port that is free for both UDP and TCP.
func freePort(t testing.TB) netip.AddrPort {
	t.Helper()
	for range manyPorts {
		n := uint32(os.Getpid())*97 + portsTried.Add(1) // of other test programs, too
		address := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(firstPort+n%manyPorts))
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(address))
		if err != nil {
			continue
		}
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
		tcp.Close()
		if err == nil {
			udp.Close()
			return address
		}
	}
	t.Fatal("no port is free for both UDP and TCP")
	return netip.AddrPort{}
}

func settingsOf(n LocalNode) config.Settings {
	s := config.Default()
	s.Node.Name = n.Name
	s.State = n.State
	s.Socket = config.Socket{Path: filepath.Join(n.State, "s")}
	s.Ports = config.Ports{Heartbeat: int(n.Networks[0].Heartbeat.Port()), Streams: int(n.Streams.Port())}
	s.Web.Listen = n.Web.String()
	return s
}

// startAgent starts an agent that is stopped with the test, if not before.
func startAgent(t testing.TB, n LocalNode) *Agent {
	t.Helper()
	token, err := WebToken(n.State)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Options{Config: settingsOf(n), Version: "test", WebToken: token})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopAgent(t, a) })
	return a
}

func stopAgent(t testing.TB, a *Agent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func dialAgent(t *testing.T, n LocalNode) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), settingsOf(n).Socket.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// waitUp returns when the agent at n holds every node named up.
func waitUp(t *testing.T, n LocalNode, names ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	states, err := dialAgent(t, n).Register(ctx, belfry.Registration{Class: "node.state", Snapshot: true, Filter: `data.to == "up"`})
	if err != nil {
		t.Fatal(err)
	}
	defer states.Close()
	missing := map[string]bool{}
	for _, name := range names {
		missing[name] = true
	}
	for len(missing) > 0 {
		got, err := states.Next(ctx)
		if err != nil {
			t.Fatalf("%v not up at %s: %v", missing, n.Name, err)
		}
		delete(missing, got.Event.Subject)
	}
}

// R2, R3: two agents in one process, nothing shared but the wire.
func TestEventOfOneAgentReachesAConsumerOfAnother(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	for _, n := range nodes {
		startAgent(t, n)
	}
	waitUp(t, nodes[0], "a", "b")
	waitUp(t, nodes[1], "a", "b")

	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	stream, err := dialAgent(t, nodes[0]).Register(ctx, belfry.Registration{Class: "user.greeting", Subject: "hello", Scope: belfry.ScopeCluster})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	b := dialAgent(t, nodes[1])
	posted := 0
	for matched := uint32(0); matched == 0; posted++ { // until the interest has arrived there
		sent, err := b.Send(ctx, "user.greeting", "hello", nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		matched = sent.GetMatched()
	}
	got, err := stream.Next(ctx)
	for err == nil && got.Kind != belfry.KindOccurrence {
		got, err = stream.Next(ctx)
	}
	if err != nil {
		t.Fatalf("after %d posts: %v", posted, err)
	}
	if got.NodeName != "b" || got.Count != 1 || got.Last != 1 || got.Event.Subject != "hello" {
		t.Errorf("got %+v; want the first occurrence of user.greeting:hello at b", got)
	}
}

// R8: a node that returns is registered with again, by nobody's help.
func TestRegistrationIsInPlaceAgainWhenANodeReturns(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	startAgent(t, nodes[0])
	b := startAgent(t, nodes[1])
	waitUp(t, nodes[0], "a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	stream, err := dialAgent(t, nodes[0]).Register(ctx, belfry.Registration{Class: "user.greeting", Subject: "hello", Scope: belfry.ScopeCluster})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	stopAgent(t, b)
	startAgent(t, nodes[1])
	waitUp(t, nodes[1], "a", "b")
	again := dialAgent(t, nodes[1])
	for matched := uint32(0); matched == 0; {
		sent, err := again.Send(ctx, "user.greeting", "hello", nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		matched = sent.GetMatched()
	}
	for {
		got, err := stream.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got.Kind == belfry.KindOccurrence {
			if got.NodeName != "b" || got.Incarnation != 2 {
				t.Errorf("got it from incarnation %d of %s; want 2 of b", got.Incarnation, got.NodeName)
			}
			return
		}
	}
}

// An agent that stops is not heard any more when its goodbye goes out, so it
// does not refute what the others then say of it.
func TestGoodbyeIsNotFollowedByASignOfLife(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	startAgent(t, nodes[0])
	b := startAgent(t, nodes[1])
	waitUp(t, nodes[0], "a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	states, err := dialAgent(t, nodes[0]).Register(ctx, belfry.Registration{Class: "node.state", Subject: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer states.Close()
	next := func() string {
		t.Helper()
		n, err := states.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		fields, err := cloudevents.Fields(n.Event.Class, n.Data)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%v (%v) incarnation %v", fields["to"], fields["cause"], fields["incarnation"])
	}
	stopAgent(t, b)
	if got, want := next(), "stalled (restarting) incarnation 1"; got != want {
		t.Errorf("after the goodbye: %s; want %s", got, want)
	}
	startAgent(t, nodes[1])
	if got := next(); !strings.HasPrefix(got, "up (") || !strings.HasSuffix(got, " incarnation 2") {
		t.Errorf("after the restart: %s; want incarnation 2 up", got)
	}
}

func TestSecondAgentOnTheSameStateOrPortSaysWhatToDo(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	startAgent(t, nodes[0])
	start := func(n LocalNode) error {
		a, err := New(Options{Config: settingsOf(n), Version: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return a.Start(t.Context())
	}
	if err := start(nodes[0]); !errors.Is(err, belfry.ErrExist) || !strings.Contains(err.Error(), "another agent uses this state directory") {
		t.Errorf("same state: got %v", err)
	}
	taken, err := net.Listen("tcp", nodes[1].Streams.String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := start(nodes[1]); !errors.Is(err, belfry.ErrExist) || !strings.Contains(err.Error(), "ports.streams") {
		t.Errorf("same port: got %v", err)
	}
	if _, err := os.Stat(settingsOf(nodes[1]).Socket.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a start that failed left its socket: %v", err)
	}
}

func TestAgentWithoutKeysDoesNotStart(t *testing.T) {
	t.Parallel()
	n := localNodes(t, 1)[0]
	if err := os.Remove(filepath.Join(n.State, "keys", "group-1")); err != nil {
		t.Fatal(err)
	}
	a, err := New(Options{Config: settingsOf(n)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "group") {
		t.Errorf("got %v; want an error that names the group secret", err)
		stopAgent(t, a)
	}
}

func TestMetricsAreWellFormedAndNeedNoTokenOnLoopback(t *testing.T) {
	t.Parallel()
	n := localNodes(t, 1)[0]
	a := startAgent(t, n)
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics{a})
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	for path, want := range map[string]int{"/metrics": http.StatusOK, "/healthz": http.StatusOK, "/v1/status": http.StatusUnauthorized} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s%s", n.Web, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: got %d; want %d", path, resp.StatusCode, want)
		}
	}
}

func TestClientCertificateOpensTheAPIOverTLS(t *testing.T) {
	t.Parallel()
	n := localNodes(t, 1)[0]
	startAgent(t, n)
	tls, err := ClientTLS(filepath.Join(filepath.Dir(n.State), "client"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), n.Streams.String(), client.WithTLS(tls))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	status, err := c.Status(t.Context())
	if err != nil || status.GetNodeName() != "a" {
		t.Errorf("got %v, %v; want the status of a", status, err)
	}
}

// A subject that can never name an event is refused also where others may have
// the event: nobody would ever answer.
func TestMalformedSubjectIsRefusedInEveryScope(t *testing.T) {
	t.Parallel()
	n := localNodes(t, 1)[0]
	startAgent(t, n)
	c := dialAgent(t, n)
	for _, r := range []belfry.Registration{
		{Class: "process.exit", Subject: "nginx"},
		{Class: "process.exit", Subject: "exe=nginx"},
		{Class: "file.modify", Subject: "etc/passwd"},
		{Class: "filesystem.usage", Subject: "home", Threshold: belfry.Threshold{Hi: 90, HasHi: true}},
	} {
		for _, r.Scope = range []belfry.Scope{belfry.ScopeLocal, belfry.ScopeCluster} {
			stream, err := c.Register(t.Context(), r)
			if !errors.Is(err, belfry.ErrUsage) {
				t.Errorf("%s:%s, scope %s: got %v; want ErrUsage", r.Class, r.Subject, r.Scope, err)
			}
			if err == nil {
				stream.Close()
			}
		}
	}
}
