package wire

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// meet lets two endpoints show each other their boots.
func meet(t testing.TB, now time.Time, a, b *Endpoint) {
	t.Helper()
	for _, step := range [][2]*Endpoint{{a, b}, {b, a}, {a, b}, {b, a}} {
		d := seal(t, step[0], now, byte(step[1].number), 1)
		if _, reason := step[1].Open(now, d, nil); reason != Accepted {
			t.Fatal(reason)
		}
	}
	a.Wants()
	b.Wants()
}

// pair makes endpoints a (number 1) and b (2) that send short.
func pair(t testing.TB) (a, b *Endpoint) {
	t.Helper()
	a, b = node(t, 1, 5, 0xa1), node(t, 2, 5, 0xb1)
	meet(t, start, a, b)
	return a, b
}

// sealLong makes a long datagram of a pair that sends short.
func sealLong(t testing.TB, e *Endpoint, to byte, seq uint16) []byte {
	t.Helper()
	p := e.peers[nodeOf(to)]
	proof := p.present.at
	p.present.at = time.Time{}
	d := seal(t, e, start, to, seq)
	p.present.at = proof
	if d[0]>>4 != formLong {
		t.Fatal("not a long datagram")
	}
	return d
}

// stateOf is all that an endpoint knows, but for ciphers, which follow from it.
func stateOf(e *Endpoint) string {
	var b strings.Builder
	fmt.Fprintf(&b, "number %d boot %x epoch %d until %v wants %v\n", e.number, e.boot, e.epochs.current, e.epochs.until, e.wants)
	for _, epoch := range slices.Sorted(maps.Keys(e.epochs.prk)) {
		fmt.Fprintf(&b, "epoch %d %x\n", epoch, e.epochs.prk[epoch])
	}
	show := func(what string, s *session) {
		if s != nil {
			fmt.Fprintf(&b, "  %s %d %x %v %v %v\n", what, s.incarnation, s.boot, s.at, s.long, s.short)
		}
	}
	ids := slices.SortedFunc(maps.Keys(e.peers), belfry.NodeID.Compare)
	for _, id := range ids {
		p := e.peers[id]
		fmt.Fprintf(&b, "%v %d %v %v %v %d %d %v %v\n", id, p.number, p.member, p.pending, p.retired, p.longCounter, p.shortCounter, p.wished, p.wanted)
		show("present", p.present)
		show("candidate", p.candidate)
		show("previous", p.previous)
		for _, s := range p.shelved {
			show("shelved", s)
		}
	}
	return b.String()
}

// Invariant 1 of cluster.md and security.md.
func TestI1UnauthenticatedInputChangesNothing(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	restarted := node(t, 1, 6, 0xa2)
	for _, good := range [][]byte{seal(t, a, start, 2, 9), sealLong(t, a, 2, 9), seal(t, restarted, start, 2, 9)} {
		before := stateOf(b)
		for bit := range len(good) * 8 {
			forged := bytes.Clone(good)
			forged[bit/8] ^= 1 << (bit % 8)
			if got, reason := b.Open(start, forged, nil); reason == Accepted || got != (Opened{}) {
				t.Errorf("form %d, bit %d flipped: %v", good[0]>>4, bit, reason)
			}
		}
		for n := range len(good) {
			if _, reason := b.Open(start, good[:n], nil); reason == Accepted {
				t.Errorf("form %d, cut to %d bytes: accepted", good[0]>>4, n)
			}
		}
		if _, reason := b.Open(start, append(bytes.Clone(good), 0), nil); reason == Accepted {
			t.Errorf("form %d, a byte longer: accepted", good[0]>>4)
		}
		if diff := cmp.Diff(before, stateOf(b)); diff != "" {
			t.Errorf("form %d: forgeries changed the state (-before +after):\n%s", good[0]>>4, diff)
		}
		if _, reason := b.Open(start, good, nil); reason != Accepted {
			t.Errorf("form %d: the genuine one after them: %v", good[0]>>4, reason)
		}
		if cmp.Equal(before, stateOf(b)) {
			t.Error("the genuine one changed nothing either: the test sees no state")
		}
	}
}

