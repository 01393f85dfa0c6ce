package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// BenchmarkAppend is durable records a second on the disk under the temporary
// directory, by size of the commit.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			j, err := Open(b.TempDir(), Options{Node: nodeA, Incarnation: 1})
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close(true)
			batch := make([]belfry.Notification, size)
			now := time.Now()
			number := uint64(0)
			b.ResetTimer()
			for done := 0; done < b.N; done += size {
				number++
				for i := range batch {
					batch[i] = belfry.Notification{
						Kind: belfry.KindOccurrence, Node: nodeA, NodeName: "a", Incarnation: 1, Entry: uint64(1 + i%256),
						Event: belfry.EventID{Class: "user.job", Subject: subjects[i%256]},
						First: number*uint64(size/256+1) + uint64(i/256), Last: number*uint64(size/256+1) + uint64(i/256), Count: 1, FirstTime: now, Time: now,
					}
				}
				if err := j.Append(batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

var subjects = func() (s [256]string) {
	for i := range s {
		s[i] = fmt.Sprint("build/", i)
	}
	return s
}()

// BenchmarkRead is records a second of a replay.
func BenchmarkRead(b *testing.B) {
	j, err := Open(b.TempDir(), Options{Node: nodeA, Incarnation: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close(true)
	batch := make([]belfry.Notification, 1024)
	now := time.Now()
	for i := range batch {
		batch[i] = belfry.Notification{
			Kind: belfry.KindOccurrence, Node: nodeA, NodeName: "a", Incarnation: 1, Entry: uint64(1 + i%256),
			Event: belfry.EventID{Class: "user.job", Subject: subjects[i%256]}, First: uint64(1 + i/256), Last: uint64(1 + i/256), Count: 1, FirstTime: now, Time: now,
		}
	}
	if err := j.Append(batch); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for done := 0; done < b.N; {
		r, err := j.Read(Query{})
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := r.Next(); err != nil {
				break
			}
			done++
		}
		r.Close()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
