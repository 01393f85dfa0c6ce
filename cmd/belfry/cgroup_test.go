package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cgroupMounts are where cgroup v2 and the memory controller of version 1 are
// mounted; empty: nowhere (proc_pid_mounts(5)).
func cgroupMounts() (root, memory string) {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 4:
		case fields[2] == "cgroup2" && root == "":
			root = fields[1]
		case fields[2] == "cgroup" && slices.Contains(strings.Split(fields[3], ","), "memory"):
			memory = fields[1]
		}
	}
	return root, memory
}

// lacksCgroups tells whether a cgroup of version 2 can be made, whose pressure
// the kernel measures; with a limit, whether its memory can be limited, too.
func lacksCgroups(limit bool) string {
	root, memory := cgroupMounts()
	if root == "" {
		return "cgroup2"
	}
	dir, err := os.MkdirTemp(root, "belfry-test-")
	if err != nil {
		return "cgroup2"
	}
	defer func() { _ = os.Remove(dir) }()
	if _, err := os.ReadFile(filepath.Join(dir, "cpu.pressure")); err != nil {
		return "psi"
	}
	if _, err := os.Stat(filepath.Join(dir, "memory.high")); limit && memory == "" && err != nil {
		return "memcg"
	}
	return ""
}

// cmdCgroup makes a cgroup until the end of the script: cgroup [MEMORY]. CGROUP
// is its path below the root of version 2; a task joins it by writing its number
// to each of the files that CGROUP_PROCS names.
func cmdCgroup(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: cgroup [MEMORY]")
	}
	root, memory := cgroupMounts()
	dir, err := os.MkdirTemp(root, "belfry-test-")
	ts.Check(err)
	dirs := []string{dir}
	ts.Defer(func() {
		for _, dir := range dirs {
			ts.Check(removeCgroup(dir))
		}
	})
	if len(args) == 1 {
		err := os.WriteFile(filepath.Join(dir, "memory.high"), []byte(args[0]), 0)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) { // the controller is version 1's
			dirs = append(dirs, filepath.Join(memory, filepath.Base(dir)))
			ts.Check(os.Mkdir(dirs[1], 0o755))
			err = os.WriteFile(filepath.Join(dirs[1], "memory.limit_in_bytes"), []byte(args[0]), 0)
		}
		ts.Check(err)
	}
	var procs []string
	for _, dir := range dirs {
		procs = append(procs, filepath.Join(dir, "cgroup.procs"))
	}
	ts.Setenv("CGROUP", "/"+filepath.Base(dir))
	ts.Setenv("CGROUP_PROCS", strings.Join(procs, " "))
}

// removeCgroup ends the tasks that are still in it, and it.
func removeCgroup(dir string) error {
	return waitUntil(10*time.Second, func() error {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(procs)) {
			if n, err := strconv.Atoi(pid); err == nil && n > 0 {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return os.Remove(dir)
	})
}
