package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

// A machine is where one agent of a test may run: addresses of its own on two
// loopback networks, with the ports of all others.
type machine struct {
	Place
	agent *Agent    // nil: it does not run
	log   io.Writer // nil: the test's output

	handlers []config.Handler
}

// towns counts the clusters of machines in this process, which have networks of
// their own.
var towns atomic.Uint32

// machines gives each an address on two networks that only they have.
func machines(t *testing.T, n int) []*machine {
	t.Helper()
	dir, heartbeat, streams := t.TempDir(), uint16(7431), uint16(7432)
	town := byte(2 * towns.Add(1))
	process := byte(64 + os.Getpid()%128)
	all := make([]*machine, n)
	for i := range all {
		name := fmt.Sprintf("n%d", i+1)
		all[i] = &machine{Place: Place{
			State: filepath.Join(dir, name), Name: name, HeartbeatPort: heartbeat, StreamsPort: streams, Search: []string{dir},
			Addresses: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{127, process, town, byte(i + 1)}), 24),
				netip.PrefixFrom(netip.AddrFrom4([4]byte{127, process, town + 1, byte(i + 1)}), 24),
			},
		}}
	}
	return all
}

func (m *machine) settings() config.Settings {
	s := config.Default()
	s.State, s.Socket = m.State, config.Socket{Path: filepath.Join(m.State, "s")}
	s.Ports = config.Ports{Heartbeat: int(m.HeartbeatPort), Streams: int(m.StreamsPort)}
	s.Web.Listen = ""
	s.Repository.Search, s.Handlers = m.Search, m.handlers
	return s
}

func (m *machine) address() string {
	return netip.AddrPortFrom(m.Addresses[0].Addr(), m.StreamsPort).String()
}

func (m *machine) start(t *testing.T) {
	t.Helper()
	var err error
	if m.log == nil {
		m.log = t.Output()
	}
	if m.agent, err = New(Options{Config: m.settings(), Version: "test", Logger: slog.New(slog.NewTextHandler(m.log, nil)).With("self", m.Name)}); err != nil {
		t.Fatal(err)
	}
	if err := m.agent.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.stop(t) })
}

func (m *machine) stop(t *testing.T) {
	t.Helper()
	if m.agent == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testTimeout) // also when the test is over
	defer cancel()
	if err := m.agent.Stop(ctx); err != nil && !errors.Is(err, belfry.ErrNotMember) {
		t.Error(err)
	}
	m.agent = nil
}

func (m *machine) dial(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), m.settings().Socket.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// waitHolds returns when the agent holds exactly these nodes up.
func (m *machine) waitHolds(t *testing.T, names ...string) {
	t.Helper()
	slices.Sort(names)
	c := m.dial(t)
	defer c.Close()
	for end := time.Now().Add(testTimeout); ; {
		nodes, err := c.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range nodes {
			if n.GetVerdict() == "up" {
				got = append(got, n.GetName())
			}
		}
		if slices.Sort(got); slices.Equal(got, names) && len(nodes) == len(names) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s holds %v up of %d; want %v", m.Name, got, len(nodes), names)
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // of several agents, whose views are asked
	}
}

