package agent

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/client"
)

// The figures of a join with three nodes: 300 ms in the median, and of 64 at
// once the last is through after 2 s. A machine that does nothing else takes 12 ms
// and 0.6 s; one that runs all other tests beside this one, with the race
// detector, must stay within busy times the figures.
const (
	joinMedian = 300 * time.Millisecond
	joinAll    = 2 * time.Second
	atOnce     = 64
	busy       = 10
)

func TestJoinsAreFast(t *testing.T) { // not parallel: it measures
	m := machines(t, 3+15+atOnce)
	formed(t, m[:3])
	var took []time.Duration
	for _, machine := range m[3:18] {
		token := m[0].token(t, client.TokenRequest{})
		begin := time.Now()
		if _, err := machine.join(t.Context(), m[2], token); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > busy*joinMedian {
		t.Errorf("a join takes %v in the median; want %v", median, joinMedian)
	}
	t.Logf("15 joins, one after the other: median %v, longest %v", took[len(took)/2], took[len(took)-1])

	tokens := make([]string, atOnce)
	for i := range tokens {
		tokens[i] = m[0].token(t, client.TokenRequest{})
	}
	var group sync.WaitGroup
	begin := time.Now()
	for i, machine := range m[18:] {
		group.Go(func() {
			if _, err := machine.join(t.Context(), m[i%3], tokens[i]); err != nil {
				t.Errorf("%s: %v", machine.Name, err)
			}
		})
	}
	group.Wait()
	all := time.Since(begin)
	if all > busy*joinAll {
		t.Errorf("%d joins at once take %v; want %v", atOnce, all, joinAll)
	}
	t.Logf("%d joins at once: %v", atOnce, all)
	table := m[0].agent.members.Table()
	if len(table.Nodes) != len(m) || len(table.Tokens) != 0 {
		t.Errorf("%d nodes, %d tokens; want %d and 0", len(table.Nodes), len(table.Tokens), len(m))
	}
}
