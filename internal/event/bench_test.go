package event

import (
	"runtime"
	"testing"

	"github.com/belfry-ha/belfry"
)

// stalled makes a machine with n consumers of one event that never read.
func stalled(n int, spec belfry.Registration) *Machine {
	m := scriptMachine("a", 1, scriptStart)
	for c := 1; c <= n; c++ {
		m.Receive(scriptStart, Open{Consumer: ConsumerID(c)})
		m.Receive(scriptStart, Register{Consumer: ConsumerID(c), Number: 1, Registration: spec})
	}
	m.Receive(scriptStart, Associate{Entry: 1, Instance: "1:1"})
	m.Take()
	return m
}

// TestTenMillionDuplicatesAreOneNotification is Q1 and Q2 at the size of
// events.md 12: nothing grows, and the count is exact. It is not parallel,
// because it counts what the whole process allocates.
func TestTenMillionDuplicatesAreOneNotification(t *testing.T) {
	const posts = 10_000_000
	m := stalled(1, belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true})
	p := &Post{Entry: 1, Occurrence: belfry.Occurrence{Time: scriptStart, Event: belfry.EventID{Instance: "1:1"}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range posts {
		m.Receive(scriptStart, p)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 1<<20 {
		t.Errorf("%d bytes allocated for %d duplicates; want at most 1 MiB", grown, posts)
	}
	if got := m.QueueLength(1); got != 1 {
		t.Errorf("queue length: want 1, got %d", got)
	}
	m.Receive(scriptStart, Ready{Consumer: 1})
	b := m.Take().Batches[0].Notifications
	if len(b) != 1 || b[0].Count != posts || b[0].First != 1 || b[0].Last != posts {
		t.Errorf("want one notification of 1 to %d, got %v", posts, b)
	}
}

// BenchmarkDuplicates posts duplicates while nobody reads: ns per post.
func BenchmarkDuplicates(b *testing.B) {
	plain := belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true}
	queue := plain
	queue.Limit = 17
	for _, bb := range []struct {
		name      string
		consumers int
		spec      belfry.Registration
	}{
		{"plain/1", 1, plain}, {"plain/100000", 100_000, plain}, {"queue/1", 1, queue}, {"queue/1000", 1000, queue},
	} {
		b.Run(bb.name, func(b *testing.B) {
			m := stalled(bb.consumers, bb.spec)
			p := &Post{Entry: 1, Occurrence: belfry.Occurrence{Time: scriptStart, Event: belfry.EventID{Instance: "1:1"}}}
			m.Receive(scriptStart, p)
			b.ReportAllocs()
			for b.Loop() {
				m.Receive(scriptStart, p)
			}
		})
	}
}

// BenchmarkFanOut posts one occurrence and delivers it to all: ns per
// consumer and occurrence.
func BenchmarkFanOut(b *testing.B) {
	for _, consumers := range []int{1, 1000, 100_000} {
		b.Run(itoa(consumers), func(b *testing.B) {
			m := stalled(consumers, belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true})
			p := &Post{Entry: 1, Occurrence: belfry.Occurrence{Time: scriptStart, Event: belfry.EventID{Instance: "1:1"}}}
			ready, ack := make([]Message, consumers), make([]Ack, consumers)
			for c := range consumers {
				ready[c] = Ready{Consumer: ConsumerID(c + 1)}
				ack[c].Consumer = ConsumerID(c + 1)
			}
			b.ReportAllocs()
			for b.Loop() {
				m.Receive(scriptStart, p)
				for _, r := range ready {
					m.Receive(scriptStart, r)
				}
				for _, batch := range m.Take().Batches {
					a := &ack[batch.Consumer-1]
					a.Batch = batch.Number
					m.Receive(scriptStart, *a)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(consumers), "ns/delivery")
		})
	}
}

// BenchmarkIdle registers without anything happening: bytes per registration.
func BenchmarkIdle(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m := scriptMachine("a", 1, scriptStart)
		for c := range 100 {
			m.Receive(scriptStart, Open{Consumer: ConsumerID(c + 1)})
			for r := range n / 100 {
				m.Receive(scriptStart, Register{Consumer: ConsumerID(c + 1), Number: uint32(r), Registration: belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true}})
			}
		}
		m.Take()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/registration")
		runtime.KeepAlive(m)
	}
}
