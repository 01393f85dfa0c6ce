package transport_test

import (
	"crypto/tls"
	"fmt"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

// BenchmarkBatchOverTheStream sends batches as the event machine does, the
// next one after Ready, over mutual TLS on loopback.
func BenchmarkBatchOverTheStream(b *testing.B) {
	for _, size := range []int{1, 1024} {
		b.Run(fmt.Sprintf("notifications=%d", size), func(b *testing.B) {
			c := newStreamCluster(b, 2)
			arrived, ready := make(chan struct{}, 1), make(chan struct{}, 4)
			var nodes []*transport.Streams
			for i := range 2 {
				opts := c.tlsOptions(c.ids[i])
				s := transport.NewStreams(transport.StreamsConfig{
					Listener: c.ports[i], ServerTLS: security.NodeServerConfig(opts), Identify: identify,
					ClientTLS: func(p belfry.NodeID) *tls.Config { return security.NodeClientConfig(opts, p) },
					Self:      transport.Hello{Node: c.ids[i], Incarnation: 1, Boot: 1},
					Deliver: func(e transport.StreamEvent) {
						switch e.(type) {
						case transport.Frame:
							arrived <- struct{}{}
						case transport.Ready:
							if i == 0 {
								ready <- struct{}{}
							}
						}
					},
				})
				defer func() { _ = s.Stop(b.Context(), cluster.GoodbyeLeave) }()
				s.SetPeers(c.peers(i))
				nodes = append(nodes, s)
			}
			batch := event.PeerBatch{Batch: event.Batch{Notifications: make([]belfry.Notification, size)}}
			for i := range batch.Batch.Notifications {
				batch.Batch.Notifications[i] = belfry.Notification{
					Entry: 7, Event: belfry.EventID{Class: "user.x", Subject: "x"}, First: 1, Last: 3, Count: 3, Data: []byte("twenty bytes of data"),
				}
			}
			<-ready
			b.ReportAllocs()
			for b.Loop() {
				batch.Batch.Number++
				if err := nodes[0].SendFrame(c.ids[1], batch); err != nil {
					b.Fatal(err)
				}
				<-arrived
				<-ready
			}
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "notifications/s")
		})
	}
}
