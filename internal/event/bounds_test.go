package event

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// found makes the entries of two subjects that a pattern has found.
func found(m *Machine, subjects ...string) (list []EntryID) {
	w := m.Take().Watch[0].ID
	for i, s := range subjects {
		m.Receive(scriptStart, Found{Watch: w, Subject: s})
		for _, w := range m.Take().Watch {
			m.Receive(scriptStart, Associate{Entry: w.Entry, Instance: itoa(i), State: &belfry.Occurrence{Edge: belfry.EdgeRecovered}})
			list = append(list, w.Entry)
		}
	}
	return list
}

func TestStatesBehindAGapAreAsManyAsEvents(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "node.state", Limit: 1, Snapshot: true}})
	entries := found(m, "x", "y")
	for i := range 1000 {
		for j, e := range entries {
			m.Receive(scriptStart, Post{Entry: e, Occurrence: belfry.Occurrence{Code: int32(i), Event: belfry.EventID{Instance: itoa(j)}}})
		}
	}
	if got := len(m.consumers[1].registration(1).queue.behind); got > 2 {
		t.Errorf("two events: want at most 2 behind, got %d", got)
	}
}

func TestAnEndThatFellIntoTheGapKeepsItsCount(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "file.modify", Subject: "/*", Limit: 1, Filter: "code==1"}})
	e := found(m, "/x", "/y")
	m.Receive(scriptStart, Post{Entry: e[0], Repeat: 7, Occurrence: belfry.Occurrence{Code: 2, Event: belfry.EventID{Instance: "0"}}})
	m.Receive(scriptStart, End{Entry: e[0]})
	m.Receive(scriptStart, Post{Entry: e[1], Occurrence: belfry.Occurrence{Code: 1, Event: belfry.EventID{Instance: "1"}}})
	m.Receive(scriptStart, Ready{Consumer: 1})
	sum, gaps := uint64(0), 0
	for _, n := range m.Take().Batches[0].Notifications {
		sum += n.Count + n.Skipped
		if n.Kind == belfry.KindGap {
			gaps++
		}
	}
	if sum != 8 || gaps != 1 {
		t.Errorf("want a gap and 8 accounted for, got %d gaps and %d", gaps, sum)
	}
}

// TestWhatAForgottenEventSkippedIsTold: an event that only Send made goes
// without a word, unless its count would be lost.
func TestWhatAForgottenEventSkippedIsTold(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "user.job", Filter: "code==1"}})
	for i := range maxFound + 1 {
		m.Receive(scriptStart, Send{Events: []Named{{Class: "user.job", Subject: itoa(i)}}})
	}
	m.Receive(scriptStart, Ready{Consumer: 1})
	for _, b := range m.Take().Batches {
		if n := b.Notifications; len(n) == 1 && n[0].Kind == belfry.KindEnded && n[0].Skipped == 1 {
			return
		}
	}
	t.Error("want the end of the oldest with 1 skipped")
}

func TestARegistrationThatLeftIsNotKeptByItsEvent(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	spec := belfry.Registration{Class: "process.exit", Subject: "exe=/x", Wait: true}
	for i := range 100 {
		now := scriptStart.Add(time.Duration(i) * time.Minute)
		c := ConsumerID(i + 1)
		m.Receive(now, Open{Consumer: c})
		m.Receive(now, Register{Request: RequestID(c), Consumer: c, Number: 1, Registration: spec})
		if i > 0 { // the first one stays
			m.Receive(now, Close{Consumer: c})
		}
		m.Take()
	}
	for _, e := range m.entries.All() {
		if len(e.starting) != 1 {
			t.Errorf("starting: want 1, got %d", len(e.starting))
		}
	}
}

func TestClassesThatUsersMakeUpShareACountInTheEnd(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "user.*"}})
	const more = 500
	for i := range maxTallies + more {
		m.Receive(scriptStart, Send{Events: []Named{{Class: belfry.Class("user.n" + itoa(i)), Subject: "s"}}})
	}
	posted := m.Counters().Posted
	if len(posted) != maxTallies+1 || posted[otherClasses] != more || posted["user.n0"] != 1 {
		t.Errorf("want %d classes and %d under %s, got %d and %d", maxTallies+1, more, otherClasses, len(posted), posted[otherClasses])
	}
}

func TestNumbersNeverWrap(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "user.x", Subject: "s"}})
	m.Receive(scriptStart, Send{Request: 2, Events: []Named{{Class: "user.x", Subject: "s", Repeat: maxRepeat}}})
	m.Receive(scriptStart, Send{Request: 3, Events: []Named{{Class: "user.x", Subject: "s", Repeat: maxRepeat + 1}}})
	m.Receive(scriptStart, Post{Entry: 1, Repeat: maxRepeat + 1})
	o := m.Take()
	if a := o.Answers; len(a) != 2 || a[0].Sent[0].Err != nil || !errors.Is(a[1].Sent[0].Err, belfry.ErrLimit) {
		t.Errorf("want one taken and one ErrLimit, got %v", a)
	}
	if r := o.Refused; len(r) != 1 || !errors.Is(r[0].Err, belfry.ErrLimit) {
		t.Errorf("a post: want ErrLimit, got %v", r)
	}
	e := m.entry(1)
	e.sequence = math.MaxUint64 - 1
	for range 3 {
		m.Receive(scriptStart, Send{Events: []Named{{Class: "user.x", Subject: "s", Repeat: 5}}})
	}
	if e.sequence != math.MaxUint64 {
		t.Errorf("sequence: want the highest number, got %d", e.sequence)
	}
}

// TestMirrorsGoWithTheEntriesTheyStandFor sends more subjects to another node
// than may be kept.
func TestMirrorsGoWithTheEntriesTheyStandFor(t *testing.T) {
	t.Parallel()
	w := newWorld()
	for _, line := range []string{"node a", "node b", "quiet", "join a b", "a open 1", "a register 1 1 user.job cluster"} {
		w.do(t, line)
	}
	const more = 1000
	taken := 0
	for i := range maxFound + more {
		w.machines["b"].Receive(w.now, Send{Events: []Named{{Class: "user.job", Subject: itoa(i)}}})
		if i%200 == 0 || i == maxFound+more-1 {
			taken += pump(w)
		}
	}
	if got := w.machines["a"].peers[0].mirrors.Len(); got > maxFound {
		t.Errorf("mirrors: want at most %d, got %d", maxFound, got)
	}
	if taken != maxFound+more {
		t.Errorf("want %d notifications, got %d", maxFound+more, taken)
	}
}

// pump carries everything from b to a and to a's consumer 1, and counts what
// that was given.
func pump(w *world) (taken int) {
	a, b := w.machines["a"], w.machines["b"]
	for busy := true; busy; {
		busy = false
		for _, f := range b.Take().Peers {
			a.Receive(w.now, PeerReceived{Node: scriptNode("b"), Frame: f.Frame})
			b.Receive(w.now, PeerReady{Node: scriptNode("a")})
			busy = true
		}
		a.Receive(w.now, Ready{Consumer: 1})
		o := a.Take()
		for _, f := range o.Peers {
			b.Receive(w.now, PeerReceived{Node: scriptNode("a"), Frame: f.Frame})
			busy = true
		}
		for _, batch := range o.Batches {
			for _, n := range batch.Notifications {
				if n.Kind == belfry.KindOccurrence {
					taken++
				}
			}
			a.Receive(w.now, Ack{Consumer: 1, Batch: batch.Number})
			busy = true
		}
	}
	return taken
}
