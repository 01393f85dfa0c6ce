package witness

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// certainties are the states without doubts, each once in a row.
func certainties(states []belfry.ResourceState) (all []belfry.ResourceState) {
	for _, s := range states {
		if s != belfry.ResourceUnknown && (len(all) == 0 || all[len(all)-1] != s) {
			all = append(all, s)
		}
	}
	return all
}

// TestEachClientIsToldOfEachChangeOnce plays random faults: holders and
// witnesses die, alone and together, and come back; links between them are cut;
// sources change. Each client must learn of each change once, in order, whichever
// witness it is at, and never that something is unavailable that is only not
// heard.
func TestEachClientIsToldOfEachChangeOnce(t *testing.T) { // W3, W5, W7
	t.Parallel()
	for seed := range uint64(150) {
		town := newTown(seed, 3)
		town.run(3 * time.Second)
		for range 12 {
			town.fault()
			town.run(2500*time.Millisecond + town.upTo(1500*time.Millisecond))
		}
		town.heal()
		town.run(8 * time.Second)
		for _, c := range town.clients {
			for _, h := range town.holders {
				states := []belfry.ResourceState{belfry.ResourceAvailable}
				for _, change := range c.told[h.resource] {
					states = append(states, change.Level.State)
				}
				if diff := cmp.Diff(certainties(h.truth), certainties(states)); diff != "" {
					town.fail("%s was told of %s (-happened +told):\n%s", c.key, h.resource, diff)
				}
				if last := c.known[h.resource].State; last != h.truth[len(h.truth)-1] {
					town.fail("%s holds %s for %s; it is %s", c.key, h.resource, last, h.truth[len(h.truth)-1])
				}
			}
		}
		if len(town.errs) > 0 {
			t.Fatalf("seed %d: %s", seed, town.errs[0])
		}
	}
}

// fault does one thing, or two at once.
func (t *town) fault() {
	h := t.holders[t.rng.IntN(len(t.holders))]
	w := t.witnesses[t.rng.IntN(len(t.witnesses))]
	cut := slices.ContainsFunc(t.witnesses, func(w *townWitness) bool { return w.alive && w.cut[h] })
	switch t.rng.IntN(7) {
	case 0:
		if h.alive && !cut {
			t.change(h)
		}
	case 1:
		t.turnHolder(h, cut)
	case 2:
		t.turnWitness(w)
	case 3:
		t.turnWitness(w)
		t.turnHolder(h, cut)
	case 4:
		if h.alive && w.alive {
			t.setCut(w, h, !w.cut[h])
		}
	case 5:
		t.turnWitness(w)
		if h.alive && !cut {
			t.change(h)
		}
	case 6:
		t.turnWitness(w)
		t.turnWitness(t.witnesses[t.rng.IntN(len(t.witnesses))])
	}
}

func (t *town) turnHolder(h *townHolder, cut bool) {
	if !h.alive {
		t.startHolder(h)
	} else if !cut { // who is cut off already learns of the death later than of the return
		t.killHolder(h)
	}
}

// turnWitness leaves one alive: what comes and goes while nobody looks, nobody
// can tell.
func (t *town) turnWitness(w *townWitness) {
	if w.alive {
		others := slices.ContainsFunc(t.witnesses, func(o *townWitness) bool { return o.alive && o != w })
		if others {
			t.killWitness(w)
		}
	} else {
		t.startWitness(w)
	}
}

func (t *town) heal() {
	for _, w := range t.witnesses {
		if !w.alive {
			t.startWitness(w)
		}
		for _, h := range t.holders {
			if w.cut[h] {
				t.setCut(w, h, false)
			}
		}
	}
	for _, h := range t.holders {
		if !h.alive {
			t.startHolder(h)
		}
	}
}

