package netlink

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread that has a network namespace of its own, and
// ends with it.
func inNamespace(t *testing.T, f func() error) {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("needs: netns (%w)", err)
			return
		}
		result <- f()
	}()
	err := <-result
	switch {
	case errors.Is(err, unix.EPERM):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

func ip(batch ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(batch, "\n"))
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w\n%s", err, output)
	}
	return nil
}

// all are the interfaces that messages are about, in their order, and how often
// some were lost.
func all(l *Listener) (names []string, lost int, err error) {
	for {
		datagram, err := l.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost++
			continue
		case err != nil || datagram == nil:
			return names, lost, err
		}
		messages, err := Messages(datagram)
		if err != nil {
			return nil, 0, err
		}
		for _, m := range messages {
			i, err := ParseInterface(m.Data)
			if err != nil {
				return nil, 0, err
			}
			names = append(names, i.Name)
		}
	}
}

func TestListenerHearsWhatHappens(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() error {
		l, err := Listen(unix.NETLINK_ROUTE, unix.RTMGRP_LINK)
		if err != nil {
			return err
		}
		defer l.Close()
		if names, _, err := all(l); err != nil || len(names) > 0 {
			return fmt.Errorf("%v, %w before anything happened", names, err)
		}
		if err := ip("link add t1 type veth peer name p1", "link del t1"); err != nil {
			return err
		}
		if err := l.Wait(); err != nil {
			return err
		}
		if names, lost, err := all(l); err != nil || !slices.Equal(names, []string{"p1", "t1", "t1", "p1"}) || lost > 0 {
			return fmt.Errorf("%v, %d times lost, %w", names, lost, err)
		}
		return nil
	})
}

// ENOBUFS, which is not an error of the socket's but news.
func TestListenerTellsWhatWasLost(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() error {
		l, err := Listen(unix.NETLINK_ROUTE, unix.RTMGRP_LINK)
		if err != nil {
			return err
		}
		defer l.Close()
		if err := l.conn.SetReadBuffer(1); err != nil { // the kernel makes it its least
			return err
		}
		batch := []string{"link add t1 type veth peer name p1"}
		for i := range 50 {
			batch = append(batch, fmt.Sprint("link set t1 mtu ", 1000+i))
		}
		if err := errors.Join(ip(batch...), l.Wait()); err != nil {
			return err
		}
		names, lost, err := all(l)
		if err != nil || lost != 1 || len(names) == 0 || len(names) > 50 {
			return fmt.Errorf("%d messages, %d times lost, %w", len(names), lost, err)
		}
		return nil
	})
}

func TestOnlyTheKernelIsHeard(t *testing.T) {
	t.Parallel()
	l, err := Listen(unix.NETLINK_USERSOCK, 1) // where everybody may speak
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_USERSOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// To it alone, so that nobody else hears.
	if err := unix.Sendto(fd, []byte("no interface"), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: l.conn.PID()}); err != nil {
		t.Fatal(err)
	}
	if err := l.Wait(); err != nil {
		t.Fatal(err)
	}
	if datagram, err := l.Receive(); datagram != nil || err != nil {
		t.Errorf("%q, %v", datagram, err)
	}
}

func TestCloseEndsWait(t *testing.T) {
	t.Parallel()
	l, err := Listen(unix.NETLINK_ROUTE, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- l.Wait() }()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("Wait returns nil after Close")
	}
}

func TestListsAreComplete(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() error {
		conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		err = ip("link add t1 type veth peer name p1", "address add 10.1.0.1/24 dev t1", "address add fd00::1/64 dev p1 nodad")
		if err != nil {
			return err
		}
		interfaces, err := Interfaces(conn)
		if err != nil {
			return err
		}
		var names []string
		for _, i := range interfaces {
			names = append(names, fmt.Sprint(i.Name, " ", i.Kind))
			if at, err := InterfaceAt(conn, i.Index); err != nil || at != i {
				return fmt.Errorf("%+v, %w alone, %+v in the list", at, err, i)
			}
		}
		addresses, err := Addresses(conn)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			names = append(names, a.Prefix.String())
		}
		if want := []string{"lo ", "p1 veth", "t1 veth", "10.1.0.1/24", "fd00::1/64"}; !slices.Equal(names, want) {
			return fmt.Errorf("%q, want %q", names, want)
		}
		if i, err := InterfaceAt(conn, 99); !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("interface 99: %+v, %w, want ENODEV", i, err)
		}
		return nil
	})
}