// A datagram fails one step after the other, in the order of work.
func TestOrderOfWork(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	good := seal(t, a, start, 2, 9)
	bad := bytes.Repeat([]byte{0xff}, MaxReceive+1)
	bound := RejectSource
	source := func(id belfry.NodeID) Reason {
		if id != a.self {
			t.Errorf("source was asked for %v", id)
		}
		return bound
	}
	for _, step := range []struct {
		want   Reason
		repair func()
	}{
		{RejectLength, func() { bad = bad[:len(good)] }},
		{RejectForm, func() { bad[0] = formAnnounce<<4 | 0x0f }},
		{RejectCluster, func() { bad[1] = good[1] }},
		{RejectNotEnrolled, func() { bad[0] = formShort<<4 | 0x0f }},
		{RejectSender, func() { copy(bad[2:4], good[2:4]) }},
		{RejectEpoch, func() { bad[0] = good[0] }},
		{RejectSource, func() { bound = RejectRate }},
		{RejectRate, func() { bound = Accepted }},
		{RejectBoot, func() { bad[4] = good[4] }},
		{RejectOpen, func() { copy(bad, good) }},
		{Accepted, func() {}},
		{RejectReplay, func() {}},
	} {
		if _, got := b.Open(start, bad, source); got != step.want {
			t.Fatalf("%v, want %v", got, step.want)
		}
		step.repair()
	}
}

func TestAuthenticBodiesAreStillChecked(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		plain string
		want  Reason
	}{
		{"\x07\x00\x00\x00", RejectKind},
		{"\x01\x00\x00\x00", RejectDecode},
		{"", RejectDecode},
	} {
		a, b := pair(t)
		d := sealRaw(t, a, b, []byte(test.plain))
		if got, reason := b.Open(start, d, nil); reason != test.want || got != (Opened{}) {
			t.Errorf("body %q: %v, want %v", test.plain, reason, test.want)
		}
		if _, reason := b.Open(start, d, nil); reason != RejectReplay {
			t.Errorf("body %q again: %v, want replay", test.plain, reason)
		}
	}
}

// sealRaw seals any bytes as a short datagram from one of a pair to the other.
func sealRaw(t testing.TB, from, to *Endpoint, plain []byte) []byte {
	t.Helper()
	p := from.peers[to.self]
	p.shortCounter++
	h := header{
		form: formShort, epoch: byte(from.epochs.current & 15), cluster: from.tag, number: from.number,
		incarnation: byte(from.incarnation), counter: p.shortCounter,
	}
	head := h.append(nil)
	return from.sendKey(p, formShort).Seal(bytes.Clone(head), from.nonceOf(h.counter), plain, head)
}

