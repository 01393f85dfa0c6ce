package agent

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/internal/repository"
)

// TestAChangeIsInForceAtAllEightWhenTheCommandEnds, and the log says how long
// that took: from the command on, and from the commit until the last of the agents
// has the generation in force. All agents are in one process here, on one disk.
func TestAChangeIsInForceAtAllEightWhenTheCommandEnds(t *testing.T) {
	t.Parallel()
	m := townOf(machines(t, 8))
	formedOnFile(t, m)
	var took, spread []time.Duration
	for i := range 100 {
		last := m.watchInForce(t, m[0].agent.members.Table().Generation+1)
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
		spread = append(spread, last().Sub(time.Unix(0, m[0].agent.storage.chosen.Load())))
	}
	slices.Sort(took)
	slices.Sort(spread)
	t.Logf("100 changes, each in force at all 8 agents: p50 %s, p90 %s, p99 %s", took[50], took[90], took[99])
	t.Logf("from the commit to the last of them: p50 %s, p90 %s, p99 %s", spread[50], spread[90], spread[99])
}

// TestAChangeThatNobodyTellsOfIsInForceInTime: all notices are lost, for what is
// committed goes around the machine that sends them. The look at the storage, every
// 5 s ± 10 %, is what the 10 s are about.
func TestAChangeThatNobodyTellsOfIsInForceInTime(t *testing.T) {
	t.Parallel()
	m := townOf(machines(t, 8))
	formedOnFile(t, m)
	a := m[0].agent
	m[0].waitMode(t, repository.Ready)
	held, now, op := a.storage.held(), time.Now().UTC().Truncate(time.Millisecond), newOp()
	table := held.table.clone()
	table.Tunables = map[string]string{"node_timeout": "7s"}
	document, err := a.next(held, op, table.written(held.Document, now), repository.Entry{Time: now, Author: "nobody"})
	if err != nil {
		t.Fatal(err)
	}
	last := m.watchInForce(t, held.Generation+1)
	begin := time.Now()
	if _, err := a.storage.backend.CAS(held.Version, document, op); err != nil {
		t.Fatal(err)
	}
	took := last().Sub(begin)
	for _, one := range m {
		if h := one.agent.storage.held(); h.Digest != digestOf(document) {
			t.Errorf("%s holds generation %d, %s; want %d", one.Name, h.Generation, h.Digest, held.Generation+1)
		}
	}
	t.Logf("all notices lost: in force at all 8 agents after %s", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("in force at all after %s; want 10s at most", took)
	}
}

// A townOf is the machines of one cluster.
type townOf []*machine

// watchInForce returns what waits until all have a generation in force, and when
// that was.
func (m townOf) watchInForce(t *testing.T, generation uint64) func() time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	var group sync.WaitGroup
	at := make([]time.Time, len(m))
	for i, one := range m {
		group.Go(func() {
			one.agent.awaitHeld(ctx, generation)
			at[i] = time.Now()
		})
	}
	return func() time.Time {
		group.Wait()
		cancel()
		return slices.MaxFunc(at, time.Time.Compare)
	}
}
