package wire

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// A recording is one genuine datagram as somebody on the path kept it.
type recording struct {
	to   byte
	data []byte
}

// A tape is a cluster of three whose every datagram is recorded.
type tape struct {
	t     *testing.T
	now   time.Time
	nodes [4]*Endpoint // by number; 0 is nobody
	kept  []recording
}

// talk sends n datagrams in each direction between all, long ones among them,
// and delivers them in another order. All must be accepted.
func (tp *tape) talk(rng *rand.Rand, n int) {
	tp.t.Helper()
	first := len(tp.kept)
	for i := range n {
		for from := byte(1); from <= 3; from++ {
			for to := byte(1); to <= 3; to++ {
				if from == to {
					continue
				}
				d := seal(tp.t, tp.nodes[from], tp.now, to, uint16(i))
				if p := tp.nodes[from].peers[nodeOf(to)]; i%3 == 0 && p.sendsShort(tp.now) {
					d = sealLong(tp.t, tp.nodes[from], to, uint16(i))
				}
				tp.kept = append(tp.kept, recording{to, d})
			}
		}
	}
	fresh := tp.kept[first:]
	rng.Shuffle(len(fresh), func(i, j int) { fresh[i], fresh[j] = fresh[j], fresh[i] })
	for _, r := range fresh {
		if _, reason := tp.nodes[r.to].Open(tp.now, r.data, nil); reason != Accepted {
			tp.t.Fatalf("a genuine datagram to node %d, reordered: %v", r.to, reason)
		}
	}
}

// meet makes two nodes know each other's boots, on tape.
func (tp *tape) meet(a, b byte) {
	tp.t.Helper()
	for _, way := range [][2]byte{{a, b}, {b, a}, {a, b}, {b, a}} {
		d := seal(tp.t, tp.nodes[way[0]], tp.now, way[1], 1)
		tp.kept = append(tp.kept, recording{way[1], d})
		if _, reason := tp.nodes[way[1]].Open(tp.now, d, nil); reason != Accepted {
			tp.t.Fatal(reason)
		}
	}
}

func (tp *tape) meetAll() {
	tp.t.Helper()
	tp.meet(1, 2)
	tp.meet(1, 3)
	tp.meet(2, 3)
}

func (tp *tape) rotate(epoch uint32) {
	tp.t.Helper()
	for _, e := range tp.nodes[1:] {
		if err := e.Learn(epoch, secretOf(epoch)); err != nil {
			tp.t.Fatal(err)
		}
		if err := e.Rotate(tp.now, epoch, Grace); err != nil {
			tp.t.Fatal(err)
		}
	}
}

// Goal of security.md and cluster.md 14: of 1,000,000 datagrams that are
// replayed, reordered, sent to another receiver, under another sender's number,
// in another epoch or of an old boot, none is accepted; and what is genuine
// among them always is.
func TestI3NothingRecordedIsAcceptedAgain(t *testing.T) {
	t.Parallel()
	const draws, seed = 1_000_000, 7
	rng := rand.New(rand.NewPCG(seed, seed))

	tp := &tape{t: t, now: start}
	for n := byte(1); n <= 3; n++ {
		tp.nodes[n] = node(t, n, 5, 0xa0+belfry.Boot(n))
	}
	tp.meetAll()
	tp.talk(rng, 100) // epoch 7, which is two behind when the replays begin
	tp.rotate(8)
	tp.talk(rng, 100)
	if err := tp.nodes[1].Reboot(0xb1); err != nil { // an old boot of the present incarnation
		t.Fatal(err)
	}
	tp.meetAll()
	tp.talk(rng, 100)
	before := slices.Clone(tp.kept)
	// What was sent to the node that starts anew is for the end of this test.
	tp.kept = slices.DeleteFunc(tp.kept, func(r recording) bool { return r.to == 1 })
	tp.nodes[1] = nodeAt(t, tp.now, 1, 6, 0xc1) // an old incarnation
	tp.rotateOne(1, 8)
	tp.meetAll()
	tp.talk(rng, 100)
	tp.rotate(9)
	tp.talk(rng, 100)
	var late []recording // of the boot that was replaced last, and new to all
	for _, boot := range []belfry.Boot{0xc2, 0xc3, 0xc4} {
		late = nil
		for range 100 {
			late = append(late, recording{2, seal(t, tp.nodes[1], tp.now, 2, 1)})
		}
		if err := tp.nodes[1].Reboot(boot); err != nil {
			t.Fatal(err)
		}
		tp.meetAll()
		tp.talk(rng, 100)
	}
	tp.kept = append(tp.kept, late...)
	tp.now = tp.now.Add(3 * time.Second)

	accepted, reasons := 0, map[Reason]int{}
	for i := range draws {
		r := tp.kept[rng.IntN(len(tp.kept))]
		d, to := r.data, r.to
		switch rng.IntN(4) {
		case 0: // another receiver, who may be the sender
			to = 1 + byte(rng.IntN(3))
		case 1: // another sender
			d = bytes.Clone(d)
			d[2] = 1 + byte(rng.IntN(4))
			if bytes.Equal(d, r.data) {
				d[2] = 4
			}
		case 2: // another epoch
			d = bytes.Clone(d)
			d[0] = d[0]&0xf0 | byte(7+rng.IntN(4))
		}
		_, reason := tp.nodes[to].Open(tp.now, d, nil)
		if reasons[reason]++; reason == Accepted {
			accepted++
		}
		if i%1000 == 0 {
			tp.meet(1, 2) // appends to what is recorded
			tp.meet(3, 2)
		}
	}
	t.Logf("seed %d, of %d dropped: %v", seed, draws, reasons)
	if accepted != 0 {
		t.Errorf("%d of %d datagrams were accepted; want none", accepted, draws)
	}
	for _, want := range []Reason{RejectSender, RejectEpoch, RejectOpen, RejectReplay, RejectBoot, RejectDuplicate} {
		if reasons[want] == 0 {
			t.Errorf("none was dropped for %v: the test does not reach that step", want)
		}
	}

	// A receiver that starts anew has no windows. What it takes then it takes
	// once, and nothing of it is proof.
	for n := byte(1); n <= 3; n++ {
		tp.nodes[n] = nodeAt(t, tp.now, n, 9, 0xd0+belfry.Boot(n))
		tp.rotateOne(n, 8)
		tp.rotateOne(n, 9)
	}
	taken := map[string]bool{}
	for range 2 {
		for _, r := range slices.Concat(before, tp.kept) {
			got, reason := tp.nodes[r.to].Open(tp.now, r.data, nil)
			if got.Proven || reason == Accepted && taken[string(r.data)] {
				t.Fatalf("after a restart: %v, proven %v; want each taken at most once, and unproven", reason, got.Proven)
			}
			taken[string(r.data)] = taken[string(r.data)] || reason == Accepted
		}
	}
}