// Who holds the group secret of another cluster, of another epoch or the
// datagrams of other members gets nowhere.
func TestCrossedDatagramsAreRefused(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	c := node(t, 3, 5, 0xc1)
	meet(t, start, a, c)
	other := func(change func(*Config)) *Endpoint {
		cfg := Config{
			Cluster: clusterOf(0xcc), Self: nodeOf(1), Number: 1, Incarnation: 5, Boot: 0xa1, Epoch: 7,
			Secrets: map[uint32]Secret{7: secretOf(7)},
		}
		change(&cfg)
		e, err := New(cfg, start)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.SetMembers(members(1, 2, 3, 4)); err != nil {
			t.Fatal(err)
		}
		return e
	}
	renumbered := func(d []byte, n byte) []byte {
		d = bytes.Clone(d)
		d[2] = n
		return d
	}
	for _, test := range []struct {
		name string
		at   *Endpoint
		d    []byte
		want Reason
	}{
		{"control", b, seal(t, a, start, 2, 1), Accepted},
		{"meant for another receiver, short", c, seal(t, a, start, 2, 1), RejectOpen},
		{"meant for another receiver, long", c, sealLong(t, a, 2, 1), RejectOpen},
		{"sent back to the sender", a, seal(t, a, start, 2, 1), RejectSender},
		{"sent back under the receiver's number, short", a, renumbered(seal(t, a, start, 2, 1), 2), RejectOpen},
		{"sent back under the receiver's number, long", a, renumbered(sealLong(t, a, 2, 1), 2), RejectOpen},
		{"under another member's number", b, renumbered(sealLong(t, a, 2, 1), 3), RejectOpen},
		{"under no member's number", b, renumbered(sealLong(t, a, 2, 1), 9), RejectSender},
		{"another cluster", b, seal(t, other(func(c *Config) { c.Cluster = clusterOf(0xcd) }), start, 2, 1), RejectCluster},
		{"another secret", b, seal(t, other(func(c *Config) { c.Secrets = map[uint32]Secret{7: secretOf(8)} }), start, 2, 1), RejectOpen},
		{"an epoch to come, not learned", b, seal(t, other(func(c *Config) { c.Epoch, c.Secrets = 8, map[uint32]Secret{8: secretOf(8)} }), start, 2, 1), RejectEpoch},
		{"the epoch 16 before", b, seal(t, other(func(c *Config) {
			c.Epoch, c.Secrets = 7+16, map[uint32]Secret{7 + 16: secretOf(7)}
		}), start, 2, 1), RejectOpen},
		{"another identity under that number", b, seal(t, other(func(c *Config) { c.Self = nodeOf(9) }), start, 2, 1), RejectOpen},
		{"an older incarnation", b, seal(t, other(func(c *Config) { c.Incarnation, c.Boot = 4, 0xa0 }), start, 2, 1), RejectBoot},
	} {
		if _, got := test.at.Open(start, test.d, nil); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// Invariant 3 of security.md: 100,000 replayed datagrams, none accepted, and
// none lost because it came out of order.
func TestNoDatagramIsAcceptedTwice(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	restarted := node(t, 1, 6, 0xa2)
	var sent [][]byte
	for i := range uint16(500) {
		sent = append(sent, seal(t, a, start, 2, i), sealLong(t, a, 2, i))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
	accepted := 0
	for _, d := range sent {
		if _, reason := b.Open(start, d, nil); reason == Accepted {
			accepted++
		}
	}
	if accepted != len(sent) {
		t.Fatalf("%d of %d reordered datagrams were accepted; want all", accepted, len(sent))
	}
	again := map[Reason]int{}
	for i := range 100_000 {
		if i == 50_000 {
			meet(t, start.Add(3*time.Second), restarted, b)
		}
		_, reason := b.Open(start.Add(3*time.Second), sent[rng.IntN(len(sent))], nil)
		again[reason]++
	}
	if again[Accepted] != 0 || again[RejectDuplicate] != 0 || again[RejectReplay]+again[RejectBoot] != 100_000 {
		t.Errorf("replayed datagrams: %v; want replay and boot only", again)
	}
}

// Invariant 3 of security.md, over random starts, resumes, losses and epochs.
func TestI3NoKeyIsUsedTwiceWithOneNonce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		used := map[string]bool{}
		now, boots, epoch := start, belfry.Boot(1), uint32(7)
		incarnations := map[byte]belfry.Incarnation{1: 1, 2: 1}
		nodes := map[byte]*Endpoint{1: node(t, 1, 1, 0xa1), 2: node(t, 2, 1, 0xb1)}
		var kept [][]byte
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			n := rapid.Uint8Range(1, 2).Draw(rt, "node")
			e := nodes[n]
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(rt, "seconds")) * time.Second)
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0:
				incarnations[n]++
				boots++
				nodes[n] = nodeAt(t, now, n, incarnations[n], boots)
				for e := uint32(8); e <= epoch; e++ {
					_, _ = nodes[n].Learn(e, secretOf(e)), nodes[n].Rotate(now, e, Grace)
				}
			case 1:
				boots++
				_ = e.Reboot(boots)
			case 2:
				epoch++
				for _, e := range nodes {
					_, _ = e.Learn(epoch, secretOf(epoch)), e.Rotate(now, epoch, Grace)
				}
			case 3:
				if len(kept) > 0 {
					_, _ = nodes[n].Open(now, rapid.SampledFrom(kept).Draw(rt, "recording"), nil)
				}
			default:
				d, err := e.Seal(now, nil, nodeOf(3-n), &RelayAsk{})
				if err != nil {
					rt.Fatal(err)
				}
				kept = append(kept, d)
				p := e.peers[nodeOf(3-n)]
				key := fmt.Sprint("long of ", n, e.incarnation, e.boot, " epoch ", e.epochs.current, " counter ", p.longCounter)
				if d[0]>>4 == formShort {
					key = fmt.Sprint("short of ", n, e.incarnation, e.boot, " to ", p.present.boot,
						" epoch ", e.epochs.current, " counter ", p.shortCounter)
				}
				if used[key] {
					rt.Fatalf("used twice: %s", key)
				}
				used[key] = true
				if rapid.Bool().Draw(rt, "arrives") {
					_, _ = nodes[3-n].Open(now, d, nil)
				}
			}
		}
	})
}