// TestI3CountsAddUp: while nobody is in doubt of a holder, the changes that a
// client was told of add up to those that there were since it registered, also
// when its witness dies and when it does not read for a while.
func TestI3CountsAddUp(t *testing.T) { // W7
	t.Parallel()
	for seed := range uint64(150) {
		town := newTown(seed, 3)
		town.run(3 * time.Second)
		before := len(town.holders[0].truth)
		for range 40 {
			switch n := town.rng.IntN(8); {
			case n < 5:
				town.change(town.holders[0])
			case n < 6:
				w := town.witnesses[town.rng.IntN(3)]
				town.turnWitness(w)
			default:
				if c := town.clients[town.rng.IntN(3)]; !c.stalled {
					c.stall(town.upTo(3 * time.Second))
				}
			}
			town.run(town.upTo(400 * time.Millisecond))
		}
		town.heal()
		town.run(8 * time.Second)
		h := town.holders[0]
		for _, c := range town.clients {
			var sum uint64
			for _, change := range c.told[h.resource] {
				sum += change.Count
			}
			if want := uint64(len(h.truth) - before); sum != want {
				town.fail("%s was told of %d changes, there were %d", c.key, sum, want)
			}
			if got := c.known[h.resource].State; got != h.source { // I6
				town.fail("%s holds it for %s, it is %s", c.key, got, h.source)
			}
		}
		if len(town.errs) > 0 {
			t.Fatalf("seed %d: %s", seed, town.errs[0])
		}
	}
}

// TestI7SameInputsSameBytes plays one schedule twice.
func TestI7SameInputsSameBytes(t *testing.T) {
	t.Parallel()
	play := func() (text string) {
		town := newTown(5, 4)
		for range 10 {
			town.run(2 * time.Second)
			town.fault()
		}
		for _, c := range town.clients {
			for _, name := range c.names {
				text += fmt.Sprintf("%s %s %+v\n", c.key, name, c.told[name])
			}
		}
		return text
	}
	if diff := cmp.Diff(play(), play()); diff != "" {
		t.Errorf("the second run differs (-first +second):\n%s", diff)
	}
}

// TestARegistrationOnTheSameConnectionTakesLittleMemory holds witness.md 11: a
// further one takes at most 2 KiB, with a call that waits and with two changes
// that were not read.
func TestARegistrationOnTheSameConnectionTakesLittleMemory(t *testing.T) { // not parallel: it measures the heap
	const registrations, most = 10_000, 2 << 10
	cfg := Default()
	cfg.Node, cfg.Name, cfg.Incarnation = scriptNode("a"), "a", 1
	m := New(cfg, scriptStart, nil)
	m.Receive(scriptStart, Members{[]Member{scriptMember("a"), scriptMember("b")}})
	m.Receive(scriptStart, Verdict{Node: scriptNode("b"), Verdict: belfry.VerdictUp, Incarnation: 1})
	owner := Owner{Protocol: "native", Connection: 1, Principal: "uid 1000"}
	before := heapSize()
	for i := range registrations {
		k := Key{0: byte(i), 1: byte(i >> 8), 2: 1}
		m.Receive(scriptStart, Register{Call: CallID(2*i + 1), Owner: owner, Key: k, Resources: []belfry.Resource{"node/b"}})
		if i%2 == 0 {
			m.Receive(scriptStart, Wait{Call: CallID(2*i + 2), Owner: owner, Key: k})
		}
		m.Take()
	}
	for _, v := range []belfry.Verdict{belfry.VerdictStalled, belfry.VerdictDown} {
		m.Receive(scriptStart, Verdict{Node: scriptNode("b"), Verdict: v, Incarnation: 1})
		m.Take()
	}
	each := (heapSize() - before) / registrations
	t.Logf("%d bytes each; the record is %d, one resource of it %d", each, unsafe.Sizeof(registration{}), unsafe.Sizeof(sub{}))
	if m.Len() != registrations || each > most {
		t.Errorf("%d registrations take %d bytes each, want at most %d", m.Len(), each, most)
	}
	runtime.KeepAlive(m)
}

func heapSize() int {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc)
}
