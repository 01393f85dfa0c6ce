package agent

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api/licenseview"
)

// maxCapacity bounds what a node says of itself: the largest whole number that
// every JSON reader holds.
const maxCapacity = 1<<53 - 1

// machineCapacity is how large this machine is. Cores are those that are online,
// whatever this process may use of them.
func machineCapacity() Capacity {
	size := Capacity{Cores: uint64(runtime.NumCPU())}
	if text, err := os.ReadFile("/sys/devices/system/cpu/online"); err == nil {
		if n := countCores(string(text)); n > 0 {
			size.Cores = n
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		size.MemoryBytes = uint64(info.Totalram) * uint64(info.Unit)
	}
	return size
}

// countCores counts what a list of ranges names, as 0-3,5; 0: it can not be read.
func countCores(list string) (n uint64) {
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(first, 10, 32)
		if err != nil {
			return 0
		}
		b := a
		if isRange {
			if b, err = strconv.ParseUint(last, 10, 32); err != nil || b < a {
				return 0
			}
		}
		n += b - a + 1
	}
	return n
}

// listCapacities has the document say how large the members' machines are, as
// they have said themselves: where nothing is known, and, as long as a license
// counts it, where it has changed. This node leads, and has asked the members.
func (a *Agent) listCapacities(ctx context.Context) error {
	if a.storage == nil {
		return nil
	}
	states, counts := a.polled.get(), licenseview.Counts(&a.storage.held().Document)
	next := map[belfry.NodeID]Capacity{}
	for _, n := range a.members.Table().Nodes {
		has := states[n.ID].size
		if has != (Capacity{}) && has != n.Capacity && (counts || n.Capacity == (Capacity{})) {
			next[n.ID] = has
		}
	}
	if len(next) == 0 {
		return nil
	}
	_, _, err := a.commit(ctx, func(t *Table) error {
		for i := range t.Nodes {
			if has, ok := next[t.Nodes[i].ID]; ok {
				t.Nodes[i].Capacity = has
			}
		}
		return nil
	})
	return err
}
