package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
	"github.com/belfry-ha/belfry/internal/producer/file"
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/security"
)

// stranger is a reader to whom nothing here belongs.
var stranger = api.Subject{UID: 54321, Groups: []uint32{54321}, Role: belfry.RoleReader}

// openDir is a directory that all may read, and its path without links.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			break // not ours: it is as it is
		}
	}
	return dir
}

func write(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("x"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func symlink(t *testing.T, target, path string) string {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhoseAFileIsIsReadOffItsPath(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	public, secret := write(t, filepath.Join(dir, "public"), 0o644), write(t, filepath.Join(dir, "secret"), 0o600)
	locked := filepath.Join(dir, "locked")
	if err := os.Mkdir(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(locked, "public"), 0o644)
	a := &Agent{}
	us := api.Subject{UID: uint32(os.Geteuid()), Role: belfry.RoleReader}
	for _, test := range []struct {
		class   belfry.Class
		subject string
		who     api.Subject
		want    bool
	}{
		{file.FileClass, public, stranger, true},
		{file.FileClass, secret, stranger, false},
		{file.AttributeClass, public, stranger, true},
		{file.AttributeClass, secret, stranger, false},
		{file.FileClass, secret, us, true},
		{file.FileClass, filepath.Join(locked, "public"), stranger, false},
		{file.FileClass, filepath.Join(locked, "absent"), stranger, false},
		{file.FileClass, filepath.Join(dir, "absent"), stranger, true},
		{file.FileClass, filepath.Join(dir, "absent", "further"), stranger, true},
		{file.FileClass, filepath.Join(public, "below"), stranger, false},
		{file.FileClass, symlink(t, "public", filepath.Join(dir, "relative")), stranger, true},
		{file.FileClass, symlink(t, public, filepath.Join(dir, "absolute")), stranger, true},
		{file.FileClass, symlink(t, "../"+filepath.Base(dir)+"/relative", filepath.Join(dir, "up")), stranger, true},
		{file.FileClass, symlink(t, secret, filepath.Join(dir, "tosecret")), stranger, false},
		{file.FileClass, symlink(t, "locked/public", filepath.Join(dir, "tolocked")), stranger, false},
		{file.FileClass, symlink(t, "absent", filepath.Join(dir, "dangling")), stranger, false},
		{file.FileClass, symlink(t, "loop", filepath.Join(dir, "loop")), stranger, false},
		{file.FileClass, symlink(t, dir, filepath.Join(dir, "here")) + "/public", stranger, true},
		{file.FileClass, locked + "/../public", stranger, true}, // taken together, as the producer does
		{file.DirClass, "/proc/self/root", stranger, false},
		{file.FileClass, "public", stranger, false},
		{file.FileClass, dir + "/*", stranger, false},
		{file.FileClass, dir + `/\*`, stranger, false},
		{file.DirClass, dir, stranger, true},
		{file.DirClass, locked, stranger, false},
		{file.DirClass, locked, us, true},
		{"file.*", public, stranger, false},
		{"unit.state", public, stranger, false},
		{file.FileClass, public, api.Subject{Client: "web", UID: stranger.UID}, false},
		{file.FileClass, public, api.Subject{Web: true, UID: stranger.UID}, false},
	} {
		if got := a.owns(test.who, string(test.class), test.subject); got != test.want {
			t.Errorf("%s:%s of uid %d: %t; want %t", test.class, test.subject, test.who.UID, got, test.want)
		}
	}
}

// TestAnACLIsAskedBeforeTheMode where the file system has ACLs.
func TestAnACLIsAskedBeforeTheMode(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(openDir(t), "f"), 0o600)
	acl := []byte{2, 0, 0, 0}
	for _, e := range []struct {
		tag, bits byte
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 4, stranger.UID}, {4, 0, ^uint32(0)}, {16, 4, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		acl = append(acl, e.tag, 0, e.bits, 0, byte(e.id), byte(e.id>>8), byte(e.id>>16), byte(e.id>>24))
	}
	if ownsFile(callerOf(stranger), path, "") {
		t.Error("own before the ACL lets it read")
	}
	if err := unix.Setxattr(path, "system.posix_acl_access", acl, 0); err != nil {
		t.Skip("needs: acl")
	}
	if !ownsFile(callerOf(stranger), path, "") {
		t.Error("not own though the ACL lets it read")
	}
}

// TestTheObjectOfTheIdentifierIsAsked whatever its name stands for now.
func TestTheObjectOfTheIdentifierIsAsked(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	public, other := write(t, filepath.Join(dir, "public"), 0o644), write(t, filepath.Join(dir, "other"), 0o644)
	instance := func(path string) string {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s, err := file.InstanceOf(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	of, ofOther := instance(public), instance(other)
	c := callerOf(stranger)
	if !ownsFile(c, public, of) || ownsFile(c, public, ofOther) {
		t.Error("another file is taken for the one that is observed")
	}
	if err := os.Remove(public); err != nil {
		t.Fatal(err)
	}
	if ownsFile(c, public, of) {
		t.Error("a file that is gone is its own")
	}
}

func TestWhoseAProcessIsIsReadOffProc(t *testing.T) {
	t.Parallel()
	us := callerOf(api.Subject{UID: uint32(os.Geteuid())})
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sleep, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	pid := fmt.Sprint("pid=", cmd.Process.Pid)
	running, err := process.LookAt(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	hidden := "exe=" + write(t, filepath.Join(openDir(t), "hidden"), 0o711)
	for _, test := range []struct {
		name, subject, instance string
		who                     security.Caller
		want                    bool
	}{
		{"ours", pid, "", us, true},
		{"ours by identifier", pid, running.Instance, us, true},
		{"somebody's", pid, "", callerOf(stranger), false},
		{"one that began at another time", pid, running.Instance + "0", us, false},
		{"none", "pid=4194304", "", us, false},
		{"an executable that all may read", "exe=" + sleep, "", callerOf(stranger), true},
		{"the same, which runs", "exe=" + sleep, running.Instance, callerOf(stranger), true},
		{"the same, but another one runs", "exe=/bin/sh", running.Instance, callerOf(stranger), false},
		{"our process of whatever executable", hidden, running.Instance, us, true},
		{"an executable that only its owner may read", hidden, "", callerOf(stranger), false},
		{"by command line", "cmdline=sleep", "", us, false},
		{"by pid file", "pidfile=/run/x", "", us, false},
		{"no subject", "sleep", "", us, false},
	} {
		if got := ownsProcess(test.who, test.subject, test.instance); got != test.want {
			t.Errorf("%s: %t; want %t", test.name, got, test.want)
		}
	}
}

// TestALinkThatIsSwappedDoesNotDeceive: what is judged is what was opened.
func TestALinkThatIsSwappedDoesNotDeceive(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	for name, mode := range map[string]os.FileMode{"a": 0o644, "b": 0o600} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "f"), mode)
	}
	link := symlink(t, "a", filepath.Join(dir, "link"))
	ctx, stop := context.WithCancel(t.Context())
	swapped := make(chan struct{})
	defer func() { stop(); <-swapped }()
	go func() {
		defer close(swapped)
		for i := 0; ctx.Err() == nil; i++ {
			_ = os.Symlink([]string{"b", "a"}[i%2], link+".new")
			_ = os.Rename(link+".new", link)
			runtime.Gosched()
		}
	}()
	owned := map[bool]int{}
	for deadline := time.Now().Add(10 * time.Second); owned[true] < 100 || owned[false] < 100; {
		if time.Now().After(deadline) {
			t.Fatalf("own and not: %v; want some of both", owned)
		}
		trail, fd, err := walkTrail(link + "/f")
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		_ = unix.Close(fd)
		own := trail.Own(callerOf(stranger))
		if err != nil || own != (st.Mode&0o777 == 0o644) {
			t.Fatalf("own: %t, of a file of mode %o (%v)", own, st.Mode, err)
		}
		owned[own]++
	}
}

// ownWorld is a producer of files, the event loop and the API to a reader.
func ownWorld(t *testing.T) *client.Client {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	producers := []producer.Producer{file.New()}
	a := &Agent{}
	a.policy.Store(&security.Policy{})
	a.events = newEventLoop(event.Config{Node: belfry.NodeID{1}, Name: "a", Incarnation: 1, Classes: file.New().Classes()}, log)
	a.connectProducers(producers, log)
	a.events.peer = func(belfry.NodeID, event.Frame) {}
	a.server = api.New(api.Options{
		Events: a.events, Cluster: oneNode{}, Decide: a.decide, Owns: a.owns,
		Identify: func(net.Conn) (api.Subject, error) { return stranger, nil },
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.events.run(ctx) }()
	socket := filepath.Join(t.TempDir(), "s")
	if err := a.server.ServeUnix(socket, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.server.Stop(ctx)
		a.runner.Stop()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	c, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

type oneNode struct{ api.Cluster }

func (oneNode) View() api.ClusterView { return api.ClusterView{Self: belfry.NodeID{1}} }

func TestAStreamEndsWithTheIdentifierThatWasItsOwn(t *testing.T) {
	t.Parallel()
	c := ownWorld(t)
	dir := openDir(t)
	path := write(t, filepath.Join(dir, "f"), 0o644)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.Register(ctx, belfry.Registration{Class: "file.modify", Subject: write(t, filepath.Join(dir, "secret"), 0o600)}); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a file that it can not read: %v; want ErrPermission", err)
	}
	s, err := c.Register(ctx, belfry.Registration{Class: "file.modify", Subject: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	replace := func(mode os.FileMode) {
		t.Helper()
		if err := os.Rename(write(t, filepath.Join(dir, "new"), mode), path); err != nil {
			t.Fatal(err)
		}
	}
	replace(0o644)
	if n, err := s.Next(ctx); err != nil || n.Event.Subject != path {
		t.Fatalf("replaced by one that all may read: %+v, %v", n, err)
	}
	replace(0o600)
	for err == nil { // that the one before has gone may be told
		_, err = s.Next(ctx)
	}
	if !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("replaced by one that it can not read: %v; want ErrPermission", err)
	}
}
