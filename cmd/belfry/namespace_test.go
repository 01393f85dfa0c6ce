package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A namespace is a network namespace without a name: it is that of one thread,
// so it ends with this process, whatever ends it, and leaves nothing behind
// (network_namespaces(7)).
type namespace struct {
	calls chan func()
	ended chan struct{}
}

func newNamespace() (*namespace, error) {
	ns := &namespace{calls: make(chan func()), ended: make(chan struct{})}
	made := make(chan error)
	go ns.serve(made)
	if err := <-made; err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return ns, nil
}

// serve owns the thread. It never unlocks it: the thread ends with serve.
func (ns *namespace) serve(made chan<- error) {
	defer close(ns.ended)
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	made <- err
	if err != nil {
		return
	}
	hurry()
	for call := range ns.calls {
		call()
	}
}

// labNice is the priority of what a lab is made of: its agents, each of which
// stands for a machine of its own, and its wire. An agent that waits a second for
// a processor is stalled, and a wire that does is cut, and the others say so,
// rightly; what else this machine does is not what these tests are about.
const labNice = -10

// hurry gives this thread, and what it starts, that priority; who may not
// (setpriority(2)) has the one of all.
func hurry() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, labNice) }

// do runs f in the namespace: what it opens and starts is there.
func (ns *namespace) do(f func() error) error {
	result := make(chan error)
	ns.calls <- func() { result <- f() }
	return <-result
}

// run runs a program there.
func (ns *namespace) run(input, name string, args ...string) error {
	return ns.do(func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(input)
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, output)
		}
		return nil
	})
}

func (ns *namespace) close() {
	close(ns.calls)
	<-ns.ended
}

// openTun makes a network interface there whose packets are read from, and
// written to, the file.
func (ns *namespace) openTun(name string) (file *os.File, err error) {
	err = ns.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("/dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("interface %s: %w", name, err), unix.Close(fd))
		}
		file = os.NewFile(uintptr(fd), name)
		return nil
	})
	return file, err
}

// lacksNamespaces tells whether agents can have networks of their own: root's
// can, and those of who calls himself so with unshare -r, if /dev/net/tun is his.
func lacksNamespaces() string {
	ns, err := newNamespace()
	if err != nil {
		return "netns"
	}
	defer ns.close()
	tun, err := ns.openTun("probe")
	if err != nil {
		return "tun"
	}
	tun.Close()
	return ""
}
