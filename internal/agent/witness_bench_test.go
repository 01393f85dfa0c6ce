package agent

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/witness"
)

// BenchmarkVerdictToClients measures from a verdict at a witness until each of
// its clients has read the notification, each over a connection of its own in the
// same process. The figures are p50 and p99 over the clients of all rounds.
func BenchmarkVerdictToClients(b *testing.B) {
	for _, clients := range []int{1, 1000} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) { benchVerdict(b, clients) })
	}
}

// benchVerdict has one agent that holds of another what it is told.
func benchVerdict(b *testing.B, clients int) {
	nodes := localNodes(b, 2)
	a := startAgent(b, nodes[0])
	table := a.members.Table()
	other := table.Nodes[slices.IndexFunc(table.Nodes, func(n Node) bool { return n.Name == "b" })].ID
	verdict := func(v belfry.Verdict) { a.witness.tell(witness.Verdict{Node: other, Verdict: v, Incarnation: 1}) }
	verdict(belfry.VerdictUp)
	cfg := client.WitnessConfig{Seeds: []string{settingsOf(nodes[0]).Socket.Path}, Resources: []string{"node/b"}, KeepAlive: time.Minute}
	watching := make([]*client.Witness, clients)
	for i := range watching {
		w, err := client.OpenWitness(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(w.Close)
		watching[i] = w
		for e := (client.WitnessEvent{Kind: client.WitnessAt}); e.Kind != client.WitnessState; {
			if e, err = w.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	var all []time.Duration
	states := []belfry.Verdict{belfry.VerdictDown, belfry.VerdictUp}
	for round := 0; b.Loop(); round++ {
		took := make([]time.Duration, clients)
		var group sync.WaitGroup
		var begun time.Time
		ready := make(chan struct{}, clients)
		for i, w := range watching {
			group.Go(func() {
				ready <- struct{}{}
				if e, err := w.Next(b.Context()); err != nil || e.Kind != client.WitnessChange {
					b.Errorf("%+v, %v", e, err)
				}
				took[i] = time.Since(begun)
			})
		}
		for range clients {
			<-ready
		}
		begun = time.Now()
		verdict(states[round%2])
		group.Wait()
		all = append(all, took...)
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100])/1e6, "p99-ms")
}
