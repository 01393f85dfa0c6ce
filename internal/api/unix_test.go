package api

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

func TestTheSocketIsForItsGroupAndGoesWithTheAgent(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	info, err := os.Stat(a.socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("mode %v; want a socket, 0660", info.Mode())
	}
	stop(t, a.Server)
	left, err := os.ReadDir(filepath.Dir(a.socket))
	if err != nil || len(left) > 0 {
		t.Errorf("after the stop the folder holds %v (%v); want nothing", left, err)
	}
}

func TestASecondAgentDoesNotTakeTheSocket(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	err := New(Options{}).ServeUnix(a.socket, "")
	want := "listen: " + a.socket + ": already exists: another agent runs here; stop it or choose another path"
	if !errors.Is(err, belfry.ErrExist) || err.Error() != want {
		t.Errorf("error %v\nwant %s", err, want)
	}
	if _, err := a.dial(t).Status(t.Context()); err != nil {
		t.Errorf("the first agent suffers: %v", err)
	}
}

func TestTheSocketOfADeadAgentIsReplaced(t *testing.T) {
	t.Parallel()
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(t.TempDir(), "s"), subject: admin}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as SIGKILL leaves it
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a.start(t)
	if _, err := a.dial(t).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNothingButASocketIsRemoved(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(Options{}).ServeUnix(path, ""); !errors.Is(err, belfry.ErrExist) {
		t.Errorf("error %v; want ErrExist", err)
	}
	if b, err := os.ReadFile(path); string(b) != "x" || err != nil {
		t.Errorf("the file holds %q (%v)", b, err)
	}
}

func TestASocketThatIsTakenOverIsLeftAlone(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	if err := os.Remove(a.socket); err != nil {
		t.Fatal(err)
	}
	b := &agent{events: newFakeEvents(), cluster: &fakeCluster{}, socket: a.socket, subject: admin}
	b.start(t)
	stop(t, a.Server)
	if _, err := b.dial(t).Status(t.Context()); err != nil {
		t.Errorf("the newer agent's socket is gone: %v", err)
	}
}

func TestWhyASocketCanNotBeMade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("x", maxSocketPath))
	tests := []struct{ path, group, want string }{
		{long, "", "at most 107 bytes"},
		{filepath.Join(dir, "no", "s"), "", "folder does not exist; create it"},
		{filepath.Join(dir, "s"), "no-such-group-here", `no group "no-such-group-here" on this machine; create it or set socket.group`},
	}
	for _, tt := range tests {
		err := New(Options{}).ServeUnix(tt.path, tt.group)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v; want %q in it", err, tt.want)
		}
	}
}
