package pressure

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

func high(hi, hysteresis float64) belfry.Threshold {
	return belfry.Threshold{Hi: hi, HasHi: true, Hysteresis: hysteresis}
}

// What the kernel allows depends on its version and on capabilities.
func TestTheBestWayThatTheKernelAllowsIsTaken(t *testing.T) {
	t.Parallel()
	const near, far = "some 100000 500000", "some 400000 2000000"
	for _, test := range []struct {
		name      string
		threshold belfry.Threshold
		refuses   map[time.Duration]error // of the kernel
		want      string
	}{
		{"with CAP_SYS_RESOURCE", high(20, 0), nil, "[" + near + "] trigger 500ms"},
		{"without", high(20, 0), map[time.Duration]error{closeWindow: unix.EINVAL}, "[" + near + " " + far + "] trigger 2s"},
		{"without, before Linux 6.4", high(20, 0), map[time.Duration]error{closeWindow: unix.EPERM}, "[" + near + "] reading 1s"},
		{"a file that is for reading only", high(20, 0), map[time.Duration]error{closeWindow: unix.EACCES}, "[" + near + "] reading 1s"},
		{"no triggers at all", high(20, 0), map[time.Duration]error{closeWindow: unix.EINVAL, lawfulWindow: unix.EINVAL}, "[" + near + " " + far + "] reading 1s"},
		{"a little", high(0.000001, 0), nil, "[some 1 500000] trigger 500ms"},
		{"what is never reached", high(200, 0), nil, "[some 500000 500000] trigger 500ms"},
		{"zero is always reached", high(0, 0), nil, "[] reading 1s"},
		{"a lower threshold", belfry.Threshold{Hi: 20, HasHi: true, Lo: 5, HasLo: true}, nil, "[] reading 1s"},
	} {
		var asked []string
		m := newMeter(test.threshold, func(hi float64, window time.Duration) error {
			text := trigger(shareSome, hi, window)
			asked = append(asked, string(text[:len(text)-1]))
			return test.refuses[window]
		})
		if got := fmt.Sprintf("%v %s %s", asked, m.method(), m.window); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestNothingIsReadUntilTheKernelSaysSo(t *testing.T) {
	t.Parallel()
	m := newMeter(high(50, 20), func(float64, time.Duration) error { return nil })
	for i, step := range []struct {
		fire  bool
		alone bool // the kernel's word is all there is
		value float64
		want  float64
		quiet bool
		why   string
	}{
		{value: 10, want: 10, quiet: true, why: "the first value"},
		{fire: true, alone: true, value: 80, want: 80, why: "it goes on"},
		{value: 40, want: 40, why: "nobody's threshold is passed, but somebody waits until 30"},
		{fire: true, value: 45, want: 50, why: "the kernel's window lay across two of ours"},
		{value: 50, want: 50, why: "exactly the threshold is past it"},
		{value: 30, want: 30, quiet: true, why: "back by the hysteresis"},
		{fire: true, alone: true, value: 120, want: 100, why: "a share is never more than all"},
	} {
		if step.fire {
			if alone := m.fire(); alone != step.alone || m.quiet {
				t.Errorf("step %d: the kernel's word alone %v, quiet %v; want %v, false", i, alone, m.quiet, step.alone)
			}
		}
		if got := m.judge(step.value); got != step.want || m.quiet != step.quiet {
			t.Errorf("step %d: %v gives %v, quiet %v; want %v, %v: %s", i, step.value, got, m.quiet, step.want, step.quiet, step.why)
		}
	}
}

func TestWithoutATriggerItIsReadAllTheTime(t *testing.T) {
	t.Parallel()
	m := newMeter(high(50, 0), func(float64, time.Duration) error { return unix.EACCES })
	for _, value := range []float64{0, 60, 0} {
		if got := m.judge(value); got != value || m.quiet {
			t.Errorf("%v gives %v, quiet %v", value, got, m.quiet)
		}
	}
}
