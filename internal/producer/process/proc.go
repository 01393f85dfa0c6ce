package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file reads /proc; stat.go takes apart what it reads.

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// statSize is more than /proc/PID/stat ever has: 51 numbers and a name.
const statSize = 2048

// readStat goes without os.File, whose nine calls of the kernel, where three do,
// would be half of the way from an exit to its occurrence.
func readStat(pid int) (stat, error) {
	path := procPath(pid, "stat")
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return stat{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var room [statSize]byte
	n, err := retry(func() (int, error) { return unix.Read(fd, room[:]) }) // the kernel gives all of it at once
	if err != nil {
		return stat{}, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return parseStat(room[:n])
}

// retry calls again what a signal has interrupted.
func retry(call func() (int, error)) (n int, err error) {
	for n, err = call(); errors.Is(err, unix.EINTR); {
		n, err = call()
	}
	return n, err
}

func readUIDs(pid int) ([4]uint32, bool) {
	b, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return [4]uint32{}, false
	}
	return parseUIDs(b)
}

// readCmdline is empty for kernel threads and for what is dead.
func readCmdline(pid int) string {
	b, err := os.ReadFile(procPath(pid, "cmdline"))
	if err != nil {
		return ""
	}
	return joinCmdline(b)
}

// deleted is what the kernel writes behind the path of an executable whose
// file has been removed or replaced, as a package upgrade does.
const deleted = " (deleted)"

// readExe is the path of the executable, without the mark. Only the owner of
// a process and root may know it: fs.ErrPermission.
func readExe(pid int) (string, error) {
	link, err := os.Readlink(procPath(pid, "exe"))
	return strings.TrimSuffix(link, deleted), err
}

// A file is the identity of an executable: its path may change while it runs,
// this only by exec.
type file struct{ dev, ino uint64 }

func exeFile(pid int) (file, error) {
	var st unix.Stat_t
	if err := unix.Stat(procPath(pid, "exe"), &st); err != nil {
		return file{}, err
	}
	return file{uint64(st.Dev), st.Ino}, nil
}

// threadOf is the process of a thread that is not the process's first.
func threadOf(tid int) (pid int, ok bool) {
	b, err := os.ReadFile(procPath(tid, "status"))
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(statusLine(b, "Tgid:")))
	return pid, err == nil && pid != tid
}

// pids are all processes, in no order that means anything.
func pids() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	}
	return all, nil
}

// mayTrace tells whether the kernel shows this process the exit status of a
// dead one in /proc/PID/stat: the rule of ptrace(2), "Ptrace access mode
// checking", for what has no memory any more.
func mayTrace(pid int) bool {
	self, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	if parseCapabilities(self)&(1<<unix.CAP_SYS_PTRACE) != 0 {
		return true
	}
	own := uint32(os.Geteuid())
	uids, ok := readUIDs(pid)
	return ok && [3]uint32(uids[:3]) == [3]uint32{own, own, own}
}

// A view is the processes as one search sees them; several watches share it.
type view struct {
	pids []int
	exes map[int]string // filled when the first watch needs it
	// hidden are those whose executable this process may not see.
	hidden []int
}

func look() (*view, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	return &view{pids: all}, nil
}

func (v *view) readExes() {
	if v.exes != nil {
		return
	}
	v.exes = make(map[int]string, len(v.pids))
	for _, pid := range v.pids {
		exe, err := readExe(pid)
		switch {
		case err == nil:
			v.exes[pid] = exe
		case errors.Is(err, fs.ErrPermission):
			v.hidden = append(v.hidden, pid)
		}
	}
}

// byExe is the topmost, then oldest process that runs the file.
func (v *view) byExe(path string) (stat, bool) {
	v.readExes()
	real, err := filepath.EvalSymlinks(path) // the kernel shows no symbolic links
	if err != nil {
		real = path
	}
	return v.first(func(pid int) bool {
		exe, ok := v.exes[pid]
		return ok && (exe == path || exe == real)
	})
}

// byCmdline leaves out Belfry's own processes: each of them may carry the
// expression.
func (v *view) byCmdline(s subject) (stat, bool) {
	v.readExes()
	own, _ := os.Executable()
	return v.first(func(pid int) bool {
		return (own == "" || v.exes[pid] != own) && s.matches(readCmdline(pid))
	})
}

// first is the topmost match, and the oldest of several: of a server and its
// workers the server.
func (v *view) first(matches func(pid int) bool) (best stat, found bool) {
	matched := map[int]bool{}
	for _, pid := range v.pids {
		if matches(pid) {
			matched[pid] = true
		}
	}
	for pid := range matched {
		s, err := readStat(pid)
		if err != nil || s.dead() || below(s, matched) {
			continue
		}
		if !found || s.start < best.start || s.start == best.start && s.pid < best.pid {
			best, found = s, true
		}
	}
	return best, found
}

// below tells whether an ancestor of s is among the matches.
func below(s stat, matched map[int]bool) bool {
	for depth := 0; s.ppid > 0 && depth < 1000; depth++ { // bounded: pids may be used again while we climb
		if matched[s.ppid] {
			return true
		}
		parent, err := readStat(s.ppid)
		if err != nil {
			return false
		}
		s = parent
	}
	return false
}

// suspect is a process that may run the file but is not ours to see: its name
// is the file's.
func (v *view) suspect(path string) (pid int, ok bool) {
	name := filepath.Base(path)
	name = name[:min(len(name), 15)] // TASK_COMM_LEN of proc_pid_comm(5)
	for _, pid := range v.hidden {
		if s, err := readStat(pid); err == nil && s.comm == name {
			return pid, true
		}
	}
	return 0, false
}

// maxPidfile is more than a number and a line take.
const maxPidfile = 4096

// readPidfile reads the number in a file that may be another user's, who may put
// anything in its place: a FIFO would make us wait, a device never end.
func readPidfile(path string) (int, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPidfile))
	if err != nil {
		return 0, err
	}
	pid, err := parsePidfile(b)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return pid, nil
}
