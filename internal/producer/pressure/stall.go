package pressure

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const withoutPressure = "this kernel does not measure pressure; boot it with psi=1 (CONFIG_PSI, Linux 4.20)"

// unmeasured tells what the kernel says where it was told not to measure.
func unmeasured(err error) bool { return errors.Is(err, unix.EOPNOTSUPP) }

// A stall is the source of pressure.*: one open pressure file, with a trigger
// on it or without. a is the time of the share that is watched, in microseconds.
type stall struct {
	subject
	meter
	resource string // cpu, memory, io
	fd       int
}

// A place is where pressure files are.
type place struct {
	dir      int    // descriptor, or unix.AT_FDCWD
	file     string // below it
	instance string // of the cgroup; empty: the whole machine
}

func (p place) close() {
	if p.dir != unix.AT_FDCWD {
		unix.Close(p.dir)
	}
}

// ofMachine is where the pressure file of the whole machine is.
func ofMachine(proc, resource string) place {
	return place{dir: unix.AT_FDCWD, file: filepath.Join(proc, "pressure", resource)}
}

// ofCgroup finds the pressure file of a cgroup below their root. The number of a
// cgroup is never used again, so it tells one from another of the same name.
func ofCgroup(root string, s subject, resource string) (place, error) {
	dir, err := unix.Open(filepath.Join(root, s.cgroup), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return place{}, absentCgroup(s.cgroup)
	}
	if err != nil {
		return place{}, cannotOpen("cgroup "+s.cgroup, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		unix.Close(dir)
		return place{}, os.NewSyscallError("fstat", err)
	}
	return place{dir, resource + ".pressure", strconv.FormatUint(st.Ino, 10)}, nil
}

func absentCgroup(cgroup string) error {
	return fmt.Errorf("%w: there is no cgroup %s; start what it is of, or wait for it (--wait)", belfry.ErrNoEvent, cgroup)
}

// cgroupRoot is where the whole hierarchy of cgroup v2 is mounted.
func cgroupRoot(proc string) (string, error) {
	b, err := os.ReadFile(filepath.Join(proc, "self", "mountinfo"))
	if err != nil {
		return "", err
	}
	if root, ok := parseCgroupRoot(b); ok {
		return root, nil
	}
	return "", fmt.Errorf("%w: no cgroup v2 is mounted here; mount it, or watch %s", belfry.ErrUnsupported, shareSome)
}

// openStall opens the pressure file of a subject, with a trigger if the
// threshold and the kernel allow one.
func openStall(at place, s subject, resource string, t belfry.Threshold) (*stall, error) {
	opened := &stall{subject: s, resource: resource, fd: -1}
	opened.meter = newMeter(t, func(hi float64, window time.Duration) error {
		fd, err := unix.Openat(at.dir, at.file, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, trigger(s.share(), hi, window)); err != nil {
			unix.Close(fd)
			return err
		}
		opened.fd = fd
		return nil
	})
	if opened.fd >= 0 {
		return opened, nil
	}
	fd, err := unix.Openat(at.dir, at.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		opened.fd = fd
		return opened, nil
	case unmeasured(err), errors.Is(err, unix.ENOENT) && s.cgroup == "":
		return nil, fmt.Errorf("%w: %s", belfry.ErrUnsupported, withoutPressure)
	case errors.Is(err, unix.ENOENT) && unix.Faccessat(at.dir, "cgroup.procs", unix.F_OK, 0) != nil: // removed this moment
		return nil, absentCgroup(s.cgroup)
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("%w: cgroup %s does not measure pressure; write 1 to its cgroup.pressure, and boot with psi=1", belfry.ErrUnsupported, s.cgroup)
	}
	return nil, cannotOpen(at.file, err)
}

// cannotOpen refuses what is there, but not for this process.
func cannotOpen(what string, err error) error {
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return fmt.Errorf("%w: %s: %w; raise LimitNOFILE of the agent's unit", belfry.ErrLimit, what, err)
	}
	return fmt.Errorf("%w: %s: %w; let the agent read it", belfry.ErrPermission, what, err)
}

// trigger is what a pressure file takes: share, stalled time and window, in
// microseconds. It says so once a window when tasks were stalled that long in it.
func trigger(share string, hi float64, window time.Duration) []byte {
	us := window.Microseconds()
	stalled := min(max(int64(hi/100*float64(us)), 1), us)
	return fmt.Appendf(nil, "%s %d %d\x00", share, stalled, us)
}

func (s *stall) read() (counts, error) {
	var buffer [512]byte // two lines of at most 80
	n, err := unix.Pread(s.fd, buffer[:], 0)
	now := time.Now()
	switch {
	case errors.Is(err, unix.ENODEV):
		return counts{}, fmt.Errorf("%w: cgroup %s was removed; wait for the next of its name", belfry.ErrNoEvent, s.cgroup)
	case unmeasured(err):
		return counts{}, fmt.Errorf("%w: %s", belfry.ErrUnsupported, withoutPressure)
	case err != nil:
		return counts{}, &os.PathError{Op: "read", Path: s.resource + " pressure", Err: err}
	}
	all, err := parseStalls(buffer[:n])
	if err != nil {
		return counts{}, fmt.Errorf("pressure of %s: %w", s.resource, err)
	}
	of := all.some
	if s.full {
		of = all.full
	}
	if of == nil {
		return counts{}, fmt.Errorf("%w: this kernel does not tell %q for %s; watch %s", belfry.ErrUnsupported, s.share(), s.resource, shareSome)
	}
	return counts{at: now, a: of.total, avg: of.avg}, nil
}

func (s *stall) value(old, now counts) (float64, proto.Message) {
	stalled := time.Duration(now.a-old.a) * time.Microsecond
	return 100 * stalled.Seconds() / now.seconds(old), &belfryv1.Pressure{
		Resource: s.resource, Share: s.share(), Cgroup: text(s.cgroup), Method: s.method(), WindowSeconds: s.window.Seconds(),
		Avg10: now.avg[0], Avg60: now.avg[1], Avg300: now.avg[2], TotalUs: now.a,
	}
}

func (s *stall) close() { unix.Close(s.fd) }

// text is a path as the data can hold it.
func text(s string) string { return strings.ToValidUTF8(s[:min(len(s), 1024)], "?") }
