package cluster

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// largeTable is a warm table of n members.
func largeTable(n int) *Table {
	var rows []Member
	for i := 1; i <= n; i++ {
		rows = append(rows, Member{
			ID: nodeID(belfry.NodeNumber(i)), Number: belfry.NodeNumber(i), Name: fmt.Sprintf("n%d", i), Up: 1,
			Addresses: []Address{{Network: "net1", Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946)}},
		})
	}
	return NewTable(belfry.ClusterID{}, 1, rows)
}

func largeMachine(n belfry.NodeNumber, table *Table) *Machine {
	cfg := testConfig()
	cfg.Self, cfg.Number, cfg.Name = nodeID(n), n, fmt.Sprintf("n%d", n)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m := New(cfg, now, rand.New(rand.NewPCG(1, uint64(n))))
	m.Receive(now, Members{Table: table})
	m.Take()
	return m
}

// A machine keeps what differs from the table, not the table.
func TestAMemberThatIsNotWatchedCostsNothing(t *testing.T) {
	t.Parallel()
	m := largeMachine(5, largeTable(10_000))
	if kept := len(m.byID); kept != 5 {
		t.Errorf("%d members kept, want this node and its 4 peers", kept)
	}
	if got := len(m.Nodes(m.start)); got != 10_000 {
		t.Errorf("%d nodes listed, want 10,000", got)
	}
	for _, n := range m.Nodes(m.start) {
		if n.Verdict != belfry.VerdictUp {
			t.Fatalf("%s %v, want up", n.Name, n.Verdict)
		}
	}
}

// Two machines that agree show the same view; one claim makes one bucket
// differ, and only its claims are sent.
func TestOnlyWhatDiffersIsSent(t *testing.T) {
	t.Parallel()
	table := largeTable(1000)
	a, b := largeMachine(1, table), largeMachine(2, table)
	if a.View() != b.View() {
		t.Fatalf("views %x and %x of machines that agree", a.View(), b.View())
	}
	now := a.start.Add(time.Second)
	subject := b.find(nodeID(700))
	b.conclude(now, subject, belfry.VerdictDown, belfry.CauseSilent, now, 2)
	b.Take()
	if a.View() == b.View() {
		t.Fatal("views are equal although the claims differ")
	}
	from := a.find(nodeID(2))
	var asked *View
	for range 2 {
		a.compareView(now, from, b.View())
	}
	for _, s := range a.Take().Send {
		if v, ok := s.Body.(*View); ok {
			asked = v
		}
	}
	if asked == nil || len(asked.Buckets) != 16 {
		t.Fatalf("asked %+v, want the hashes of 16 buckets", asked)
	}
	b.viewAsked(now, b.find(nodeID(1)), asked)
	claims := 0
	for _, s := range b.Take().Send {
		claims += len(s.Body.(*Claims).Claims)
		a.heardClaims(now, now, from, s.Body.(*Claims).Claims)
	}
	if claims != 64 {
		t.Errorf("%d claims sent, want the 64 of one bucket", claims)
	}
	b.viewAsked(now.Add(viewAnswerEvery-1), b.find(nodeID(1)), asked)
	if again := len(b.Take().Send); again != 0 {
		t.Errorf("the same question at once is answered with %d datagrams, want none", again)
	}
	a.Advance(now.Add(3 * time.Second)) // the subject was asked and is silent
	if a.View() != b.View() {
		t.Errorf("views %x and %x after the answer, want them equal", a.View(), b.View())
	}
}

// A guest is let go when the views agreed twice in a row: once may be chance.
func TestAGuestStaysUntilTheViewsAgreedTwice(t *testing.T) {
	t.Parallel()
	net := warm(1, 8)
	m := net.host("a").m
	p := m.peers[0]
	p.guest, p.viewAgrees = true, 0
	for _, step := range []struct {
		view  uint32
		guest bool
	}{{m.view, true}, {m.view + 1, true}, {m.view, true}, {m.view, false}} {
		if m.compareView(net.now, p, step.view); p.guest != step.guest {
			t.Fatalf("agreed %d times: guest %v, want %v", p.viewAgrees, p.guest, step.guest)
		}
	}
}
