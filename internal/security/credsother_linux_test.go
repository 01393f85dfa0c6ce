package security

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCredentialsAreThoseOfWhoConnected lets a thread become another user,
// connect, and end. Nothing that is sent can say otherwise.
func TestCredentialsAreThoseOfWhoConnected(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs: root")
	}
	name := fmt.Sprintf("@belfry-test-%d", os.Getpid()) // in no folder, so that every user can reach it
	listener, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	connected := make(chan error, 1)
	held := make(chan struct{})
	defer close(held)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with what it has become
		fd, err := connectAs(name, 65533, 65532)
		connected <- err
		<-held
		_ = syscall.Close(fd)
	}()
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	got, err := PeerCredentials(server.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	want := Credentials{UID: 65533, GID: 65532, PID: int32(os.Getpid()), Groups: []uint32{65532}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// connectAs changes this thread only, by system calls that the runtime does
// not repeat on the others.
func connectAs(name string, uid, gid uintptr) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, call := range [][4]uintptr{{syscall.SYS_SETGROUPS, 0, 0, 0}, {syscall.SYS_SETRESGID, gid, gid, gid}, {syscall.SYS_SETRESUID, uid, uid, uid}} {
		if _, _, errno := syscall.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return fd, errno
		}
	}
	return fd, syscall.Connect(fd, &syscall.SockaddrUnix{Name: name})
}
