package sysctl_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
	"github.com/belfry-ha/belfry/internal/producer/sysctl"
)

// outside names the network namespace of the run that has started this one.
const outside = "BELFRY_TEST_OUTSIDE"

// alone runs a test once more in a network namespace of its own, whose settings
// it may write, fails if that fails, and answers false. In there it answers true.
func alone(t *testing.T) bool {
	t.Helper()
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if was := os.Getenv(outside); was != "" {
		if was == here {
			t.Fatal("this is the machine's own network namespace, whose settings are not ours")
		}
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), outside+"="+here)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSPC):
		t.Skip("needs: netns")
	case err != nil || !strings.Contains(string(out), "--- PASS"):
		t.Errorf("in a namespace of its own: %v\n%s", err, out)
	}
	return false
}

func write(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	if !alone(t) {
		return
	}
	seconds := 1000
	producertest.Run(t, sysctl.New(), producertest.Fixture{
		Class:   sysctl.Class,
		Subject: "net.ipv4.tcp_keepalive_time",
		Cause: func() {
			seconds++
			write(t, "net/ipv4/tcp_keepalive_time", strconv.Itoa(seconds))
		},
		Absent:    "net.ipv4.belfry_none",
		Malformed: "net..ipv4",
		Forbidden: "net.ipv4.tcp_fastopen_key", // of root alone, for it is a secret
	})
}

func TestTheKernelsOwnKeys(t *testing.T) {
	if !alone(t) {
		return
	}
	d := producertest.Start(t, sysctl.New())
	p := d.Watch(event.Watch{Class: sysctl.Class, Subject: "net/ipv4/conf/lo/forward*", Entry: producertest.NoEntry, Wait: true})
	f := producertest.NextOf[event.Found](d)
	if f != (event.Found{Watch: p.ID, Subject: "net/ipv4/conf/lo/forwarding"}) {
		t.Fatalf("%+v", f)
	}
	d.Watch(event.Watch{Class: sysctl.Class, Subject: f.Subject})
	producertest.NextOf[event.Associate](d)
	write(t, "net/ipv4/conf/all/forwarding", "1") // sets those of all interfaces
	wantChange(t, d, "net.ipv4.conf.lo.forwarding: 0 -> 1")

	all := d.Watch(event.Watch{Class: sysctl.Class, Entry: producertest.NoEntry, Wait: true})
	found := map[string]bool{}
	for _, m := range d.Until(func(m event.Message) bool {
		f, ok := m.(event.Found)
		return ok && f.Watch == all.ID && f.Subject == "vm.swappiness"
	}) {
		if f, ok := m.(event.Found); ok {
			found[f.Subject] = true
		}
	}
	for subject, want := range map[string]bool{
		"kernel.hostname": true, "net.ipv4.ip_forward": true,
		"net.ipv4.tcp_fastopen_key": false, "kernel.random.uuid": false, "fs.file-nr": false, "kernel.ns_last_pid": false, "vm.drop_caches": false,
	} {
		if found[subject] != want {
			t.Errorf("%s is found: %v, want %v", subject, found[subject], want)
		}
	}
}
