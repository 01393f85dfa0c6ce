package etcd

import (
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/belfry-ha/belfry/internal/repository"
)

// BenchmarkCommitToHint takes, in turns, from the begin of an update to its hint
// at another node, and from the begin of etcd's own put to its watch event: the
// same size, the same etcd. The goal is a p50 of at most 3 times etcd's.
func BenchmarkCommitToHint(b *testing.B) {
	for name, count := range map[string]int{"OneMember": 1, "ThreeMembers": 3} {
		b.Run(name, func(b *testing.B) {
			servers := newRepository(b, count)
			x, y := open(b, config(0, endpoints(servers)...)), open(b, config(1, endpoints(servers)...))
			putter, watcher := client(b, servers...), client(b, servers...)
			events := watcher.Watch(clientv3.WithRequireLeader(b.Context()), "control", clientv3.WithCreatedNotify())
			<-events
			v := load(b, x).Version
			doc := make([]byte, 4096)
			n := 0
			var commits, hints, puts, watched []time.Duration
			commit := func() {
				n++
				op := opID(1, n)
				copy(doc, op[:])
				start := time.Now()
				var err error
				if v, err = x.CAS(v, doc, op); err != nil {
					b.Fatal(err)
				}
				commits = append(commits, time.Since(start))
				for hint := (repository.Version{}); hint != v; {
					hint = <-y.Hints()
				}
				hints = append(hints, time.Since(start))
			}
			put := func() {
				start := time.Now()
				if _, err := putter.Put(b.Context(), "control", string(doc)); err != nil {
					b.Fatal(err)
				}
				puts = append(puts, time.Since(start))
				<-events
				watched = append(watched, time.Since(start))
			}
			for range 10 { // the first ones connect
				commit()
				put()
			}
			commits, hints, puts, watched = nil, nil, nil, nil
			for b.Loop() {
				commit()
				put()
			}
			p50 := func(all []time.Duration) float64 {
				slices.Sort(all)
				return float64(all[len(all)/2].Microseconds())
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(p50(commits), "commit-p50-µs")
			b.ReportMetric(p50(puts), "put-p50-µs")
			b.ReportMetric(p50(hints), "hint-p50-µs")
			b.ReportMetric(p50(watched), "watch-p50-µs")
			b.ReportMetric(p50(hints)/p50(watched), "ratio-p50")
		})
	}
}
