package pressure_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/pressure"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func stalled(t *testing.T, s event.Sample) *belfryv1.Pressure {
	t.Helper()
	var p belfryv1.Pressure
	if err := proto.Unmarshal(s.Data, &p); err != nil {
		t.Fatal(err)
	}
	return &p
}

// With CAP_SYS_RESOURCE or without, by trigger or by reading: which of them
// this kernel allows is in the data.
func TestPressureOfACgroupRisesAndFalls(t *testing.T) {
	t.Parallel()
	c := newCgroup(t)
	d := producertest.Start(t, pressure.New())
	w := d.Watch(event.Watch{Class: pressure.CPU, Subject: c.name, Threshold: over(20)})
	a := producertest.NextOf[event.Associate](d)
	if a.Entry != w.Entry || a.Instance == "" || a.Exclusive {
		t.Errorf("%+v", a)
	}
	first := producertest.NextOf[event.Sample](d)
	p := stalled(t, first)
	if first.Value != 0 || p.GetResource() != "cpu" || p.GetShare() != "some" || p.GetCgroup() != c.name {
		t.Errorf("value %v, data %v; want 0 of an empty cgroup", first.Value, p)
	}
	switch got := fmt.Sprintf("%s %v", p.GetMethod(), p.GetWindowSeconds()); got {
	case "trigger 0.5", "trigger 2", "reading 1":
		t.Logf("measured by %s s", got)
	default:
		t.Errorf("measured by %s s", got)
	}
	d.Quiet(2500 * time.Millisecond)
	c.strain()
	s := producertest.NextOf[event.Sample](d)
	if p.GetMethod() == "trigger" && s.Value != 20 {
		t.Errorf("value %v, want the threshold", s.Value)
	}
	for s.Value < 80 {
		s = producertest.NextOf[event.Sample](d)
	}
	if s.Value > 100 || stalled(t, s).GetTotalUs() == 0 {
		t.Errorf("value %v, data %v", s.Value, stalled(t, s))
	}
	c.relax()
	for s.Value > 0 {
		s = producertest.NextOf[event.Sample](d)
	}
	d.Quiet(2500 * time.Millisecond)
	c.strain() // it is told again
	for s.Value < 20 {
		s = producertest.NextOf[event.Sample](d)
	}
}

func TestARegistrationOutlivesTheCgroup(t *testing.T) {
	t.Parallel()
	c := newCgroup(t)
	d := producertest.Start(t, pressure.New())
	w := d.Watch(event.Watch{Class: pressure.Memory, Subject: "full:" + c.name, Threshold: over(20)})
	a := producertest.NextOf[event.Associate](d)
	producertest.NextOf[event.Sample](d)
	if err := unix.Rmdir(c.path); err != nil {
		t.Fatal(err)
	}
	if i := producertest.NextOf[event.Invalidate](d); i.Entry != w.Entry || i.Instance != a.Instance {
		t.Errorf("%+v, want %s", i, a.Instance)
	}
	if err := os.Mkdir(c.path, 0o755); err != nil {
		t.Fatal(err)
	}
	if next := producertest.NextOf[event.Associate](d); next.Entry != w.Entry || next.Instance == a.Instance {
		t.Errorf("%+v, want another than %s", next, a.Instance)
	}
	producertest.NextOf[event.Sample](d)
}

// The kernel has one trigger a file, so another threshold takes another file.
func TestAnotherThresholdIsHeardOf(t *testing.T) {
	t.Parallel()
	c := newCgroup(t)
	d := producertest.Start(t, pressure.New())
	w := d.Watch(event.Watch{Class: pressure.CPU, Subject: c.name, Threshold: over(100)})
	producertest.NextOf[event.Associate](d)
	producertest.NextOf[event.Sample](d)
	w.Threshold = over(10)
	d.Watch(w)
	if s := producertest.NextOf[event.Sample](d); s.Value != 0 {
		t.Errorf("value %v after a change of the threshold, want 0 again", s.Value)
	}
	c.strain()
	s := producertest.NextOf[event.Sample](d)
	if stalled(t, s).GetMethod() == "trigger" && s.Value != 10 {
		t.Errorf("value %v, want the new threshold", s.Value)
	}
	w.Threshold = belfry.Threshold{Lo: 5, HasLo: true}
	d.Watch(w)
	for s = producertest.NextOf[event.Sample](d); stalled(t, s).GetMethod() != "reading"; {
		s = producertest.NextOf[event.Sample](d)
	}
	c.relax()
	for s.Value > 5 {
		s = producertest.NextOf[event.Sample](d)
	}
}

func TestWatchesThatComeAndGoLeaveNothing(t *testing.T) { // not parallel: it counts descriptors
	needsPressure(t)
	d := producertest.Start(t, pressure.New())
	d.Unwatch(1) // which there is not: when it is taken, Run has begun
	before := descriptors(t)
	for range 200 {
		w := d.Watch(event.Watch{Class: pressure.CPU, Subject: "some", Threshold: over(90)})
		producertest.NextOf[event.Associate](d)
		d.Unwatch(w.ID)
	}
	d.Unwatch(1)
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// Triggers take the kernel a while to end, but not one after the other.
func TestManyTriggersEndAtOnce(t *testing.T) { // not parallel: it counts descriptors
	needsPressure(t)
	before := descriptors(t)
	d := producertest.Start(t, pressure.New())
	for range 500 {
		d.Watch(event.Watch{Class: pressure.CPU, Subject: "some", Threshold: over(90)})
		d.Until(func(m event.Message) bool { _, ok := m.(event.Associate); return ok })
	}
	if got := descriptors(t); got < before+500 {
		t.Errorf("%d descriptors are open, %d were before", got, before)
	}
	begin := time.Now()
	d.Stop()
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// A cgroup of somebody else takes no trigger from us: it is read.
func TestWithoutRightsItIsRead(t *testing.T) { // not parallel: as root it runs once more as nobody
	needsPressure(t)
	if cgroupMount() == "" {
		t.Skip("needs: cgroup2")
	}
	if !producertest.WithoutRights(t) {
		return
	}
	d := producertest.Start(t, pressure.New())
	d.Watch(event.Watch{Class: pressure.CPU, Subject: "/", Threshold: over(99)})
	producertest.NextOf[event.Associate](d)
	if p := stalled(t, producertest.NextOf[event.Sample](d)); p.GetMethod() != "reading" || p.GetWindowSeconds() != 1 || p.GetCgroup() != "/" {
		t.Errorf("data %v, want one of a reading each second", p)
	}
}
