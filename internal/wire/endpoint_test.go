package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

func TestConfigNamesAllThatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Epoch: 7, Secrets: map[uint32]Secret{6: secretOf(6)}}, start)
	if !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("%v does not wrap ErrUsage", err)
	}
	for _, want := range []string{"cluster id", "node id", "node number 0", "incarnation 0", "boot 0", "no secret of epoch 7"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nis silent about %q", err, want)
		}
	}
	good := Config{
		Cluster: clusterOf(1), Self: nodeOf(1), Number: 1, Incarnation: 1, Boot: 1, Epoch: 7,
		Secrets: map[uint32]Secret{7: secretOf(7), 9: secretOf(9)},
	}
	if _, err := New(good, start); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "secret of epoch 9") {
		t.Errorf("secret of an epoch far away: %v; want ErrUsage", err)
	}
}

// Y10: with the secret gone nothing can open an epoch two behind.
func TestOldSecretsAreForgotten(t *testing.T) {
	t.Parallel()
	e := node(t, 1, 5, 0xa1)
	for epoch := uint32(8); epoch <= 9; epoch++ {
		if err := errors.Join(e.Learn(epoch, secretOf(epoch)), e.Rotate(start, epoch, Grace)); err != nil {
			t.Fatal(err)
		}
	}
	if got := slices.Sorted(maps.Keys(e.epochs.prk)); !slices.Equal(got, []uint32{8, 9}) {
		t.Errorf("in epoch 9 the secrets of epochs %v are kept, want 8 and 9", got)
	}
}

func TestSetMembersRefusesWhatIsTwice(t *testing.T) {
	t.Parallel()
	e := node(t, 1, 5, 0xa1)
	before := stateOf(e)
	for _, table := range [][]Member{
		{{ID: nodeOf(2), Number: 2}, {ID: nodeOf(2), Number: 3}},
		{{ID: nodeOf(2), Number: 2}, {ID: nodeOf(3), Number: 2}},
		{{ID: nodeOf(2)}},
		{{Number: 2}},
	} {
		if err := e.SetMembers(table); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%v: %v; want ErrUsage", table, err)
		}
	}
	if diff := cmp.Diff(before, stateOf(e)); diff != "" {
		t.Errorf("refused tables changed the state (-before +after):\n%s", diff)
	}
}

// Numbers may be granted anew: keys come from node ids.
func TestNumbersMayBeExchanged(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	table := []Member{{ID: nodeOf(1), Number: 2}, {ID: nodeOf(2), Number: 1}}
	for _, e := range []*Endpoint{a, b} {
		if err := e.SetMembers(table); err != nil {
			t.Fatal(err)
		}
	}
	d, err := a.Seal(start, nil, b.self, &Heartbeat{})
	if err != nil {
		t.Fatal(err)
	}
	if got, reason := b.Open(start, d, nil); reason != Accepted || got.From != a.self || got.Number != 2 {
		t.Errorf("%v from %v, number %d; want accepted from a, number 2", reason, got.From, got.Number)
	}
}

func TestReasonsHaveNames(t *testing.T) {
	t.Parallel()
	var got []string
	for _, r := range Reasons() {
		got = append(got, r.String())
	}
	const want = "length form cluster not_enrolled sender epoch source rate open replay boot duplicate kind decode"
	if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := Reason(99).String(); got != "unknown-99" {
		t.Errorf("reason 99 is %q", got)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	cfg := Config{Secrets: map[uint32]Secret{7: {0xab, 0xab, 0xab}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d"} {
		if text := fmt.Sprintf(verb, cfg); strings.Contains(text, "abab") || strings.Contains(text, "171") || strings.Contains(text, "0xab") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func gcm(t *testing.T, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithTagSize(block, 12)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// A node that resumes snapshots without end, or whoever has its keys, does not
// fill this node's memory: after enough boots it must start anew.
func TestBootsOfOneIncarnationAreCounted(t *testing.T) {
	t.Parallel()
	a, b := node(t, 1, 5, 0xa1), node(t, 2, 5, 1)
	if _, reason := b.Open(start, seal(t, a, start, 2, 1), nil); reason != Accepted {
		t.Fatalf("b drops the datagram of a: %v", reason)
	}
	now := start
	resume := func(e *Endpoint, boot belfry.Boot) Reason {
		now = now.Add(time.Minute)
		if err := e.Reboot(boot); err != nil {
			t.Fatal(err)
		}
		_, reason := a.Open(now, seal(t, e, now, 1, 1), nil)
		return reason
	}
	for boot := range belfry.Boot(1024 + 1) { // each replaces the one before
		if reason := resume(b, boot+2); reason != Accepted {
			t.Fatalf("resume %d: %v, want it accepted", boot+1, reason)
		}
	}
	if reason := resume(b, 9999); reason != RejectBoot {
		t.Errorf("one resume more: %v, want %v", reason, RejectBoot)
	}
	if got := len(a.peers[nodeOf(2)].retired); got != 1024 {
		t.Errorf("%d boots are kept, want 1024", got)
	}
	again := node(t, 2, 6, 7)
	if _, reason := a.Open(now, seal(t, again, now, 1, 1), nil); reason != Accepted {
		t.Errorf("a new incarnation: %v, want it accepted", reason)
	}
}

// TestAdoptLeavesNothingOfOtherSecrets goes to an epoch far away, and back to
// the same number with another secret, as two halves of a cluster may have made.
func TestAdoptLeavesNothingOfOtherSecrets(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	before := seal(t, a, start, 2, 1)
	for _, step := range []struct {
		epoch  uint32
		secret Secret
	}{{40, secretOf(40)}, {7, secretOf(99)}} {
		a.Adopt(step.epoch, step.secret)
		d := seal(t, a, start, 2, 2)
		if _, reason := b.Open(start, d, nil); reason == Accepted {
			t.Fatalf("epoch %d: taken by a node that does not have the secret", step.epoch)
		}
		b.Adopt(step.epoch, step.secret)
		if _, reason := b.Open(start, d, nil); reason != Accepted {
			t.Fatalf("epoch %d: %v", step.epoch, reason)
		}
		if _, reason := b.Open(start, d, nil); reason != RejectReplay {
			t.Fatalf("epoch %d, the same again: %v", step.epoch, reason)
		}
		if _, reason := b.Open(start, before, nil); reason == Accepted {
			t.Fatalf("epoch %d: what was sealed before is still taken", step.epoch)
		}
	}
}

// TestAdoptRepeatsNoNonce returns to a secret that was in use: the counters go
// on where they were.
func TestAdoptRepeatsNoNonce(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	last := a.peers[nodeOf(2)].shortCounter + a.peers[nodeOf(2)].longCounter
	a.Adopt(8, secretOf(8))
	a.Adopt(7, secretOf(7))
	seal(t, a, start, 2, 1)
	if now := a.peers[nodeOf(2)].shortCounter + a.peers[nodeOf(2)].longCounter; now != last+1 {
		t.Fatalf("counters sum to %d after %d and one datagram", now, last)
	}
}
