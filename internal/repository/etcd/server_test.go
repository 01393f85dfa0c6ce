package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A server is one member of a real etcd, on a loopback address of its own.
type server struct {
	t       testing.TB
	name    string
	address string
	dir     string // of its data
	log     string
	args    []string
	cmd     *exec.Cmd
	exited  chan struct{}
}

// endpoint is where it listens for clients.
func (s *server) endpoint() string { return s.address + ":2379" }

var addresses atomic.Uint32

// newAddress is a loopback address that no other test has, here or in another
// run at the same time.
func newAddress() string {
	n := addresses.Add(1)
	return fmt.Sprintf("127.%d.%d.%d", 16+os.Getpid()%200, n/250, 1+n%250)
}

// newCluster starts so many members and waits until they have a leader. They are
// killed when the test ends. Elections are as fast as a busy machine allows.
func newCluster(t testing.TB, members int, args ...string) []*server {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("needs: etcd")
	}
	all := make([]*server, members)
	var peers []string
	dir := t.TempDir()
	for i := range all {
		name := fmt.Sprintf("m%d", i)
		all[i] = &server{t: t, name: name, address: newAddress(), dir: filepath.Join(dir, name), log: filepath.Join(dir, name+".log")}
		peers = append(peers, fmt.Sprintf("%s=http://%s:2380", name, all[i].address))
	}
	for _, s := range all {
		s.args = append([]string{
			"--name", s.name, "--data-dir", s.dir, "--initial-cluster", strings.Join(peers, ","), "--initial-cluster-token", all[0].address,
			"--listen-peer-urls", "http://" + s.address + ":2380", "--initial-advertise-peer-urls", "http://" + s.address + ":2380",
			"--listen-client-urls", "http://" + s.endpoint(), "--advertise-client-urls", "http://" + s.endpoint(),
			"--heartbeat-interval", "100", "--election-timeout", "500", "--logger", "zap",
		}, args...)
		s.start()
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, s := range all {
			text, _ := os.ReadFile(s.log)
			t.Logf("end of the log of %s:\n%s", s.name, text[max(0, len(text)-800):])
		}
	})
	return all
}

func (s *server) start() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("etcd", s.args...)
	cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=arm64")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves nothing
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() { _ = cmd.Wait(); close(exited) }()
	s.t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
}

// kill is SIGKILL, and waits for the end.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatal(err)
	}
}

// pause stops the process without ending it, and waits until all of its threads
// have stopped (proc_pid_status(5)).
func (s *server) pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	tasks := fmt.Sprintf("/proc/%d/task", s.cmd.Process.Pid)
	within(s.t, 20*time.Second, func() error {
		threads, err := os.ReadDir(tasks)
		for _, thread := range threads {
			text, gone := os.ReadFile(filepath.Join(tasks, thread.Name(), "status"))
			if gone == nil && !bytes.Contains(text, []byte("\nState:\tT")) {
				return fmt.Errorf("thread %s runs", thread.Name())
			}
		}
		return err
	})
}

func (s *server) resume() { s.t.Helper(); s.signal(syscall.SIGCONT) }

// client is a client of etcd as others have it.
func client(t testing.TB, servers ...*server) *clientv3.Client {
	t.Helper()
	var endpoints []string
	for _, s := range servers {
		endpoints = append(endpoints, "http://"+s.endpoint())
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask is what the test itself wants of etcd: it may take long.
func ask(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// copyData makes a backup of the data of a member that does not run.
func (s *server) copyData(to string) {
	s.t.Helper()
	if err := os.CopyFS(to, os.DirFS(s.dir)); err != nil {
		s.t.Fatal(err)
	}
}

// restore puts a backup in the place of the data of a member that does not run.
func (s *server) restore(from string) {
	s.t.Helper()
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Fatal(err)
	}
	if err := os.CopyFS(s.dir, os.DirFS(from)); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(s.dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// within repeats what another process has to be ready for.
func within(t testing.TB, limit time.Duration, do func() error) {
	t.Helper()
	end, tick := time.After(limit), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		err := do()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within %s: %v", limit, err)
		}
	}
}

// leader is the member that the others follow.
func leader(t testing.TB, servers []*server) (who *server) {
	t.Helper()
	c := client(t, servers...)
	within(t, 20*time.Second, func() error {
		for _, s := range servers {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			answer, err := c.Status(ctx, "http://"+s.endpoint())
			cancel()
			if err == nil && answer.Leader == answer.Header.MemberId && answer.Leader != 0 {
				who = s
				return nil
			}
		}
		return errors.New("no leader")
	})
	return who
}
