package process

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/belfry-ha/belfry"
)

// A kind is what stands before the = of a subject.
type kind uint8

const (
	byPID kind = iota
	byExe
	byCmdline
	byPidfile
	byUnit
)

// A subject is what the user named, taken apart.
type subject struct {
	text       string // as it came
	kind       kind
	pid        int            // byPID
	path       string         // byExe, byPidfile: absolute and clean
	expression *regexp.Regexp // byCmdline
	unit       string         // byUnit
}

// forms is the remedy in every refusal.
const forms = "write pid=N, exe=/PATH, cmdline=EXPRESSION, pidfile=/PATH or unit=NAME.service"

// maxPID is the greatest value of kernel.pid_max (proc(5)).
const maxPID = 1 << 22

// parse reads a subject. It refuses with ErrUsage what has none of the forms.
func parse(text string) (subject, error) {
	s := subject{text: text}
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		return s, fmt.Errorf("%w: subject %q; %s", belfry.ErrUsage, text, forms)
	}
	switch key {
	case "pid":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > maxPID || strconv.Itoa(n) != value {
			return s, fmt.Errorf("%w: pid=%q; a process id is a number from 1 to %d", belfry.ErrUsage, value, maxPID)
		}
		s.kind, s.pid = byPID, n
	case "exe", "pidfile":
		if !filepath.IsAbs(value) {
			return s, fmt.Errorf("%w: %s=%q is not absolute; write %s=/full/path", belfry.ErrUsage, key, value, key)
		}
		s.kind, s.path = byExe, filepath.Clean(value)
		if key == "pidfile" {
			s.kind = byPidfile
		}
	case "cmdline":
		e, err := regexp.Compile(value)
		if err != nil {
			return s, fmt.Errorf("%w: cmdline=%s: %w; write a regular expression (RE2)", belfry.ErrUsage, value, err)
		}
		if value == "" {
			return s, fmt.Errorf("%w: cmdline= matches every process; write an expression", belfry.ErrUsage)
		}
		s.kind, s.expression = byCmdline, e
	case "unit":
		s.kind, s.unit = byUnit, value
		return s, checkUnit(value)
	default:
		return s, fmt.Errorf("%w: subject %q: unknown kind %q; %s", belfry.ErrUsage, text, key, forms)
	}
	return s, nil
}

// exclusive: a pid file, an expression, an alias of a service or a symbolic link
// on the way to a program may well name what another one names.
func (s subject) exclusive() bool { return s.kind == byPID }

// follows: a process id names one process and no successor.
func (s subject) follows() bool { return s.kind != byPID }

// matches tells whether a command line, its words joined by blanks, is meant.
// Whoever asks for this very subject has it on the command line as well and
// is not meant.
func (s subject) matches(cmdline string) bool {
	return s.expression.MatchString(cmdline) && !strings.Contains(cmdline, s.text)
}
