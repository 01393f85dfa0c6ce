package pressure

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A source is something that the kernel counts.
type source interface {
	// read takes the counters as they are now. An error that wraps
	// belfry.ErrNoEvent or ErrUnsupported says that they are not there.
	read() (counts, error)

	// value is what has happened between two readings, in the class's unit, and
	// the class's message. The counters have not gone back.
	value(old, now counts) (float64, proto.Message)

	close()
}

// counts are the counters of a source at a moment.
type counts struct {
	at   time.Time
	a, b uint64 // which, is the source's to say; they only grow
	cpus uint32
	avg  [3]float64 // percent of 10, 60 and 300 s
}

// follows tells whether a value can be had from the readings: counters that
// went back were started anew.
func (c counts) follows(old counts) bool {
	return c.a >= old.a && c.b >= old.b && c.at.After(old.at)
}

func (c counts) seconds(old counts) float64 { return c.at.Sub(old.at).Seconds() }

// A file is a source that is read whole and closed each time.
type file struct {
	path   string
	absent string // what is the matter where there is none, and the remedy
}

func (f file) bytes() ([]byte, time.Time, error) {
	b, err := os.ReadFile(f.path)
	now := time.Now()
	if os.IsNotExist(err) {
		err = f.lacking()
	}
	return b, now, err
}

func (f file) lacking() error { return fmt.Errorf("%w: %s", belfry.ErrUnsupported, f.absent) }

func (file) close() {}

// cpuWait is cpu.wait: a is how long tasks waited, in nanoseconds, b how often
// they ran.
type cpuWait struct{ file }

func newCPUWait(proc string) source {
	return cpuWait{file{
		filepath.Join(proc, "schedstat"),
		"this kernel does not count what tasks wait for a CPU (CONFIG_SCHEDSTATS); watch " + string(CPU) + ":" + shareSome,
	}}
}

func (c cpuWait) read() (counts, error) {
	b, now, err := c.bytes()
	if err != nil {
		return counts{}, err
	}
	all, err := parseSchedstat(b)
	return counts{at: now, a: all.delay, b: all.slices, cpus: all.cpus}, err
}

func (cpuWait) value(old, now counts) (float64, proto.Message) {
	delay, slices := now.a-old.a, now.b-old.b
	value := 0.0
	if slices > 0 {
		value = float64(delay) / float64(slices) / float64(time.Millisecond)
	}
	return value, &belfryv1.CpuWait{
		IntervalSeconds: now.seconds(old), DelaySeconds: time.Duration(delay).Seconds(), Slices: slices, Cpus: now.cpus,
	}
}

// memoryWait is memory.wait: a is how often memory had to be freed first.
type memoryWait struct{ file }

func newMemoryWait(proc string) source {
	return memoryWait{file{
		filepath.Join(proc, "vmstat"),
		"this kernel does not count allocations that stall; watch " + string(Memory) + ":" + shareSome,
	}}
}

func (m memoryWait) read() (counts, error) {
	b, now, err := m.bytes()
	if err != nil {
		return counts{}, err
	}
	stalls, found, err := parseStallCount(b)
	if err == nil && !found {
		err = m.lacking()
	}
	return counts{at: now, a: stalls}, err
}

func (memoryWait) value(old, now counts) (float64, proto.Message) {
	stalls, seconds := now.a-old.a, now.seconds(old)
	return float64(stalls) / seconds, &belfryv1.MemoryWait{IntervalSeconds: seconds, Stalls: stalls}
}

// pagingWait is paging.wait: a and b are the time in which some and all tasks
// were stalled for memory, in microseconds.
type pagingWait struct{ file }

func newPagingWait(proc string) source {
	return pagingWait{file{filepath.Join(proc, "pressure", "memory"), withoutPressure}}
}

func (p pagingWait) read() (counts, error) {
	b, now, err := p.bytes()
	if unmeasured(err) {
		err = p.lacking()
	}
	if err != nil {
		return counts{}, err
	}
	s, err := parseStalls(b)
	if err == nil && s.some == nil {
		err = p.lacking()
	}
	if err != nil {
		return counts{}, err
	}
	c := counts{at: now, a: s.some.total}
	if s.full != nil {
		c.b = s.full.total
	}
	return c, nil
}

func (pagingWait) value(old, now counts) (float64, proto.Message) {
	some, seconds := time.Duration(now.a-old.a)*time.Microsecond, now.seconds(old)
	return some.Seconds() * 1000 / seconds, &belfryv1.PagingWait{
		IntervalSeconds: seconds, SomeSeconds: some.Seconds(), FullSeconds: (time.Duration(now.b-old.b) * time.Microsecond).Seconds(),
	}
}
