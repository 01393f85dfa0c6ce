package pressure_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A cgroup is one of a test's own, below the root of cgroup v2.
type cgroup struct {
	t    *testing.T
	name string // as a subject
	path string
	busy []*exec.Cmd
}

var cgroups atomic.Int64

func newCgroup(t *testing.T) *cgroup {
	t.Helper()
	needsPressure(t)
	root := cgroupMount()
	if root == "" {
		t.Skip("needs: cgroup2")
	}
	name := fmt.Sprintf("/belfry-test-%d-%d", os.Getpid(), cgroups.Add(1))
	c := &cgroup{t: t, name: name, path: filepath.Join(root, name)}
	if err := os.Mkdir(c.path, 0o755); errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		t.Skip("needs: root (to make a cgroup)")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.relax()
		_ = unix.Rmdir(c.path)
	})
	return c
}

func needsPressure(t *testing.T) {
	t.Helper()
	if _, err := os.ReadFile("/proc/pressure/cpu"); err != nil {
		t.Skip("needs: psi")
	}
}

func cgroupMount() string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	return ""
}

// strain keeps one CPU busy with two tasks, of which one waits at all times.
func (c *cgroup) strain() {
	c.t.Helper()
	dir, err := os.Open(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer dir.Close()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		c.t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	for range 2 {
		cmd := exec.CommandContext(c.t.Context(), "sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		if err := cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		c.busy = append(c.busy, cmd)
		if err := unix.SchedSetaffinity(cmd.Process.Pid, &one); err != nil {
			c.t.Fatal(err)
		}
	}
}

// relax ends what strain has started.
func (c *cgroup) relax() {
	for _, cmd := range c.busy {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	c.busy = nil
}

// replace gives the name to another cgroup.
func (c *cgroup) replace() {
	c.t.Helper()
	if err := errors.Join(unix.Rmdir(c.path), os.Mkdir(c.path, 0o755)); err != nil {
		c.t.Fatal(err)
	}
}
