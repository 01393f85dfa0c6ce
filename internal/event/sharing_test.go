package event

import (
	"slices"
	"testing"

	"github.com/belfry-ha/belfry"
)

// shares is a machine with consumers that have plain registrations on one event,
// each under its numbers.
func shares(batch int, numbers ...[]uint32) *Machine {
	m := scriptMachine("a", 1, scriptStart)
	for i, all := range numbers {
		m.Receive(scriptStart, Open{Consumer: ConsumerID(i + 1), Limits: Limits{BatchNotifications: batch}})
		for _, n := range all {
			m.Receive(scriptStart, Register{Consumer: ConsumerID(i + 1), Number: n, Registration: belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true}})
		}
	}
	m.Receive(scriptStart, Associate{Entry: 1, Instance: "1:1"})
	m.Take()
	return m
}

// happen posts occurrences that do not merge.
func happen(m *Machine, codes ...int32) {
	for _, code := range codes {
		m.Receive(scriptStart, Post{Entry: 1, Occurrence: belfry.Occurrence{Time: scriptStart, Code: code, Event: belfry.EventID{Instance: "1:1"}}})
	}
}

// batches has the consumers say that they are ready, and returns what they get.
func batches(m *Machine, consumers ...ConsumerID) [][]belfry.Notification {
	for _, c := range consumers {
		m.Receive(scriptStart, Ready{Consumer: c})
	}
	var all [][]belfry.Notification
	for _, b := range m.Take().Batches {
		all = append(all, b.Notifications)
	}
	return all
}

// TestEqualBatchesAreOneSlice and what differs in anything is written anew.
func TestEqualBatchesAreOneSlice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		numbers [][]uint32
		before  func(*Machine)
		lengths []int
		whole   bool // the second is the first one's slice
	}{
		{"equal", [][]uint32{{1}, {1}}, nil, []int{3, 3}, true},
		{"several of each", [][]uint32{{1, 2}, {1, 2}}, nil, []int{6, 6}, true},
		{"the first equal", [][]uint32{{1, 2}, {1, 3}}, nil, []int{6, 6}, false},
		{"one more", [][]uint32{{1}, {1, 2}}, nil, []int{3, 6}, false},
		{"another number", [][]uint32{{1}, {2}}, nil, []int{3, 3}, false},
		{"full", [][]uint32{{1, 2, 3}, {1, 2, 3}}, nil, []int{8, 8}, false},
		{"had some before", [][]uint32{{1}, {1}}, func(m *Machine) {
			happen(m, 9)
			batches(m, 2)
		}, []int{4, 3}, false},
		{"a gap", [][]uint32{{1}, {1}}, func(m *Machine) {
			for i := range int32(20) {
				happen(m, 100+i)
			}
		}, []int{8, 8}, false},
	} {
		m := shares(8, tt.numbers...)
		if tt.before != nil {
			tt.before(m)
		}
		happen(m, 1, 2, 3)
		got := batches(m, 1, 2)
		if len(got) != 2 || len(got[0]) != tt.lengths[0] || len(got[1]) != tt.lengths[1] {
			t.Errorf("%s: %d batches %v; want two of %v notifications", tt.name, len(got), got, tt.lengths)
			continue
		}
		if whole := &got[0][0] == &got[1][0]; whole != tt.whole {
			t.Errorf("%s: in one piece: %t; want %t", tt.name, whole, tt.whole)
		}
		for i := range got[1] {
			if tt.before != nil {
				break // another pattern
			}
			if want := tt.numbers[1][i/3]; got[1][i].Registration != want {
				t.Errorf("%s: notification %d is of registration %d; want %d", tt.name, i, got[1][i].Registration, want)
			}
		}
	}
}

// TestASharedGapIsCountedAtEach of the consumers that it meets.
func TestASharedGapIsCountedAtEach(t *testing.T) {
	t.Parallel()
	m := shares(64, []uint32{1}, []uint32{1})
	for i := range int32(20) { // of which the ring keeps 16
		happen(m, i)
	}
	for i, b := range batches(m, 1, 2) {
		if b[0].Kind != belfry.KindGap || b[0].Gap.Total != 4 {
			t.Errorf("consumer %d begins with %+v; want a gap of 4", i+1, b[0])
		}
	}
	if got := m.counters.Lost[belfry.GapSlow]; got != 8 {
		t.Errorf("%d lost are counted; want 4 for each", got)
	}
}

// TestWhatIsInBetweenStays where the next part is one that is written.
func TestWhatIsInBetweenStays(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	register := func(c ConsumerID, number uint32, subject string, limit int) {
		m.Receive(scriptStart, Register{Consumer: c, Number: number, Registration: belfry.Registration{Class: "file.modify", Subject: subject, Wait: true, Limit: limit}})
	}
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Open{Consumer: 2})
	register(1, 1, "/x", 0)
	register(1, 2, "/y", 0)
	register(2, 1, "/x", 0)
	register(2, 2, "/y", 0)
	register(2, 3, "/z", 17) // a queue of its own
	m.Take()
	for _, entry := range []EntryID{1, 3, 2} {
		m.Receive(scriptStart, Associate{Entry: entry, Instance: "1:1"})
		m.Receive(scriptStart, Post{Entry: entry, Occurrence: belfry.Occurrence{Time: scriptStart, Event: belfry.EventID{Instance: "1:1"}}})
	}
	got := batches(m, 1, 2)
	var subjects []string
	for _, n := range got[1] {
		subjects = append(subjects, n.Event.Subject)
	}
	if want := []string{"/x", "/z", "/y"}; !slices.Equal(subjects, want) {
		t.Errorf("the second got %v; want %v", subjects, want)
	}
}

// Registrations that differ in their event only share what they ask for, and
// keep what they differ in otherwise.
func TestPlainRegistrationsShareWhatIsAlike(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, Open{Consumer: 1})
	for i, r := range []belfry.Registration{
		{Class: "file.modify", Subject: "/x", Wait: true},
		{Class: "file.modify", Subject: "/y", Wait: true, Limit: 2},
		{Class: "file.modify", Subject: "/z", Wait: true},
		{Class: "file.modify", Subject: "/z", Wait: true, NoFollow: true},
		{Class: "file.modify", Subject: "/x", Wait: true, NoFollow: true},
	} {
		m.Receive(scriptStart, Register{Consumer: 1, Number: uint32(i + 1), Registration: r})
	}
	regs := m.consumers[1].registrations() // by number, from 1
	if regs[3].order != regs[4].order {
		t.Error("registrations 4 and 5 are alike, and have an order each")
	}
	if regs[1].spec.Limit != 2 || regs[0].spec.Limit != 0 || !regs[4].spec.NoFollow || regs[2].spec.NoFollow {
		t.Error("a registration has taken over what another one asks for")
	}
}
