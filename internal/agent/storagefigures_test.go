package agent

import (
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestAChangeIsInForceAtAllEightWhenTheCommandEnds, and the log says how long
// that took. All agents are in one process here, on one disk.
func TestAChangeIsInForceAtAllEightWhenTheCommandEnds(t *testing.T) {
	t.Parallel()
	m := machines(t, 8)
	formedOnFile(t, m)
	var took []time.Duration
	for i := range 50 {
		begin := time.Now()
		_, generation, err := m[0].agent.commit(t.Context(), func(t *Table) error {
			t.Tunables = map[string]string{"node_timeout": strconv.Itoa(3+i) + "s"}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begin))
		for _, one := range m {
			if g := one.agent.members.Table().Generation; g < generation {
				t.Errorf("%s holds generation %d when the change has ended; want %d", one.Name, g, generation)
			}
		}
	}
	slices.Sort(took)
	t.Logf("50 changes, each in force at all 8 agents: p50 %s, p90 %s, greatest %s", took[25], took[45], took[49])
}
