package agent

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/witness"
)

// BenchmarkVerdictToClients measures from a verdict at a witness until each of
// its clients has read the notification: streams over unix sockets, 100 on each
// connection. The figures are p50 and p99 over the clients of all rounds.
func BenchmarkVerdictToClients(b *testing.B) {
	for _, clients := range []int{1, 1000, 10_000} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) { benchVerdict(b, clients) })
	}
}

// benchVerdict has one agent that holds of another what it is told.
func benchVerdict(b *testing.B, clients int) {
	const perConnection = 100
	nodes := localNodes(b, 2)
	a := startAgent(b, nodes[0])
	table := a.members.Table()
	other := table.Nodes[slices.IndexFunc(table.Nodes, func(n Node) bool { return n.Name == "b" })].ID
	verdict := func(v belfry.Verdict) { a.witness.tell(witness.Verdict{Node: other, Verdict: v, Incarnation: 1}) }
	verdict(belfry.VerdictUp)

	var conns []*grpc.ClientConn
	var streams []belfryv1.WitnessService_WatchChangesClient
	for i := range clients {
		if i%perConnection == 0 {
			conn, err := grpc.NewClient("unix:"+settingsOf(nodes[0]).Socket.Path, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			conns = append(conns, conn)
		}
		s, err := belfryv1.NewWitnessServiceClient(conns[len(conns)-1]).WatchChanges(b.Context(), &belfryv1.WatchChangesRequest{
			Register: &belfryv1.ClientRegistration{Resources: []string{"node/b"}},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			b.Fatal(err)
		}
		streams = append(streams, s)
	}
	var all []time.Duration
	state := []belfry.Verdict{belfry.VerdictDown, belfry.VerdictUp}
	for round := 0; b.Loop(); round++ {
		took := make([]time.Duration, clients)
		var group sync.WaitGroup
		ready := make(chan struct{}, clients)
		var begun time.Time
		for i, s := range streams {
			group.Go(func() {
				ready <- struct{}{}
				for {
					resp, err := s.Recv()
					if err != nil {
						b.Error(err)
						return
					}
					if len(resp.GetChanges()) > 0 {
						took[i] = time.Since(begun)
						return
					}
				}
			})
		}
		for range clients {
			<-ready
		}
		begun = time.Now()
		verdict(state[round%2])
		group.Wait()
		all = append(all, took...)
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100])/1e6, "p99-ms")
}