func (m *machine) token(t *testing.T, r client.TokenRequest) string {
	t.Helper()
	c := m.dial(t)
	defer c.Close()
	answer, err := c.CreateToken(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetToken()
}

func (m *machine) join(ctx context.Context, by *machine, token string) (Joined, error) {
	return Join(ctx, func() (Place, error) { return m.Place, nil }, JoinOptions{Token: token, Address: by.address()})
}

// mustJoin has the machine join with a new token, and starts its agent. A token
// names the authority of its time: another one is made where the authority was
// replaced between the token and the join.
func (m *machine) mustJoin(t *testing.T, by *machine) {
	t.Helper()
	first := func() Digest { return by.agent.members.Table().CA[0].Digest() }
	for {
		authority := first()
		_, err := m.join(t.Context(), by, by.token(t, client.TokenRequest{}))
		if err == nil {
			break
		}
		if !errors.Is(err, belfry.ErrPermission) || first() == authority {
			t.Fatal(err)
		}
	}
	m.start(t)
}

// formed has machines form a cluster.
func formed(t *testing.T, machines []*machine) {
	t.Helper()
	formedAt(t, time.Now(), machines)
}

// formedAt has them form one that began at another time.
func formedAt(t *testing.T, begin time.Time, machines []*machine) {
	t.Helper()
	opts := InitOptions{Name: "test", Now: begin}
	if strings.HasPrefix(t.Name(), "TestOnAFile/") {
		opts.Repository = filepath.Join(machines[0].Search[0], "test.belfry")
	}
	formedWith(t, opts, machines)
}

// formedOnFile has them form one whose configuration lies in a file that all of
// them find, and tells its path.
func formedOnFile(t *testing.T, machines []*machine) string {
	t.Helper()
	path := filepath.Join(machines[0].Search[0], "test.belfry")
	formedWith(t, InitOptions{Name: "test", Now: time.Now(), Repository: path}, machines)
	return path
}

func formedWith(t *testing.T, opts InitOptions, machines []*machine) {
	t.Helper()
	if _, err := Init(machines[0].Place, opts); err != nil {
		t.Fatal(err)
	}
	machines[0].start(t)
	for end := time.Now().Add(testTimeout); time.Until(machines[0].agent.keys.now().Certificate.Leaf.NotAfter) <= 0; time.Sleep(time.Millisecond) { //nolint:forbidigo // of several agents, whose views are asked
		if time.Now().After(end) {
			t.Fatal("the first node does not renew its certificate, which has ended")
		}
	}
	names := []string{machines[0].Name}
	for _, m := range machines[1:] {
		m.mustJoin(t, machines[0])
		names = append(names, m.Name)
	}
	for _, m := range machines {
		m.waitHolds(t, names...)
		m.waitConnected(t, len(machines)-1)
	}
}

// waitAuthority returns when one authority counts, whose key no removed node has.
func (m *machine) waitAuthority(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(testTimeout); ; m.agent.doDuties(t.Context()) {
		if table := m.agent.members.Table(); len(table.CA) == 1 && !table.Exposed {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: the authority is not replaced", m.Name)
		}
	}
}

// waitConnected returns when the agent has so many streams.
func (m *machine) waitConnected(t *testing.T, want int) {
	t.Helper()
	for end := time.Now().Add(testTimeout); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // of several agents, whose views are asked
		n := 0
		for _, other := range m.agent.members.Table().Nodes {
			if m.agent.streams.Connected(other.ID) {
				n++
			}
		}
		if n == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s has %d streams; want %d", m.Name, n, want)
		}
	}
}

func TestMachinesFormACluster(t *testing.T) {
	t.Parallel()
	m := machines(t, 4)
	formed(t, m[:3])
	table := m[2].agent.members.Table()
	for i, n := range table.Nodes {
		if int(n.Number) != i+1 || n.Name != m[i].Name || len(n.Networks) != 2 || n.Networks[1].Name != "net2" {
			t.Errorf("node %d is %+v", i, n)
		}
	}
	if got := table.holders(table.CA[0].Digest()); got != 3 || len(table.Tokens) != 0 {
		t.Errorf("%d nodes hold the authority's key, %d tokens are left; want 3, 0", got, len(table.Tokens))
	}
	// Any member lets others in, also one that does not lead.
	m[3].mustJoin(t, m[2])
	m[0].waitHolds(t, "n1", "n2", "n3", "n4")
	if got := m[3].agent.members.Table(); got.holders(got.CA[0].Digest()) != 3 {
		t.Error("the fourth node was given the authority's key too")
	}
}

func TestATokenIsUsedOnce(t *testing.T) {
	t.Parallel()
	m := machines(t, 12)
	formed(t, m[:2])
	token := m[0].token(t, client.TokenRequest{})
	var group sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for i, machine := range m[2:] {
		group.Go(func() {
			_, err := machine.join(t.Context(), m[i%2], token)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				in++
			} else if !errors.Is(err, belfry.ErrPermission) {
				t.Errorf("%s: %v; want ErrPermission", machine.Name, err)
			}
		})
	}
	group.Wait()
	if n := len(m[0].agent.members.Table().Nodes); in != 1 || n != 3 {
		t.Errorf("%d of 10 joined with one token, the table has %d nodes; want 1 and 3", in, n)
	}
}

