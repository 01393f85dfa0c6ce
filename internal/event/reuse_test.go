package event

import (
	"testing"

	"github.com/belfry-ha/belfry"
)

// What a consumer's sender may still look at is not written over, whatever has been
// acknowledged: who acknowledges too early must not get what is another's.
func TestABatchIsWrittenOverWhenItsSenderIsDoneWithIt(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	for c := ConsumerID(1); c <= 2; c++ {
		m.Receive(scriptStart, Open{Consumer: c, Limits: Limits{Reuse: c == 1}})
		m.Receive(scriptStart, Register{Consumer: c, Number: 1, Registration: belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true, Limit: 100}})
	}
	m.Receive(scriptStart, Associate{Entry: 1, Instance: "1:1"})
	next := func(c ConsumerID, code int32) []belfry.Notification {
		happen(m, code, code+1, code+2)
		return batches(m, c)[0]
	}
	ack := func(c ConsumerID, batch uint64) { m.Receive(scriptStart, Ack{Consumer: c, Batch: batch}) }

	first := next(1, 10)
	ack(1, 1) // the sender has it still
	happen(m, 20, 21, 22)
	if other := batches(m, 2)[0]; &other[0] == &first[0] || first[2].Code != 12 {
		t.Fatalf("a batch that is being sent was written over: %v", first)
	}
	second := next(1, 30) // says Ready
	if first[0].Entry != 0 || first[2].Event != (belfry.EventID{}) {
		t.Errorf("a batch that was sent and has arrived still names what it was about: %v", first)
	}
	ack(2, 1)
	ack(1, 2)
	third := next(1, 40)
	if &third[0] != &first[0] && &third[0] != &second[0] {
		t.Error("room for a batch was made anew")
	}
	if n := len(m.spares); n != 1 {
		t.Errorf("%d slices lie ready; want one, none of them of who may keep a batch", n)
	}
}

// A slice that several consumers have belongs to none.
func TestASharedBatchIsNotWrittenOver(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	for c := ConsumerID(1); c <= 2; c++ {
		m.Receive(scriptStart, Open{Consumer: c, Limits: Limits{Reuse: true}})
		m.Receive(scriptStart, Register{Consumer: c, Number: 1, Registration: belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true}})
	}
	m.Receive(scriptStart, Associate{Entry: 1, Instance: "1:1"})
	happen(m, 1, 2, 3)
	both := batches(m, 1, 2)
	if &both[0][0] != &both[1][0] {
		t.Fatal("the batches are not one slice")
	}
	m.Receive(scriptStart, Ack{Consumer: 1, Batch: 1})
	happen(m, 4, 5, 6)
	batches(m, 1)
	if both[1][0].Code != 1 {
		t.Errorf("what another consumer is being sent was written over: %v", both[1])
	}
}

// However much has arrived at once, little room is kept.
func TestWhatLiesReadyIsBounded(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	for range 100 {
		m.spare(make([]belfry.Notification, 1, 1000))
	}
	if m.spared > maxSpare || m.spared != 1000*len(m.spares) {
		t.Errorf("room for %d notifications, %d slices", m.spared, len(m.spares))
	}
	for range 100 {
		m.spareFor(900)
	}
	if m.spared != 0 || len(m.spares) != 0 {
		t.Errorf("room for %d notifications, %d slices are left", m.spared, len(m.spares))
	}
}
