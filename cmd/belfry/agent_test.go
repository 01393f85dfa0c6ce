package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// systemd is the other end of sd_notify(3).
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
}

// next waits for a message that begins so, and passes over the others.
func (s systemd) next(begin string) string {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	for {
		n, err := s.conn.Read(buffer)
		if err != nil {
			s.t.Fatalf("no message %s…: %v", begin, err)
		}
		if message := string(buffer[:n]); strings.HasPrefix(message, begin) {
			return message
		}
	}
}

func TestAgentTellsSystemdWhatItDoes(t *testing.T) {
	t.Parallel()
	if missing := lacks("agents"); missing != "" {
		t.Skip("needs: " + missing)
	}
	dir := t.TempDir()
	c, err := newLocalCluster(filepath.Join(dir, "dev"), 1, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.remove)
	address := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	manager := systemd{t, conn}

	settings := c.nodes[0].settings()
	cmd := exec.Command("belfry", "agent", "--config", settings)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address, "WATCHDOG_USEC=300000")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })

	manager.next("READY=1")
	manager.next("WATCHDOG=1") // by the loop that sends heartbeats, as long as it turns
	manager.next("WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if message := manager.next("RELOADING=1"); !strings.Contains(message, "\nMONOTONIC_USEC=") {
		t.Errorf("%q has no time; sd_notify(3) wants one", message)
	}
	manager.next("READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	manager.next("STOPPING=1")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v\n%s", err, log.String())
		}
	case <-time.After(20 * time.Second):
		t.Error("the agent does not end")
	}
}

func TestNoCoreFileIsWrittenOfAnAgent(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0) })
	if err := keepMemory(); err != nil {
		t.Fatal(err)
	}
	if now, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); now != 0 || err != nil || before == 0 {
		t.Errorf("dumpable is %d, was %d, %v; want 0, was not", now, before, err)
	}
}