func TestWhoIsRefusedIsToldWhyOnlyWithAToken(t *testing.T) {
	t.Parallel()
	m := machines(t, 4)
	formed(t, m[:2])
	for _, tt := range []struct {
		name  string
		token client.TokenRequest
		edit  func(*Place, *security.Token)
		is    error
		text  string
	}{
		{"another secret", client.TokenRequest{}, func(_ *Place, k *security.Token) { k.Secret[3]++ }, belfry.ErrPermission, "join refused"},
		{"another id", client.TokenRequest{}, func(_ *Place, k *security.Token) { k.ID[0]++ }, belfry.ErrPermission, "join refused"},
		{"another authority", client.TokenRequest{}, func(_ *Place, k *security.Token) { k.CA[0]++ }, belfry.ErrPermission, "another authority than the token names"},
		{"a name that is taken", client.TokenRequest{}, func(p *Place, _ *security.Token) { p.Name = "n1" }, belfry.ErrExist, "n1 is node"},
		{"an address that is taken", client.TokenRequest{}, func(p *Place, _ *security.Token) { p.Addresses = m[0].Addresses }, belfry.ErrExist, "is the address of node n1"},
		{"no network in common", client.TokenRequest{}, func(p *Place, _ *security.Token) {
			p.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 200, 200, 3}), 24)}
		}, belfry.ErrUsage, "no network in common: n3 has 127.200.200.3/24"},
		{"a name that can not be", client.TokenRequest{}, func(p *Place, _ *security.Token) { p.Name = "N_3" }, belfry.ErrUsage, "node.name \"N_3\""},
	} {
		token, err := security.ParseToken(m[0].token(t, tt.token))
		if err != nil {
			t.Fatal(err)
		}
		p := m[2].Place
		tt.edit(&p, &token)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = Join(ctx, func() (Place, error) { return p, nil }, JoinOptions{Token: token.Text(), Address: m[1].address()})
		cancel()
		if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v; want %v with %q", tt.name, err, tt.is, tt.text)
		}
		if _, err := os.Stat(filepath.Join(p.State, memberFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the state directory belongs to a cluster now (%v)", tt.name, err)
		}
	}
	// Nothing of it is in the way of a join that is right.
	m[2].mustJoin(t, m[1])
	m[0].waitHolds(t, "n1", "n2", "n3")
	if n := len(m[0].agent.members.Table().Nodes); n != 3 {
		t.Errorf("%d nodes; want 3", n)
	}
}

// TestATokenOfTheOtherKindIsNotUsedUp: a client's was, and left a client in the
// table whose key nobody had.
func TestATokenOfTheOtherKindIsNotUsedUp(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m[:2])
	ofNode, ofClient := m[0].token(t, client.TokenRequest{}), m[0].token(t, client.TokenRequest{Role: "reader", Name: "ci"})
	dir := filepath.Join(t.TempDir(), "ci")
	asClient := func(token string) error {
		_, err := Join(t.Context(), nil, JoinOptions{Token: token, Address: m[1].address(), Identity: dir})
		return err
	}
	asNode := func(token string) error {
		_, err := m[2].join(t.Context(), m[1], token)
		return err
	}
	before := m[0].agent.members.Table().Generation
	if err := asNode(ofClient); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "the token is for client ci (reader), not for a node, and is not used up; name the directory for the client's key and certificate with --identity DIR") {
		t.Errorf("a client's token for a node: %v", err)
	}
	if err := asClient(ofNode); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "the token is for a node, not for a client, and is not used up; run belfry join on that machine without --identity") {
		t.Errorf("a node's token for a client: %v", err)
	}
	table := m[0].agent.members.Table()
	if len(table.Tokens) != 2 || len(table.Clients) != 0 || len(table.Nodes) != 2 || table.Generation != before {
		t.Errorf("%d tokens, %d clients, %d nodes, generation %d; want 2, 0, 2, %d", len(table.Tokens), len(table.Clients), len(table.Nodes), table.Generation, before)
	}
	// Nor is one for a name that the machine's settings contradict.
	ofName := m[0].token(t, client.TokenRequest{Name: "zz"})
	place := m[2].Place
	place.Named = true
	_, err := Join(t.Context(), func() (Place, error) { return place, nil }, JoinOptions{Token: ofName, Address: m[1].address()})
	if !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), `the token is for node zz, and node.name says "n3" on that machine; the token is not used up`) || len(m[0].agent.members.Table().Tokens) != 3 {
		t.Errorf("a token for another name: %v, %d tokens; want ErrUsage and all three", err, len(m[0].agent.members.Table().Tokens))
	}
	if err := errors.Join(asClient(ofClient), asNode(ofNode)); err != nil {
		t.Errorf("as they are meant: %v", err)
	}
}

