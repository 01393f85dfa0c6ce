package process

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A stat is what matters here of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	pid    int
	comm   string // at most 15 bytes of the program's name
	state  byte   // R, S, D, …; Z and X are dead
	ppid   int
	start  uint64 // field 22: ticks after boot
	status uint32 // field 52, as wait(2) gives it; 0 where this process may not know
}

// instance is the identifier of the process, PID@STARTTIME.
func (s stat) instance() string { return fmt.Sprintf("%d@%d", s.pid, s.start) }

func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

var errStat = errors.New("not a line of /proc/PID/stat")

// parseStat reads the line. The name in parentheses may hold blanks and
// parentheses itself, so the fields begin behind the last one.
func parseStat(b []byte) (stat, error) {
	var s stat
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return s, errStat
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:open])))
	fields := strings.Fields(string(b[end+1:]))
	if err != nil || len(fields) < 20 || len(fields[0]) != 1 {
		return s, errStat
	}
	s.pid, s.comm, s.state = pid, string(b[open+1:end]), fields[0][0]
	if s.ppid, err = strconv.Atoi(fields[1]); err != nil {
		return s, errStat
	}
	if s.start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return s, errStat
	}
	if len(fields) >= 50 { // since Linux 3.5
		n, err := strconv.ParseUint(fields[49], 10, 32)
		if err != nil {
			return s, errStat
		}
		s.status = uint32(n)
	}
	return s, nil
}

// parseUIDs reads the user ids of /proc/PID/status: real, effective, saved and
// that of the file system.
func parseUIDs(b []byte) (uids [4]uint32, ok bool) {
	fields := strings.Fields(statusLine(b, "Uid:"))
	if len(fields) < len(uids) {
		return uids, false
	}
	for i := range uids {
		n, err := strconv.ParseUint(fields[i], 10, 32)
		if err != nil {
			return uids, false
		}
		uids[i] = uint32(n)
	}
	return uids, true
}

// parseCapabilities reads the effective capabilities of /proc/PID/status.
func parseCapabilities(b []byte) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(statusLine(b, "CapEff:")), 16, 64)
	if err != nil {
		return 0
	}
	return n
}

func statusLine(b []byte, key string) string {
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return value
		}
	}
	return ""
}

// parsePidfile reads the process id in the first line of a pid file.
func parsePidfile(b []byte) (int, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	n, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil || n < 1 || n > maxPID {
		return 0, fmt.Errorf("its first line %q is not a process id", limit(string(line), 32))
	}
	return n, nil
}

// joinCmdline joins the words of /proc/PID/cmdline by blanks.
func joinCmdline(b []byte) string {
	return string(bytes.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte{0}, []byte{' '}))
}

// limit cuts a text to n bytes of UTF-8.
func limit(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

// An exit is how a process ended.
type exit struct {
	source     string // who said so: pidfd, proc; unknown: nobody, and the rest is zero
	code       int32
	signal     string // without SIG; empty: it ended by itself with code
	coreDumped bool
}

var unknown = exit{source: "unknown"}

// decode reads a status as wait(2) describes it.
func decode(status uint32, source string) exit {
	w := unix.WaitStatus(status)
	if !w.Signaled() {
		return exit{source: source, code: int32(w.ExitStatus())}
	}
	name := strings.TrimPrefix(unix.SignalName(w.Signal()), "SIG")
	if name == "" { // a real-time signal
		name = strconv.Itoa(int(w.Signal()))
	}
	return exit{source: source, signal: name, coreDumped: w.CoreDump()}
}
