// Package pressure serves what tasks wait for: pressure.cpu, pressure.memory
// and pressure.io, the kernel's pressure stall information of the whole machine
// or of a cgroup; cpu.wait, memory.wait and paging.wait, what a task waits for a
// CPU, for memory to be freed, and for pages.
//
// Where the kernel lets it, it is the kernel that watches a threshold, and
// nothing is read until that is reached.
package pressure

import (
	"context"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// The classes of this producer.
const (
	CPU    belfry.Class = "pressure.cpu"
	Memory belfry.Class = "pressure.memory"
	IO     belfry.Class = "pressure.io"

	CPUWait    belfry.Class = "cpu.wait"
	MemoryWait belfry.Class = "memory.wait"
	PagingWait belfry.Class = "paging.wait"
)

// searchEvery is how often a cgroup that is not there is looked for.
const searchEvery = time.Second

// A Producer has no state between two calls of Run and is safe for concurrent use.
type Producer struct{ proc string }

// New makes a Producer.
func New() *Producer { return newAt("/proc") }

// newAt makes a Producer that finds the kernel's files elsewhere.
func newAt(proc string) *Producer { return &Producer{proc: proc} }

// Name is the folder's.
func (*Producer) Name() string { return "pressure" }

// Classes are the three of pressure and the three of waiting.
func (*Producer) Classes() []belfry.ClassInfo {
	pressure := func(c belfry.Class, what string) belfry.ClassInfo {
		return belfry.ClassInfo{
			Class: c, Kind: belfry.Value, Unit: "%", Data: "belfry.v1.Pressure", Remote: true, Volatile: true,
			Summary: "share of time in which tasks are stalled for " + what,
			Subject: forms(c),
		}
	}
	wait := func(c belfry.Class, unit, summary, data string) belfry.ClassInfo {
		return belfry.ClassInfo{Class: c, Kind: belfry.Value, Unit: unit, Data: "belfry.v1." + data, Remote: true, Volatile: true, Summary: summary}
	}
	return []belfry.ClassInfo{
		pressure(CPU, "a CPU"),
		pressure(Memory, "memory"),
		pressure(IO, "input or output"),
		wait(CPUWait, "ms", "how long a task waits for a CPU before it gets one, on the average of a second", "CpuWait"),
		wait(MemoryWait, "/s", "how often a task had to free memory before it got some", "MemoryWait"),
		wait(PagingWait, "ms/s", "how much of a second a task at least waits for memory: for pages to be read, written or freed", "PagingWait"),
	}
}

// CheckSubject refuses what has none of the forms of a subject.
func (*Producer) CheckSubject(class belfry.Class, text string) error {
	_, err := parseSubject(class, text)
	return err
}

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	s := newSession(p.proc, send)
	defer s.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next := s.nextTimeout(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		signals, failed := s.triggers()
		var err error
		select {
		case <-ctx.Done():
			return nil
		case err = <-failed:
		case all := <-signals:
			err = s.signalled(time.Now(), all)
		case r := <-requests:
			if r.Watch != nil {
				err = s.watch(time.Now(), *r.Watch)
			} else {
				s.unwatch(r.Unwatch)
			}
		case <-timer.C:
			err = s.advance(time.Now())
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("pressure: %w", err)
		}
	}
}