func TestAJoinDoesNotWaitForAHostThatIsNot(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	formed(t, m[:1])
	token := m[0].token(t, client.TokenRequest{})
	// No resolver is asked for a name with an empty label.
	_, err := Join(t.Context(), func() (Place, error) { return m[1].Place, nil }, JoinOptions{Token: token, Address: "nosuch..invalid"})
	if !errors.Is(err, belfry.ErrNoAgent) || !strings.Contains(err.Error(), "nosuch..invalid") {
		t.Errorf("%v; want ErrNoAgent with the name", err)
	}
}

func TestARemovedNodeIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	gone := m[2].agent.id.node
	begin := time.Now()
	answer, err := m[1].dial(t).RemoveNode(t.Context(), "n3", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range m[:2] {
		if err := other.agent.members.Table().Listed(gone.ID, gone.Key.ed25519()); !errors.Is(err, belfry.ErrNotMember) {
			t.Errorf("%s: certificate: %v; want ErrNotMember", other.Name, err)
		}
		if epoch := other.agent.members.Table().Epoch; epoch != 2 || answer.GetEpoch() != 2 {
			t.Errorf("%s: epoch %d, the answer says %d; want 2", other.Name, epoch, answer.GetEpoch())
		}
		if other.agent.streams.Connected(gone.ID) {
			t.Errorf("%s still has a stream to it", other.Name)
		}
		other.waitHolds(t, "n1", "n2")
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("refused everywhere after %v; within 2 s", took)
	}
	select {
	case <-m[2].agent.ended.Done():
	case <-time.After(testTimeout):
		t.Fatal("the removed node's agent goes on")
	}
	m[2].stop(t)
	// What it has is worth nothing.
	stranger, err := New(Options{Config: m[2].settings()})
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(t.Context()); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("the removed node starts: %v; want ErrNotMember", err)
	}
	// With a token it comes back, as another node.
	m[2].mustJoin(t, m[0])
	m[0].waitHolds(t, "n1", "n2", "n3")
	if again := m[2].agent.id.node; again.ID == gone.ID || again.Number != 4 {
		t.Errorf("it is %s with number %d again; want another id, and number 4", again.ID, again.Number)
	}
}

// TestARemovedNodeChangesNothing has one try, in the moment before its streams
// are closed, and have another bring what it wrote.
func TestARemovedNodeChangesNothing(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	gone := m[2].agent
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n3", false); err != nil {
		t.Fatal(err)
	}
	table := m[0].agent.members.Table()
	if gone.leads() {
		t.Error("the removed node leads")
	}
	forged := table.clone()
	// Newer than what n1 writes meanwhile: n3 held the authority's key, which is replaced.
	forged.Generation, forged.Origin, forged.Name = table.Generation+100, gone.id.node.ID, "forged"
	document := encoded(t, forged)
	if _, err := m[0].agent.received(gone.id.node.ID, document); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("a table by the removed node: %v; want ErrNotMember", err)
	}
	if _, err := m[0].agent.received(m[1].agent.id.node.ID, document); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("the same, brought by a member: %v; want ErrNotMember", err)
	}
	forged.Origin = belfry.NewNodeID()
	if _, err := m[0].agent.received(m[1].agent.id.node.ID, encoded(t, forged)); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("one by a node that never was a member: %v; want ErrNotMember", err)
	}
	forged.Origin = m[1].agent.id.node.ID
	if _, err := m[0].agent.received(gone.id.node.ID, encoded(t, forged)); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("one by a member, brought by the removed node: %v; want ErrNotMember", err)
	}
	for method := range m[0].agent.calls {
		if _, err := m[0].agent.serveCall(t.Context(), gone.id.node.ID, method, nil); !errors.Is(err, belfry.ErrNotMember) {
			t.Errorf("%s: %v; want ErrNotMember", method, err)
		}
	}
	if now := m[0].agent.members.Table(); now.Name != "test" {
		t.Errorf("the cluster is %q", now.Name)
	}
}

func TestAnyNodeCanLeaveAlsoTheOneThatLeads(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m[0].agent.ended.Done():
	case <-time.After(testTimeout):
		t.Fatal("the agent of the node that left goes on")
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	if err := m[0].agent.Stop(ctx); err != nil {
		t.Errorf("leaving is no failure: %v", err)
	}
	m[0].agent = nil
	for _, other := range m[1:] {
		other.waitHolds(t, "n2", "n3")
	}
	if _, err := m[1].dial(t).RemoveNode(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	m[2].waitHolds(t, "n3")
	if _, err := m[2].dial(t).RemoveNode(t.Context(), "", false); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "last member") {
		t.Errorf("the last one leaves: %v; want ErrUsage", err)
	}
}

