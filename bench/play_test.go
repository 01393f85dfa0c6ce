package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry/internal/sim"
)

func parsed(t *testing.T, text string) *sim.Scenario {
	t.Helper()
	s, err := sim.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// playedBy is the figures of one memberlist system.
func playedBy(t *testing.T, name, text string) figures {
	t.Helper()
	s := parsed(t, text)
	chosen, err := chosen(name)
	if err != nil {
		t.Fatal(err)
	}
	var f figures
	synctest.Test(t, func(t *testing.T) {
		r, err := playMemberlist(s, chosen[0], 1)
		if err != nil {
			t.Error(err)
		}
		f = measure(s, r)
	})
	return f
}

func TestMemberlistSeesASilentHost(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"memberlist-tuned", "memberlist-tuned-sealed"} {
		f := playedBy(t, name, "nodes 5\ndelay 500us exp 100us\nat 5s kill host n2\nrun 20s\n")
		last := f.Detections[0].Level["down"].Last
		if last == nil || *last < 0.2 || *last > 5 {
			t.Errorf("%s: want all to hold n2 down after 0.2 s to 5 s, got %v", name, f.Detections)
		}
		if f.Mistakes["down"].Episodes != 0 || f.Packets < 5 || f.Packets > 20 {
			t.Errorf("%s: want no mistake and 5 to 20 packets/s, got %+v", name, f)
		}
	}
}

func TestMemberlistForgivesAShortPause(t *testing.T) {
	t.Parallel()
	f := playedBy(t, "memberlist", "nodes 5\ndelay 500us exp 100us\nat 5s pause process n2 1s\nrun 30s\n")
	if f.Pauses != 1 || f.Accused["down"] != 0 {
		t.Errorf("want 1 pause and nobody down, got %+v", f)
	}
}

func TestMemberlistFormsFromNothing(t *testing.T) {
	t.Parallel()
	f := playedBy(t, "memberlist", "nodes 3\ndelay 500us exp 100us\nat 1s join *\nrun 120s\n")
	if f.Joined == nil || *f.Joined <= 0 {
		t.Errorf("want all to join, got %+v", f)
	}
}

// Two systems ask for the same packets in different order, and each must get
// the same answers: no system may be lucky.
func TestTheSameSeedIsTheSameFateForEverySystem(t *testing.T) {
	t.Parallel()
	s := parsed(t, "nodes 4\ndelay 500us exp 100us\nat 0s loss *>* 20%\nrun 60s\n")
	one, other, different := s.Conditions(7), s.Conditions(7), s.Conditions(8)
	type packet struct {
		src, dst, nth int
		at            time.Duration
	}
	var packets []packet
	for at := time.Duration(0); at < 30*time.Second; at += 77 * time.Millisecond {
		for nth := range 3 {
			packets = append(packets, packet{0, 1, nth, at}, packet{2, 3, nth, at})
		}
	}
	fates := map[packet]sim.Fate{}
	lost := 0
	for _, p := range packets {
		f := one.Fate(p.src, p.dst, onlyNetwork, p.at, p.nth)
		fates[p] = f
		if f.Lost {
			lost++
		}
	}
	changed := 0
	for i := len(packets) - 1; i >= 0; i-- {
		p := packets[i]
		if got := other.Fate(p.src, p.dst, onlyNetwork, p.at, p.nth); got != fates[p] {
			t.Fatalf("%+v: want %+v, got %+v", p, fates[p], got)
		}
		if different.Fate(p.src, p.dst, onlyNetwork, p.at, p.nth) != fates[p] {
			changed++
		}
	}
	if share := float64(lost) / float64(len(packets)); share < 0.17 || share > 0.23 {
		t.Errorf("of 20 %% loss %.1f %% came", 100*share)
	}
	if changed < len(packets)/2 {
		t.Errorf("another seed changed only %d of %d fates", changed, len(packets))
	}
}
