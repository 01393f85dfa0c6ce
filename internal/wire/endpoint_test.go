package wire

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// start is the time at which all tests begin.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clusterOf, nodeOf and secretOf make identifiers that read well in a dump.
func clusterOf(b byte) (id belfry.ClusterID) {
	for i := range id {
		id[i] = b
	}
	return id
}

func nodeOf(b byte) (id belfry.NodeID) {
	for i := range id {
		id[i] = b
	}
	return id
}

func secretOf(epoch uint32) (s Secret) {
	for i := range s {
		s[i] = byte(epoch) + byte(i)
	}
	return s
}

// node makes an endpoint of node number n with members 1 to 4.
func node(t testing.TB, n byte, incarnation belfry.Incarnation, boot belfry.Boot) *Endpoint {
	t.Helper()
	return nodeAt(t, start, n, incarnation, boot)
}

func nodeAt(t testing.TB, now time.Time, n byte, incarnation belfry.Incarnation, boot belfry.Boot) *Endpoint {
	t.Helper()
	e, err := New(Config{
		Cluster: clusterOf(0xcc), Self: nodeOf(n), Number: belfry.NodeNumber(n),
		Incarnation: incarnation, Boot: boot, Epoch: 7,
		Secrets: map[uint32]Secret{7: secretOf(7)},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.SetMembers(members(1, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	return e
}

func members(numbers ...byte) (all []Member) {
	for _, n := range numbers {
		all = append(all, Member{ID: nodeOf(n), Number: belfry.NodeNumber(n)})
	}
	return all
}

// seal makes one heartbeat with the given sequence number.
func seal(t testing.TB, e *Endpoint, now time.Time, to byte, seq uint16) []byte {
	t.Helper()
	d, err := e.Seal(now, nil, nodeOf(to), &Heartbeat{Seq: seq})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pair makes two endpoints that have shown each other their boots.
func pair(t testing.TB) (a, b *Endpoint) {
	t.Helper()
	a, b = node(t, 1, 5, 0xa1), node(t, 2, 5, 0xb1)
	meet(t, start, a, b)
	return a, b
}

// meet lets a speak first and wants both in short form after three datagrams.
func meet(t testing.TB, now time.Time, a, b *Endpoint) {
	t.Helper()
	for i, step := range []struct {
		from, to     *Endpoint
		form, proven any
	}{
		{a, b, byte(formLong), false},
		{b, a, byte(formLong), true},
		{a, b, byte(formShort), true},
		{b, a, byte(formShort), true},
	} {
		d := seal(t, step.from, now, byte(step.to.number), uint16(i))
		if form := d[0] >> 4; form != step.form {
			t.Fatalf("datagram %d has form %d, want %d", i+1, form, step.form)
		}
		got, reason := step.to.Open(now, d, nil)
		if reason != Accepted || got.Proven != step.proven {
			t.Fatalf("datagram %d: %v, proven %v; want accepted, proven %v", i+1, reason, got.Proven, step.proven)
		}
	}
}

func TestTwoNodesMeetInThreeDatagrams(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if w := b.Wants(); len(w) != 1 || w[0] != a.self {
		t.Errorf("b wants to show its boot to %v, want a only", w)
	}
	if w := a.Wants(); len(w) != 0 {
		t.Errorf("a wants to show its boot to %v, want nobody", w)
	}
}

func TestRestartedPeerIsBackInThreeDatagrams(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		first func(survivor, restarted *Endpoint) (a, b *Endpoint)
	}{
		{"the restarted one speaks first", func(s, r *Endpoint) (*Endpoint, *Endpoint) { return r, s }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			survivor, old := pair(t)
			late := seal(t, old, start, 1, 9)
			restarted := node(t, 2, 6, 0xb2)
			a, b := test.first(survivor, restarted)
			meet(t, start.Add(time.Second), a, b)
			if _, reason := survivor.Open(start.Add(time.Second), late, nil); reason != RejectBoot {
				t.Errorf("short datagram of the old start: %v, want boot", reason)
			}
		})
	}
}

func TestSurvivorSpeakingFirstIsHeardOnceTheRestartedOneSpoke(t *testing.T) {
	t.Parallel()
	survivor, _ := pair(t)
	restarted := node(t, 2, 6, 0xb2)
	if _, reason := restarted.Open(start, seal(t, survivor, start, 2, 1), nil); reason != RejectBoot {
		t.Fatalf("short datagram to one that knows no boot: %v, want boot", reason)
	}
	if len(restarted.Wants()) != 0 {
		t.Fatal("what does not authenticate made it send")
	}
	meet(t, start, restarted, survivor)
}

func TestCounterOfTheShortFormIsRestored(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	pa := a.peers[b.self]
	for _, counter := range []uint32{1<<23 - 1, 1<<24 - 1, 1 << 24, 1<<24 + 1, 3 << 23, 1<<25 - 7, 1 << 25} {
		pa.shortCounter = counter - 1
		d := seal(t, a, start, 2, 1)
		if _, reason := b.Open(start, d, nil); reason != Accepted {
			t.Fatalf("counter %#x: %v, want accepted", counter, reason)
		}
		if got := b.peers[a.self].present.short.highest; got != counter {
			t.Fatalf("counter %#x was restored as %#x", counter, got)
		}
		if low := binary.LittleEndian.Uint32(append(d[5:8:8], 0)); low != counter&max24 {
			t.Fatalf("low bits %#x of counter %#x", low, counter)
		}
	}
}