// TestWhoSleptThroughEpochsIsHeardAgain rotates the group secret while one node
// is down, more often than its neighbours are kept.
func TestWhoSleptThroughEpochsIsHeardAgain(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	m[2].stop(t)
	for want := uint32(2); want <= 5; want++ {
		if _, _, err := m[0].agent.rotate(t.Context(), m[0].agent.commit, belfry.NodeID{}, func(*Table) error { return nil }); err != nil {
			t.Fatal(err)
		}
		for _, other := range m[:2] {
			if got := other.agent.members.Table().Epoch; got != want {
				t.Fatalf("%s is in epoch %d; want %d", other.Name, got, want)
			}
		}
	}
	m[2].start(t)
	for _, other := range m {
		other.waitHolds(t, "n1", "n2", "n3")
	}
	kept, err := filepath.Glob(filepath.Join(m[0].State, keysDir, "group-*"))
	if err != nil || len(kept) != 2 {
		t.Errorf("secrets that are kept: %v, %v; want those of epochs 4 and 5", kept, err)
	}
}

func TestAuthorityIsReplacedWhileAllRun(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	old := m[0].agent.members.Table().CA[0].Digest()
	if _, err := m[1].dial(t).RotateCA(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(testTimeout); ; {
		m[0].agent.doDuties(t.Context()) // the clock of duties, faster
		table := m[2].agent.members.Table()
		if len(table.CA) == 1 && table.CA[0].Digest() != old {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d authorities count", len(table.CA))
		}
	}
	for _, node := range m {
		keys := node.agent.keys.now()
		if issuer := keys.Issuer(); issuer == nil || len(keys.CA) != 1 || Certificate(issuer.Raw).Digest() == old {
			t.Errorf("%s: certificate is not under the new authority", node.Name)
		}
		if n, _ := m[0].agent.members.Table().Node(node.agent.id.node.ID); m[0].agent.storage != nil && !underFirst(keys, n, n.Certificate) {
			t.Errorf("%s: the document lists a certificate that is not under the new authority", node.Name)
		}
	}
	for _, node := range m {
		node.stop(t)
	}
	for _, node := range m { // what is on disk is enough to start
		node.start(t)
	}
	m[0].waitHolds(t, "n1", "n2", "n3")
}

// TestAReplacedAuthorityWaitsForWhoIsDown has a node miss the beginning.
func TestAReplacedAuthorityWaitsForWhoIsDown(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	old := m[0].agent.members.Table().CA[0].Digest()
	m[2].stop(t)
	if _, err := m[0].dial(t).RotateCA(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		m[0].agent.doDuties(t.Context())
	}
	if table := m[0].agent.members.Table(); table.CA[0].Digest() != old || !table.CANext {
		t.Fatal("the new authority signs, and a node that is down does not know it")
	}
	m[2].start(t)
	m[0].waitHolds(t, "n1", "n2", "n3")
	for end := time.Now().Add(testTimeout); m[2].agent.members.Table().CA[0].Digest() == old || len(m[2].agent.members.Table().CA) > 1; {
		m[0].agent.doDuties(t.Context())
		if time.Now().After(end) {
			t.Fatal("the authority is not replaced, though all are back")
		}
	}
}

// TestWhoHeldTheAuthoritysKeyTakesNothingAlong removes one of the three nodes
// that hold it.
func TestWhoHeldTheAuthoritysKeyTakesNothingAlong(t *testing.T) {
	t.Parallel()
	m := machines(t, 4)
	formed(t, m)
	old := m[0].agent.members.Table().CA[0].Digest()
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n2", false); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(testTimeout); ; {
		m[0].agent.doDuties(t.Context())
		table := m[3].agent.members.Table()
		if len(table.CA) == 1 && table.CA[0].Digest() != old {
			if n := table.holders(table.CA[0].Digest()); n != 3 || table.Exposed {
				t.Errorf("%d nodes hold the new authority's key, exposed %t; want 3, false", n, table.Exposed)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d authorities count, the first is new: %t", len(table.CA), table.CA[0].Digest() != old)
		}
	}
}

// TestWhoCanNotOpenTheAuthoritysKeyAsksAnother: the leader's sealing key is not
// the one to which the authority's was sealed.
func TestWhoCanNotOpenTheAuthoritysKeyAsksAnother(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m[:2])
	m[0].stop(t)
	if err := otherSealingKey(m[0].State); err != nil {
		t.Fatal(err)
	}
	m[0].start(t)
	m[0].waitHolds(t, "n1", "n2")
	m[0].waitConnected(t, 1)
	m[2].mustJoin(t, m[0])
}