func (tp *tape) rotateOne(n byte, epoch uint32) {
	tp.t.Helper()
	if err := tp.nodes[n].Learn(epoch, secretOf(epoch)); err != nil {
		tp.t.Fatal(err)
	}
	if err := tp.nodes[n].Rotate(tp.now, epoch, Grace); err != nil {
		tp.t.Fatal(err)
	}
}

// Each class of datagram that must change nothing, with the counter it falls
// under and the state before and after. Invariant 1 of cluster.md and
// security.md.
func TestI1EachDropHasItsReasonAndChangesNothing(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	accepted := seal(t, a, start, 2, 1)
	if _, reason := b.Open(start, accepted, nil); reason != Accepted {
		t.Fatal(reason)
	}
	acceptedLong := sealLong(t, a, 2, 1)
	if _, reason := b.Open(start, acceptedLong, nil); reason != Accepted {
		t.Fatal(reason)
	}
	good, long := seal(t, a, start, 2, 1), sealLong(t, a, 2, 1)
	future := seal(t, node(t, 1, 6, 0xa2), start, 2, 1)
	past := seal(t, node(t, 1, 4, 0xa0), start, 2, 1)
	change := func(d []byte, at int, to byte) []byte {
		d = bytes.Clone(d)
		d[at] = to
		return d
	}
	forged := func(d []byte) []byte { return change(d, len(d)-1, d[len(d)-1]^1) }
	now := start.Add(time.Second) // so that no wish of before holds one back
	for _, c := range []struct {
		name string
		d    []byte
		want Reason
	}{
		{"empty", nil, RejectLength},
		{"truncated, short form", good[:shortSize+tagSize-1], RejectLength},
		{"truncated, long form", long[:longSize+tagSize-1], RejectLength},
		{"over 1,400 bytes", append(bytes.Clone(good), make([]byte, MaxReceive+1-len(good))...), RejectLength},
		{"unknown form", change(good, 0, 0x47), RejectForm},
		{"long form whose halves differ", change(long, 8, long[8]^1), RejectForm},
		{"long form without a boot", append(append(bytes.Clone(long[:12]), 0, 0, 0, 0), long[16:]...), RejectForm},
		{"another cluster", change(good, 1, good[1]^1), RejectCluster},
		{"an announce", change(good, 0, formAnnounce<<4), RejectNotEnrolled},
		{"no member's number", change(good, 2, 9), RejectSender},
		{"an epoch that is not open", change(good, 0, formShort<<4|9), RejectEpoch},
		{"cut in the body", good[:len(good)-1], RejectOpen},
		{"longer than sealed, within 1,400 bytes", append(bytes.Clone(good), make([]byte, MaxReceive-len(good))...), RejectOpen},
		{"forged, short form", forged(good), RejectOpen},
		{"forged, long form", forged(long), RejectOpen},
		{"forged, future incarnation", forged(future), RejectOpen},
		{"future incarnation in short form", change(good, 4, good[4]+1), RejectBoot},
		{"past incarnation", past, RejectBoot},
		{"replayed, short form", accepted, RejectReplay},
		{"replayed, long form", acceptedLong, RejectReplay},
	} {
		before := stateOf(b)
		got, reason := b.Open(now, c.d, nil)
		if reason != c.want || got != (Opened{}) {
			t.Errorf("%s: %v, %+v; want %v and nothing", c.name, reason, got, c.want)
		}
		if diff := cmp.Diff(before, stateOf(b)); diff != "" {
			t.Errorf("%s changed the state (-before +after):\n%s", c.name, diff)
		}
		if wants := b.Wants(); len(wants) != 0 {
			t.Errorf("%s makes this node send to %v", c.name, wants)
		}
	}
	for name, d := range map[string][]byte{"short": good, "long": long} {
		if _, reason := b.Open(start, d, nil); reason != Accepted {
			t.Errorf("the genuine one, %s form: %v; what was tried before it spoiled it", name, reason)
		}
	}
}
