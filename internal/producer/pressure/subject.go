package pressure

import (
	"fmt"
	"path"
	"strings"

	"github.com/belfry-ha/belfry"
)

// A subject is of what the pressure is measured.
type subject struct {
	full   bool   // time in which all tasks that are not idle are stalled; else in which one at least is
	cgroup string // clean path below the root of cgroup v2, "/" that root; empty: the whole machine
}

const (
	shareSome  = "some"
	shareFull  = "full"
	fullPrefix = shareFull + ":"
)

func (s subject) share() string {
	if s.full {
		return shareFull
	}
	return shareSome
}

// forms are the subjects of a class, for people.
func forms(class belfry.Class) string {
	if class == CPU { // a machine as a whole always has a task that runs
		return "some | /CGROUP | full:/CGROUP"
	}
	return "some | full | /CGROUP | full:/CGROUP"
}

// mountPoint is where cgroup v2 is mounted almost everywhere. It is no cgroup's
// name; whoever writes it means a file.
const mountPoint = "/sys/fs/cgroup"

// parseSubject reads the subject of any class of this producer. ErrUsage for
// what can never name anything.
func parseSubject(class belfry.Class, text string) (s subject, err error) {
	refuse := func(format string, args ...any) (subject, error) {
		return subject{}, fmt.Errorf("%w: %w", belfry.ErrUsage, fmt.Errorf(format, args...))
	}
	switch class {
	case CPU, Memory, IO:
	default:
		if text != "" {
			return refuse("%s has no subject; write %s", class, class)
		}
		return s, nil
	}
	s.cgroup, s.full = strings.CutPrefix(text, fullPrefix)
	switch {
	case text == shareSome:
		return subject{}, nil
	case text == shareFull:
		s = subject{full: true}
	case !strings.HasPrefix(s.cgroup, "/"):
		return refuse("subject %q; of %s it is %s", text, class, forms(class))
	case path.Clean(s.cgroup) != s.cgroup:
		return refuse("subject %q is no plain path; write %s", text, strings.TrimSuffix(text, s.cgroup)+path.Clean(s.cgroup))
	case s.cgroup == mountPoint || strings.HasPrefix(s.cgroup, mountPoint+"/"):
		return refuse("%s is where cgroups are mounted; write the path below it, as /proc/PID/cgroup has it", s.cgroup)
	}
	if class == CPU && s.full && (s.cgroup == "" || s.cgroup == "/") {
		return refuse("a machine as a whole is never full of tasks that wait for a CPU; write %s:%s, or full:/CGROUP", class, shareSome)
	}
	return s, nil
}