// Each part of a path makes another key: Y8 and Y9 of security.md.
func TestEachPartOfAPathIsInTheKey(t *testing.T) {
	t.Parallel()
	prk := extract(secretOf(7), clusterOf(0xcc))
	base := path{formShort, 7, nodeOf(1), nodeOf(2), 5, 0xa1, 0xb1}
	sealed := func(p path, prk []byte) string {
		return string(p.key(prk).Seal(nil, make([]byte, 12), make([]byte, 32), nil))
	}
	seen := map[string]string{}
	add := func(name string, p path, prk []byte) {
		if other, ok := seen[sealed(p, prk)]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[sealed(p, prk)] = name
	}
	add("base", base, prk)
	for name, change := range map[string]func(*path){
		"form":          func(p *path) { p.form = formLong },
		"epoch":         func(p *path) { p.epoch = 23 },
		"sender":        func(p *path) { p.sender = nodeOf(3) },
		"receiver":      func(p *path) { p.receiver = nodeOf(3) },
		"both ways":     func(p *path) { p.sender, p.receiver = p.receiver, p.sender },
		"incarnation":   func(p *path) { p.incarnation = 6 },
		"boot":          func(p *path) { p.boot = 0xa2 },
		"receiver boot": func(p *path) { p.receiverBoot = 0xb2 },
	} {
		p := base
		change(&p)
		add(name, p, prk)
	}
	add("secret", base, extract(secretOf(8), clusterOf(0xcc)))
	add("cluster", base, extract(secretOf(7), clusterOf(0xcd)))

	// A long datagram is opened by who does not know its own part in it yet.
	long, longOther := base, base
	long.form, longOther.form, longOther.receiverBoot = formLong, formLong, 0
	if sealed(long, prk) != sealed(longOther, prk) {
		t.Error("the receiver's boot is in the key of the long form")
	}
}