// TestAllWhoHeldTheAuthoritysKeyAreGone: the rest makes another authority, and
// a node can join.
func TestAllWhoHeldTheAuthoritysKeyAreGone(t *testing.T) {
	t.Parallel()
	m := machines(t, 6)
	formed(t, m[:5])
	old := m[0].agent.members.Table().CA[0].Digest()
	for _, gone := range m[:3] {
		gone.stop(t)
	}
	left := m[3].agent
	for _, name := range []string{"n1", "n2", "n3"} {
		if _, err := m[3].dial(t).RemoveNodeByForce(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(testTimeout); ; {
		left.doDuties(t.Context())
		table := m[4].agent.members.Table()
		if len(table.CA) == 1 && table.CA[0].Digest() != old {
			if n := table.holders(table.CA[0].Digest()); n != 2 || table.Exposed {
				t.Errorf("%d nodes hold the new authority's key, exposed %t; want 2, false", n, table.Exposed)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d authorities count, the first is new: %t", len(table.CA), table.CA[0].Digest() != old)
		}
	}
	m[5].mustJoin(t, m[3])
	m[4].waitHolds(t, "n4", "n5", "n6")
}

// TestACertificateThatEndedWhileAsleepIsRenewed gives a node that does not run
// a certificate of long ago.
func TestACertificateThatEndedWhileAsleepIsRenewed(t *testing.T) {
	t.Parallel()
	m := machines(t, 4)
	formedAt(t, time.Now().Add(-3*security.CertificateLife), m) // the first node renews its own at once
	sleeper := m[3]                                             // holds no key of the authority
	id := sleeper.agent.id.node
	sleeper.stop(t)
	ca, err := m[0].agent.signer()
	if err != nil {
		t.Fatal(err)
	}
	ended, err := ca.IssueNode(time.Now().Add(-2*security.CertificateLife), id.ID, id.Key.ed25519())
	if err != nil {
		t.Fatal(err)
	}
	if err := security.WriteCertificate(filepath.Join(sleeper.State, keysDir), ended); err != nil {
		t.Fatal(err)
	}
	sleeper.start(t)
	m[0].waitHolds(t, "n1", "n2", "n3", "n4")
	for end := time.Now().Add(testTimeout); !m[0].agent.streams.Connected(id.ID); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // of several agents, whose views are asked
		if time.Now().After(end) {
			t.Fatal("no stream to the node whose certificate had ended")
		}
	}
	if left := time.Until(sleeper.agent.keys.now().Certificate.Leaf.NotAfter); left < security.CertificateLife-time.Hour {
		t.Errorf("the certificate ends in %v", left)
	}
}

// TestAdmissionNeedsAMajority has one of two members down.
func TestAdmissionNeedsAMajority(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m[:2])
	token := m[0].token(t, client.TokenRequest{})
	m[0].stop(t)
	m[1].waitVerdict(t, "n1", "left", "down", "stalled")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := m[2].join(ctx, m[1], token); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 of 2 members are up") {
		t.Errorf("joined with half of the members: %v", err)
	}
	if _, err := m[1].dial(t).CreateToken(t.Context(), client.TokenRequest{}); !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("token made with half of the members: %v; want ErrRestricted", err)
	}
	m[0].start(t)
	m[1].waitVerdict(t, "n1", "up")
	m[2].mustJoin(t, m[1])
}

