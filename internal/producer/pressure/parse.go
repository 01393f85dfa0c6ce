package pressure

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

var errForm = errors.New("not in the form that the kernel's documentation has")

// stalls are the two lines of a pressure file; nil: the kernel does not tell.
type stalls struct{ some, full *share }

// A share is how much of the time tasks are stalled.
type share struct {
	avg   [3]float64 // percent of the last 10, 60 and 300 s
	total uint64     // µs
}

// parseStalls reads (Documentation/accounting/psi.rst)
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
//
// Lines and fields that are not known are passed over.
func parseStalls(b []byte) (s stalls, err error) {
	for line := range bytes.Lines(b) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 {
			continue
		}
		to := map[string]**share{shareSome: &s.some, shareFull: &s.full}[fields[0]]
		if to == nil {
			continue
		}
		if *to, err = parseShare(fields[1:]); err != nil {
			return stalls{}, fmt.Errorf("%w: %q", err, line)
		}
	}
	return s, nil
}

func parseShare(fields []string) (*share, error) {
	s, found := new(share), false
	averages := map[string]*float64{"avg10": &s.avg[0], "avg60": &s.avg[1], "avg300": &s.avg[2]}
	for _, field := range fields {
		name, text, _ := strings.Cut(field, "=")
		var err error
		if to := averages[name]; to != nil {
			if *to, err = strconv.ParseFloat(text, 64); err != nil || math.IsNaN(*to) || math.IsInf(*to, 0) {
				return nil, errForm
			}
		}
		if name == "total" {
			if s.total, err = strconv.ParseUint(text, 10, 64); err != nil {
				return nil, errForm
			}
			found = true
		}
	}
	if !found {
		return nil, errForm
	}
	return s, nil
}

// A schedule is what tasks waited for a CPU, on all of them.
type schedule struct {
	delay, slices uint64 // ns; times
	cpus          uint32
}

// parseSchedstat adds up the lines
//
//	cpu0 0 0 0 0 0 0 RUN DELAY SLICES
//
// of /proc/schedstat. The last three are the same in all its versions since 9
// (Documentation/scheduler/sched-stats.rst).
func parseSchedstat(b []byte) (s schedule, err error) {
	for line := range bytes.Lines(b) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "cpu") {
			continue
		}
		if len(fields) < 10 {
			return schedule{}, fmt.Errorf("schedstat: %w: %q", errForm, line)
		}
		delay, err := strconv.ParseUint(fields[8], 10, 64)
		slices, err2 := strconv.ParseUint(fields[9], 10, 64)
		if err != nil || err2 != nil {
			return schedule{}, fmt.Errorf("schedstat: %w: %q", errForm, line)
		}
		s.delay, s.slices, s.cpus = s.delay+delay, s.slices+slices, s.cpus+1
	}
	if s.cpus == 0 {
		return s, fmt.Errorf("schedstat: %w: no CPU in it", errForm)
	}
	return s, nil
}

// parseStallCount adds up the lines of /proc/vmstat that begin with allocstall:
// one for each zone since Linux 4.10, one for all before.
func parseStallCount(b []byte) (sum uint64, found bool, err error) {
	for line := range bytes.Lines(b) {
		name, text, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		if name != "allocstall" && !strings.HasPrefix(name, "allocstall_") {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return 0, false, fmt.Errorf("vmstat: %w: %q", errForm, line)
		}
		sum, found = sum+n, true
	}
	return sum, found, nil
}

// parseCgroupRoot is the mount point of cgroup v2 in a mountinfo
// (proc_pid_mountinfo(5)), which has a line like
//
//	36 35 0:31 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
//
// Mounts that show a part of the hierarchy only, or have blanks in their path,
// are passed over.
func parseCgroupRoot(mountinfo []byte) (string, bool) {
	for line := range bytes.Lines(mountinfo) {
		before, after, _ := strings.Cut(string(line), " - ")
		fields := strings.Fields(before)
		if !strings.HasPrefix(after, "cgroup2 ") || len(fields) < 6 {
			continue
		}
		if root := fields[4]; fields[3] == "/" && strings.HasPrefix(root, "/") && !strings.Contains(root, `\`) {
			return root, true
		}
	}
	return "", false
}
