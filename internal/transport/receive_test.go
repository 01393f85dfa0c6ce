package transport

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/wire"
)

// A socket was empty two seconds ago. Meanwhile a datagram came, 30 ms ago, and
// the wall clock was set, before or after it: the arrival is the same.
func TestArrivalIsTheKernelsTimeWhateverTheWallClockDoes(t *testing.T) {
	t.Parallel()
	const interval, waited = 2 * time.Second, 30 * time.Millisecond
	began := time.Now()
	emptied := moment{at: began, wall: began.Round(0)}
	for _, step := range []time.Duration{
		0, time.Second, -time.Second, time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, 1000 * time.Hour, -1000 * time.Hour,
		300 * time.Millisecond, -300 * time.Millisecond,
	} {
		now := moment{at: began.Add(interval), wall: emptied.wall.Add(interval + step)}
		for name, stamp := range map[string]time.Time{
			"before the datagram": now.wall.Add(-waited),
			"after the datagram":  emptied.wall.Add(interval - waited),
		} {
			if ago := now.at.Sub(arrival(now, emptied, stamp)); ago != waited {
				t.Errorf("wall clock set by %v %s: %v before now; want %v", step, name, ago, waited)
			}
		}
	}
}

func TestArrivalIsWithinWhatIsPossible(t *testing.T) {
	t.Parallel()
	began := time.Now()
	emptied := moment{at: began, wall: began.Round(0)}
	now := moment{at: began.Add(100 * time.Millisecond), wall: began.Round(0).Add(100 * time.Millisecond)}
	for name, c := range map[string]struct {
		now   moment
		stamp time.Time
		want  time.Duration // before now
	}{
		"no stamp":                           {now, time.Time{}, 0},
		"before the socket was empty":        {now, now.wall.Add(-101 * time.Millisecond), 100 * time.Millisecond},
		"set ahead and back again":           {now, now.wall.Add(time.Hour), 0},
		"set back and ahead again":           {now, now.wall.Add(-time.Hour), 100 * time.Millisecond},
		"slewed by a twelfth":                {moment{now.at, now.wall.Add(8 * time.Millisecond)}, now.wall.Add(-22 * time.Millisecond), 30 * time.Millisecond},
		"the machine slept, and then set it": {moment{now.at, now.wall.Add(8 * time.Hour)}, now.wall.Add(-40 * time.Millisecond), 40 * time.Millisecond},
	} {
		if ago := c.now.at.Sub(arrival(c.now, emptied, c.stamp)); ago != c.want {
			t.Errorf("%s: %v before now; want %v", name, ago, c.want)
		}
	}
}

// What a process that was stopped finds in its sockets waited for longer than
// a small step: the arrival is wrong by no more than the step.
func TestASmallStepOfTheWallClockMovesNoArrivalFurther(t *testing.T) {
	t.Parallel()
	const stopped = 10 * time.Second
	began := time.Now()
	emptied := moment{at: began, wall: began.Round(0)}
	for _, step := range []time.Duration{5 * time.Second, -5 * time.Second} {
		now := moment{at: began.Add(stopped), wall: emptied.wall.Add(stopped + step)}
		for waited := time.Duration(0); waited <= stopped; waited += time.Second {
			for _, stamp := range []time.Time{now.wall.Add(-waited), emptied.wall.Add(stopped - waited)} {
				if off := now.at.Sub(arrival(now, emptied, stamp)) - waited; off.Abs() > step.Abs() {
					t.Errorf("step %v, waited %v: the arrival is off by %v", step, waited, off)
				}
			}
		}
	}
}

func TestAWildcardSocketTakesSoMuchPerSourceAndInAll(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var b budget
	flood := func(now time.Time, source byte, n int) (taken int) {
		for range n {
			if b.take(now, linkID{peer: belfry.NodeID{source}}) {
				taken++
			}
		}
		return taken
	}
	if got := flood(now, 1, 5000); got != sourceRate {
		t.Errorf("%d of a first burst; want one second's worth, %d", got, sourceRate)
	}
	if got := flood(now, 2, 100); got != 100 {
		t.Errorf("%d of another source; want all 100", got)
	}
	if got := flood(now.Add(500*time.Millisecond), 1, 5000); got != sourceRate/2 {
		t.Errorf("%d after half a second; want %d", got, sourceRate/2)
	}
	if got := flood(now.Add(time.Hour), 1, 5000); got != sourceRate {
		t.Errorf("%d after an hour; want no more than a second's worth, %d", got, sourceRate)
	}
	b = budget{}
	all := 0
	for source := range byte(100) {
		all += flood(now, source, 2000)
	}
	if all != totalRate {
		t.Errorf("%d of 200,000 from 100 sources; want %d", all, totalRate)
	}
}

func TestOneLineASecondAndReasonStandsForAll(t *testing.T) {
	t.Parallel()
	var r tally[wire.Reason]
	now := time.Now()
	var lines []uint64
	for i := range 5 {
		lines = append(lines, r.count(now.Add(time.Duration(i)*400*time.Millisecond), wire.RejectOpen))
	}
	lines = append(lines, r.count(now, wire.RejectReplay))
	if diff := cmp.Diff([]uint64{1, 0, 0, 3, 0, 1}, lines); diff != "" {
		t.Errorf("what each line stands for (-want +got):\n%s", diff)
	}
}

func TestThePatienceWithAHandshakeGrows(t *testing.T) {
	t.Parallel()
	var got []time.Duration
	for n := range 5 {
		got = append(got, handshakePatience(n+1))
	}
	if diff := cmp.Diff([]time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBackOffIsQuickFirstAndBoundedLater(t *testing.T) {
	t.Parallel()
	within := func(n int, low, high time.Duration) {
		t.Helper()
		for range 100 {
			if d := backOff(n); d < low || d > high {
				t.Fatalf("dial %d waits %v; want %v to %v", n, d, low, high)
			}
		}
	}
	within(0, 0, 10*time.Millisecond)
	within(1, 75*time.Millisecond, 125*time.Millisecond)
	within(quickDials, 75*time.Millisecond, 125*time.Millisecond)
	within(quickDials+1, 150*time.Millisecond, 250*time.Millisecond)
	within(quickDials+100, 1500*time.Millisecond, 2500*time.Millisecond)
}

func TestAddressesAreComparedInOneForm(t *testing.T) {
	t.Parallel()
	mapped := netip.MustParseAddrPort("[::ffff:127.0.0.1]:7431")
	if got, want := unmap(mapped), netip.MustParseAddrPort("127.0.0.1:7431"); got != want {
		t.Errorf("%v; want %v", got, want)
	}
}

func TestATableThatIsWrongIsRefusedWithEachFault(t *testing.T) {
	t.Parallel()
	local, remote := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.2:1")
	for name, links := range map[string][]PeerLink{
		"index":        {{Index: 16, Local: local, Remote: remote}},
		"index twice":  {{Local: local, Remote: remote}, {Local: local, Remote: netip.MustParseAddrPort("127.0.0.3:1")}},
		"pair twice":   {{Local: local, Remote: remote}, {Index: 1, Local: local, Remote: remote}},
		"no address":   {{Local: local}},
		"two families": {{Local: local, Remote: netip.MustParseAddrPort("[::1]:1")}},
	} {
		if err := checkPeers([]Peer{{ID: belfry.NodeID{1}, Number: 1, Links: links}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := checkPeers([]Peer{{ID: belfry.NodeID{1}, Links: []PeerLink{{Local: local, Remote: remote}}}}); err != nil {
		t.Errorf("a table as it should be: %v", err)
	}
}