// TestAJoinThatWasKilledGoesOn takes away what the steps that did not happen
// would have written, and asks again with the same token.
func TestAJoinThatWasKilledGoesOn(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m[:1])
	token := m[0].token(t, client.TokenRequest{})
	if _, err := m[1].join(t.Context(), m[0], token); err != nil {
		t.Fatal(err)
	}
	at := func(parts ...string) string { return filepath.Join(append([]string{m[1].State}, parts...)...) }
	for step, undo := range []func() error{
		func() error { return os.Remove(at(memberFile)) },
		func() error { return errors.Join(os.Remove(at(memberFile)), os.Rename(at(keysDir), at(joiningDir))) },
	} {
		if err := undo(); err != nil {
			t.Fatal(err)
		}
		joined, err := m[1].join(t.Context(), m[0], token)
		if err != nil || joined.Node.Number != 2 {
			t.Fatalf("killed at step %d: %+v, %v; want node number 2", step, joined.Node, err)
		}
	}
	m[1].start(t)
	m[0].waitHolds(t, "n1", "n2")

	// The putting away of a membership that has ended is carried on as well.
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n2", false); err != nil {
		t.Fatal(err)
	}
	id := m[1].agent.id.node.ID
	m[1].stop(t)
	if err := errors.Join(os.MkdirAll(at(formerDir, id.String()), 0o700), os.Rename(at(memberFile), at(formerDir, id.String(), memberFile))); err != nil {
		t.Fatal(err)
	}
	m[1].mustJoin(t, m[0])
	if again := m[1].agent.id.node.ID; again == id {
		t.Errorf("joined again as %s, which was removed", id)
	}
	if _, err := security.Load(at(formerDir, id.String(), keysDir)); err != nil {
		t.Errorf("the former keys are not put away: %v", err)
	}
}

// TestARemovedNodeIsNotListedAgain restarts a node that was removed while it was
// down, and another that was down as well: those two must not change anything.
func TestARemovedNodeIsNotListedAgain(t *testing.T) {
	t.Parallel()
	m := machines(t, 5)
	formed(t, m)
	m[3].stop(t)
	m[4].stop(t)
	for _, n := range []string{"n4", "n5"} {
		m[0].waitVerdict(t, n, "left", "down", "stalled")
	}
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n4", false); err != nil {
		t.Fatal(err)
	}
	for _, k := range m[:3] {
		k.stop(t)
	}
	m[3].start(t)
	m[4].start(t)
	m[4].waitVerdict(t, "n4", "up") // it has not heard that n4 is none
	for _, k := range m[3:] {
		if _, err := k.dial(t).RemoveNode(t.Context(), "n1", false); !errors.Is(err, belfry.ErrRestricted) {
			t.Errorf("%s removed n1 with two of five: %v; want ErrRestricted", k.Name, err)
		}
	}
	for _, k := range m[:3] {
		k.start(t)
	}
	for _, k := range []*machine{m[0], m[1], m[2], m[4]} {
		k.waitHolds(t, "n1", "n2", "n3", "n5")
	}

	// They tell it that it was removed, and it joins again.
	m[3].waitEnded(t)
	m[3].stop(t)
	m[3].mustJoin(t, m[0])
	m[0].waitHolds(t, "n1", "n2", "n3", "n4", "n5")
}

// TestRemovalByForce removes a member that is gone for good, where the one that
// is left is the smaller half.
func TestRemovalByForce(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	formed(t, m)
	m[0].stop(t)
	m[1].waitVerdict(t, "n1", "left", "down", "stalled")
	c := m[1].dial(t)
	if _, err := c.RemoveNode(t.Context(), "n1", false); !errors.Is(err, belfry.ErrRestricted) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("removed with half of the members: %v; want ErrRestricted that names --force", err)
	}
	removed, err := c.RemoveNodeByForce(t.Context(), "n1")
	if err != nil || removed.GetMembers() != 1 {
		t.Fatalf("removed by force: %v, %v; want one member", removed, err)
	}
	if _, err := c.CreateToken(t.Context(), client.TokenRequest{}); err != nil {
		t.Errorf("the one that is left makes no token: %v", err)
	}
}

func (m *machine) waitVerdict(t *testing.T, node string, verdicts ...string) {
	t.Helper()
	c := m.dial(t)
	defer c.Close()
	for end := time.Now().Add(testTimeout); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // of an agent whose view is asked
		n, err := c.Node(t.Context(), node)
		if err == nil && slices.Contains(verdicts, n.GetNode().GetVerdict()) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s at %s: %v, %v; want one of %v", node, m.Name, n.GetNode().GetVerdict(), err, verdicts)
		}
	}
}