// RFC 5869 2.2 and 2.3, written out: with one block of output, HKDF is two HMACs.
func TestKeyIsHKDF(t *testing.T) {
	t.Parallel()
	mac := func(key []byte, parts ...[]byte) []byte {
		h := hmac.New(sha256.New, key)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	secret, cluster, a, b := secretOf(7), clusterOf(0xcc), nodeOf(1), nodeOf(2)
	prk := mac(cluster[:], secret[:])
	if !bytes.Equal(prk, extract(secret, cluster)) {
		t.Fatal("extract is not HMAC(cluster, secret)")
	}
	key := mac(prk, []byte("belfry datagram v1"), []byte{1, 7, 0, 0, 0}, a[:], b[:],
		[]byte{5, 0, 0, 0, 0xa1, 0, 0, 0, 0xb1, 0, 0, 0}, []byte{1})
	want := gcm(t, key).Seal(nil, make([]byte, 12), []byte("text"), []byte("head"))
	got := path{formShort, 7, a, b, 5, 0xa1, 0xb1}.key(prk).Seal(nil, make([]byte, 12), []byte("text"), []byte("head"))
	if !bytes.Equal(want, got) {
		t.Errorf("sealed %x, want %x", got, want)
	}
}

func TestCounterThatIsUsedUpIsAnError(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.peers[b.self].shortCounter = spentAt - 2
	for i, want := range []bool{false, true, true} {
		if seal(t, a, start, 2, 1); a.Spent() != want {
			t.Errorf("datagram %d from the last million: spent %v, want %v", i, a.Spent(), want)
		}
	}
	a.peers[b.self].shortCounter = max32 - 1
	seal(t, a, start, 2, 1)
	_, err := a.Seal(start, nil, b.self, &Heartbeat{})
	if !errors.Is(err, belfry.ErrLimit) || !strings.Contains(err.Error(), "draw a new boot") {
		t.Errorf("after 2^32-1 datagrams: %v; want ErrLimit", err)
	}
	if err := a.Reboot(0xa2); err != nil || a.Spent() {
		t.Fatalf("%v; spent %v", err, a.Spent())
	}
	if got, reason := b.Open(start, seal(t, a, start, 2, 1), nil); reason != Accepted || got.Boot != 0xa2 {
		t.Errorf("after the new boot: %v from boot %x; want accepted from a2", reason, got.Boot)
	}
}

func TestSealRefusesAndLeavesTheBuffer(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	counter := a.peers[b.self].shortCounter
	for _, test := range []struct {
		name string
		to   belfry.NodeID
		body Body
		is   error
	}{
		{"no member", nodeOf(9), &Heartbeat{}, belfry.ErrNotMember},
		{"itself", a.self, &Heartbeat{}, belfry.ErrNotMember},
		{"bad body", b.self, &Heartbeat{Link: 16}, belfry.ErrUsage},
		{"long body", b.self, &Notice{Data: make([]byte, MaxNotice+1)}, belfry.ErrLimit},
	} {
		got, err := a.Seal(start, []byte("before"), test.to, test.body)
		if !errors.Is(err, test.is) || string(got) != "before" {
			t.Errorf("%s: %q, %v; want %v", test.name, got, err, test.is)
		}
	}
	if got := a.peers[b.self].shortCounter; got != counter {
		t.Errorf("refusals used %d counters", got-counter)
	}
	d, err := a.Seal(start, []byte("before"), b.self, &Heartbeat{Seq: 4})
	if err != nil || string(d[:6]) != "before" || len(d) != 6+44 {
		t.Fatalf("%d bytes, %v; want 44 behind what was there", len(d), err)
	}
	if got, reason := b.Open(start, d[6:], nil); reason != Accepted || got.Body.(*Heartbeat).Seq != 4 {
		t.Errorf("%v", reason)
	}
	if d, err := a.Seal(start, nil, b.self, &Notice{Data: make([]byte, MaxNotice)}); err != nil || len(d) > MaxSize {
		t.Errorf("largest notice: %d bytes, %v; at most %d", len(d), err, MaxSize)
	}
}

// A flood must not make the collector work (security.md, Goals).
func TestForgeriesAllocateNothing(t *testing.T) {
	a, b := pair(t)
	short, long := seal(t, a, start, 2, 1), sealLong(t, a, 2, 1)
	short[20] ^= 1
	long[30] ^= 1
	for name, d := range map[string][]byte{"short": short, "long": long} {
		if n := testing.AllocsPerRun(100, func() {
			if _, reason := b.Open(start, d, nil); reason != RejectOpen {
				t.Fatal(reason)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations for each, want none", name, n)
		}
	}
}
