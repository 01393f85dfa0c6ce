package process

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// Named takes apart a subject that names a process or an executable: pid is 0
// or exe is empty. It answers false for the other forms, which name neither,
// and for what is no subject.
func Named(text string) (pid int, exe string, ok bool) {
	s, err := parse(text)
	switch {
	case err != nil:
	case s.kind == byPID:
		return s.pid, "", true
	case s.kind == byExe:
		return 0, s.path, true
	}
	return 0, "", false
}

// A Running is what the kernel says of a process, all of it of the same one.
type Running struct {
	Instance string
	UIDs     [4]uint32 // real, effective, saved, of the file system (proc_pid_status(5))
	Dev, Ino uint64    // of the executable as stat(2) has them; zero where the agent may not see it
}

// LookAt reads /proc/PID through one descriptor, so that a number that is used
// again meanwhile shows as ErrUnknown, as does a process that is gone.
func LookAt(pid int) (r Running, err error) {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return r, fmt.Errorf("%w: process %d: %w", belfry.ErrUnknown, pid, err)
	}
	defer dir.Close()
	b, err := readAt(dir, "stat")
	if err != nil {
		return r, fmt.Errorf("%w: process %d: %w", belfry.ErrUnknown, pid, err)
	}
	s, err := parseStat(b)
	if err != nil {
		return r, fmt.Errorf("%w: process %d: %w", belfry.ErrUnknown, pid, err)
	}
	if b, err = readAt(dir, "status"); err != nil {
		return r, fmt.Errorf("%w: process %d: %w", belfry.ErrUnknown, pid, err)
	}
	uids, ok := parseUIDs(b)
	if !ok {
		return r, fmt.Errorf("%w: process %d: /proc/%d/status has no user ids", belfry.ErrUnknown, pid, pid)
	}
	r.Instance, r.UIDs = s.instance(), uids
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), "exe", &st, 0) == nil {
		r.Dev, r.Ino = uint64(st.Dev), st.Ino
	}
	return r, nil
}

func readAt(dir *os.File, name string) ([]byte, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return io.ReadAll(f)
}
