package transport

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/wire"
)

func TestArrivalIsTheKernelsTimeWithinWhatIsPossible(t *testing.T) {
	t.Parallel()
	now := time.Now()
	emptied := now.Add(-100 * time.Millisecond)
	wall := now.Round(0)
	for name, c := range map[string]struct {
		stamp time.Time
		want  time.Duration // before now
	}{
		"as stamped":                    {wall.Add(-30 * time.Millisecond), 30 * time.Millisecond},
		"no stamp":                      {time.Time{}, 0},
		"the wall clock was set back":   {wall.Add(time.Hour), 0},
		"the wall clock was set ahead":  {wall.Add(-time.Hour), 100 * time.Millisecond},
		"before the socket was emptied": {wall.Add(-101 * time.Millisecond), 100 * time.Millisecond},
	} {
		got := arrival(now, c.stamp, emptied)
		if ago := now.Sub(got); ago != c.want {
			t.Errorf("%s: %v before now; want %v", name, ago, c.want)
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
	var r rejectLog
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