func TestAClientJoinsWithATokenOfItsRole(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	formed(t, m)
	dir := filepath.Join(t.TempDir(), "web")
	token := m[0].token(t, client.TokenRequest{Role: "reader", Name: "web"})
	joined, err := Join(t.Context(), nil, JoinOptions{Token: token, Address: m[1].address(), Identity: dir})
	if err != nil || joined.Client != "web" || joined.Role != "reader" {
		t.Fatalf("%+v, %v", joined, err)
	}
	identity, err := ClientTLS(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), m[1].address(), client.WithTLS(identity))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if nodes, err := c.Nodes(t.Context()); err != nil || len(nodes) != 2 {
		t.Errorf("a reader lists %d nodes, %v", len(nodes), err)
	}
	if _, err := c.RemoveNode(t.Context(), "n1", true); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a reader removes a node: %v; want ErrPermission", err)
	}
	for _, r := range []client.TokenRequest{{Role: "admin", Name: "x"}, {Role: "reader"}, {TTL: time.Second}, {TTL: 48 * time.Hour}, {Name: "A"}, {Role: "king", Name: "x"}} {
		if _, err := m[0].dial(t).CreateToken(t.Context(), r); err == nil {
			t.Errorf("%+v: a token was made", r)
		}
	}
}

// TestAMachineWaitsToBeTold is given no address. Datagrams that are not the
// token's cluster's tell it nothing.
func TestAMachineWaitsToBeTold(t *testing.T) {
	t.Parallel()
	m, strangers := machines(t, 2), machines(t, 1)
	formed(t, m[:1])
	formed(t, strangers)
	at := netip.AddrPortFrom(m[1].Addresses[0].Addr(), m[1].HeartbeatPort)
	waiting := make(chan error, 1)
	text := m[0].token(t, client.TokenRequest{Announce: at.String()})
	token, err := security.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := strangers[0].agent.announcement(strangers[0].agent.members.Table())
	if err != nil {
		t.Fatal(err)
	}
	own, err := m[0].agent.announcement(m[0].agent.members.Table())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := judgeAnnounce(token, own); !ok {
		t.Error("the cluster's own announce is not believed")
	}
	if _, ok := judgeAnnounce(token, foreign); ok {
		t.Error("another cluster's announce is believed")
	}
	if _, ok := judgeAnnounce(token, forgedAnnounce(t, m[0].agent)); ok {
		t.Error("a stranger's announce that shows the cluster's authority is believed")
	}
	for i := range own {
		wrong := slices.Clone(own)
		wrong[i] ^= 0x20
		if _, ok := judgeAnnounce(token, wrong); ok {
			t.Fatalf("byte %d changed: believed", i)
		}
	}
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		defer cancel()
		_, err := Join(ctx, func() (Place, error) { return m[1].Place, nil }, JoinOptions{Token: text})
		waiting <- err
	}()
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	m[1].start(t)
	m[0].waitHolds(t, "n1", "n2")
}

// forgedAnnounce is by somebody who has the authority's certificate, as everybody
// may, and a certificate of an authority of its own.
func forgedAnnounce(t *testing.T, a *Agent) []byte {
	t.Helper()
	table := a.members.Table()
	ca, err := security.NewCA(table.Cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.IssueNode(time.Now(), a.id.node.ID, public)
	if err != nil {
		t.Fatal(err)
	}
	datagram, err := wire.AppendAnnounce(nil, table.Cluster, wire.Announce{
		From: a.id.node.ID, Port: 7432, Certificate: certificate, Authority: table.CA[0],
	}, private)
	if err != nil {
		t.Fatal(err)
	}
	return datagram
}

func TestDoorAddress(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:7432", "10.0.0.1:80": "10.0.0.1:80", "::1": "[::1]:7432", "[::1]:80": "[::1]:80",
		"node1.example": "node1.example:7432", "node1:65535": "node1:65535",
		"10.0.0.1:65536": "", "10.0.0.1:0": "", "10.0.0.1:": "", "10.0.0.1:http": "", ":80": "", "[::1": "", "a b": "", "http://a": "",
	} {
		got, err := doorAddress(given)
		if got != want || (want == "") != errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%q: %q, %v; want %q", given, got, err, want)
		}
	}
}

// TestADoorThatNobodyOpens: nothing was sent, so nothing is unknown.
func TestADoorThatNobodyOpens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	_, err = transport.OpenDoor(t.Context(), address, netip.Addr{}, &tls.Config{VerifyConnection: func(tls.ConnectionState) error { return nil }})
	if !errors.Is(err, belfry.ErrNoAgent) || err.Error() != "no agent: connection refused" {
		t.Errorf("%v; want no agent, with the system's word", err)
	}
}
