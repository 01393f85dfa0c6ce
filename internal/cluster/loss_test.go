package cluster

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLossComesFromGaps(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                                 string
		seqs                                 []uint16
		received, lost, reordered, duplicate uint64
		highest                              uint16
	}{
		{"in order", []uint16{1, 2, 3}, 3, 0, 0, 0, 3},
		{"the first number is no gap", []uint16{500}, 1, 0, 0, 0, 500},
		{"a gap", []uint16{1, 5}, 2, 3, 0, 0, 5},
		{"one that comes late takes its loss back", []uint16{1, 5, 3}, 3, 2, 1, 0, 5},
		{"once", []uint16{1, 5, 3, 3}, 3, 2, 1, 1, 5},
		{"a duplicate", []uint16{1, 2, 2}, 2, 0, 0, 1, 2},
		{"later than 64 is a duplicate", []uint16{1, 100, 2}, 2, 98, 0, 1, 100},
		{"after 65535 comes 1", []uint16{65534, 65535, 1, 2}, 4, 0, 0, 0, 2},
		{"a gap over the wrap", []uint16{65534, 2}, 2, 2, 0, 0, 2},
	}
	for _, test := range tests {
		s := newSequence(0)
		for _, seq := range test.seqs {
			s.take(seq)
		}
		if s.received != test.received || s.lost != test.lost || s.reordered != test.reordered || s.duplicate != test.duplicate || s.highest != test.highest {
			t.Errorf("%s: received %d lost %d reordered %d duplicate %d highest %d, want %d %d %d %d %d", test.name,
				s.received, s.lost, s.reordered, s.duplicate, s.highest, test.received, test.lost, test.reordered, test.duplicate, test.highest)
		}
	}
}

// Z2: without a prior, a lossy network makes false downs at a cold start.
func TestLossStartsAtThePriorAndFollows(t *testing.T) {
	t.Parallel()
	s := newSequence(76)
	if s.loss() != 76 {
		t.Errorf("at start loss = %d/255, want the prior of 76", s.loss())
	}
	for seq := uint16(1); seq < 1000; seq++ {
		s.take(seq)
	}
	if s.loss() != 0 {
		t.Errorf("after 1,000 without a gap loss = %d/255, want 0", s.loss())
	}
	for seq := uint16(1000); seq < 3000; seq += 5 { // four of five are lost
		s.take(seq)
	}
	if s.loss() < 190 || s.loss() > 215 {
		t.Errorf("with four of five lost loss = %d/255, want about 204", s.loss())
	}
}

func TestAnOutageIsNoLoss(t *testing.T) {
	t.Parallel()
	s := newSequence(0)
	s.take(1)
	s.interrupted()
	s.take(60)
	if s.loss() != 0 || s.lost != 58 {
		t.Errorf("after an outage loss = %d/255 lost = %d, want 0 and 58", s.loss(), s.lost)
	}
	s.take(120)
	if s.loss() == 0 {
		t.Error("the gap after it counts for nothing too, want it to count")
	}
}

// Invariant 5, and counts that add up, against a set as model.
func TestI5TheHighestNeverFalls(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSequence(76)
		seen := map[int]bool{}
		position, top := rapid.IntRange(1, 200_000).Draw(t, "first"), 0
		for range rapid.IntRange(1, 300).Draw(t, "n") {
			seq := uint16(position%seqCount + 1)
			fresh, newest := s.take(seq)
			if want := !seen[position] && (len(seen) == 0 || position > top-reorderWindow); fresh != want {
				t.Fatalf("take(%d) fresh = %v, want %v", seq, fresh, want)
			}
			if fresh {
				seen[position] = true
			}
			if want := fresh && (top == 0 || position > top); newest != want {
				t.Fatalf("take(%d) newest = %v, want %v", seq, newest, want)
			}
			top = max(top, position)
			if want := uint16(top%seqCount + 1); s.highest != want {
				t.Fatalf("highest = %d, want %d", s.highest, want)
			}
			position = max(1, position+rapid.IntRange(-70, 5).Draw(t, "step"))
			if rapid.IntRange(0, 3).Draw(t, "jump") > 0 {
				position = top + 1
			}
		}
		if s.received != uint64(len(seen)) {
			t.Fatalf("received = %d, want %d", s.received, len(seen))
		}
	})
}

func TestRecentLossIsMeasured(t *testing.T) {
	t.Parallel()
	s := newSequence(76)
	if s.recent() != 0 {
		t.Errorf("before the first datagram recent loss = %d/255, want 0", s.recent())
	}
	for _, step := range []struct {
		seq  uint16
		want uint8
	}{{1, 0}, {2, 0}, {5, 102}, {3, 51}, {300, 251}} {
		if s.take(step.seq); s.recent() != step.want {
			t.Errorf("after %d recent loss = %d/255, want %d", step.seq, s.recent(), step.want)
		}
	}
}

// Z1: silence misses heartbeats and is evidence; it is no loss.
func TestSilenceIsNoLoss(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a, c := net.host("a"), net.host("c")
	row := func() LinkStatus {
		for _, l := range a.m.Links(net.now) {
			if l.PeerName == "c" {
				return l
			}
		}
		t.Fatal("no link to c")
		return LinkStatus{}
	}
	before := row()
	c.frozen = true
	net.run(2 * time.Second)
	if after := row(); after.Deviation < 4 || after.Loss > before.Loss || after.Lost != before.Lost {
		t.Errorf("after a silence: deviation %d, loss %d, lost %d; want some, at most %d, and %d", after.Deviation, after.Loss, after.Lost, before.Loss, before.Lost)
	}
}

// What was only late was not lost: the estimate is what it was before the gap.
func TestReorderingIsNoLoss(t *testing.T) {
	t.Parallel()
	s := newSequence(0)
	for _, seq := range []uint16{1, 3} {
		s.take(seq)
	}
	if s.loss() == 0 {
		t.Error("after a gap loss = 0, want some")
	}
	if s.take(2); s.loss() != 0 {
		t.Errorf("after the late one loss = %d/255, want 0", s.loss())
	}
}
