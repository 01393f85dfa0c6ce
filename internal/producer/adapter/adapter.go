// Package adapter serves adapter.state, adapter.added and adapter.removed, what
// becomes of network interfaces, and address.added and address.removed, what
// becomes of their addresses.
//
// The kernel tells by rtnetlink(7). What it tells is counted message by message,
// and read anew only where it says that it lost some.
package adapter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/netlink"
	"github.com/belfry-ha/belfry/internal/producer"
)

// The classes of this producer.
const (
	StateClass          belfry.Class = "adapter.state"
	AddedClass          belfry.Class = "adapter.added"
	RemovedClass        belfry.Class = "adapter.removed"
	AddressAddedClass   belfry.Class = "address.added"
	AddressRemovedClass belfry.Class = "address.removed"
)

// endAfter is how long the entry of a subject that only a pattern found stays
// when the interface is gone: a driver that is reloaded brings it back before.
const endAfter = 10 * time.Second

// groups are the multicast groups of rtnetlink(7) that tell of interfaces and
// addresses.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR

// A Producer has no state between two calls of Run and is safe for concurrent use.
type Producer struct{ sys string } // where sysfs is mounted

// New makes a Producer for the network namespace of the process.
func New() *Producer { return &Producer{sys: "/sys"} }

// Name is the folder's.
func (*Producer) Name() string { return "adapter" }

// Classes are those of adapters and of addresses.
func (*Producer) Classes() []belfry.ClassInfo {
	class := func(c belfry.Class, kind belfry.ClassKind, summary, data string) belfry.ClassInfo {
		return belfry.ClassInfo{
			Class: c, Kind: kind, Summary: summary, Subject: forms, Data: "belfry.v1." + data,
			Globs: true, Remote: true, Optional: true,
		}
	}
	return []belfry.ClassInfo{
		class(StateClass, belfry.State, "whether a network interface works: up, no-carrier, admin-down, dormant, testing, absent", "AdapterState"),
		class(AddedClass, belfry.Happening, "a network interface came, or got this name", "AdapterChange"),
		class(RemovedClass, belfry.Happening, "a network interface went, or lost this name", "AdapterChange"),
		class(AddressAddedClass, belfry.Happening, "a network interface has one more address", "AddressChange"),
		class(AddressRemovedClass, belfry.Happening, "a network interface has lost an address", "AddressChange"),
	}
}

// CheckSubject refuses what can not name an interface.
func (*Producer) CheckSubject(class belfry.Class, subject string) error {
	return checkSubject(class, subject)
}

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	netns, err := namespace()
	if err != nil {
		return fmt.Errorf("adapter: %w", err)
	}
	k, err := openKernel()
	if err != nil {
		return fmt.Errorf("adapter: rtnetlink: %w", err)
	}
	inner, cancel := context.WithCancel(ctx)
	ready := make(chan chan<- struct{})
	failed := make(chan error, 1)
	var group sync.WaitGroup
	group.Go(func() { k.listener.Signal(inner, ready, failed) })
	defer group.Wait()
	defer k.close() // ends Signal
	defer cancel()
	s := newSession(send, netns, p.sys)
	if err := s.sync(time.Now(), k); err != nil {
		return fmt.Errorf("adapter: %w", err)
	}
	return s.loop(ctx, k, requests, ready, failed)
}

// namespace is the number of the network namespace, with which an index names
// an interface (namespaces(7)).
func namespace() (uint64, error) {
	info, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%w: /proc/self/ns/net has no inode", belfry.ErrUnsupported)
	}
	return st.Ino, nil
}

func (s *session) loop(
	ctx context.Context, k *kernel, requests <-chan producer.Request, ready <-chan chan<- struct{}, failed <-chan error,
) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next := s.nextTimeout(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("adapter: %w", err)
		case done := <-ready:
			err = s.catchUp(time.Now(), k)
			close(done)
		case r := <-requests:
			err = s.request(time.Now(), k, r)
		case <-timer.C:
			if err = s.catchUp(time.Now(), k); err == nil {
				err = s.Advance(time.Now())
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("adapter: %w", err)
		}
	}
}

// request takes a request after what the kernel has told by then, so that who
// makes an interface and then asks for it finds it.
func (s *session) request(now time.Time, k *kernel, r producer.Request) error {
	if r.Watch == nil {
		s.Unwatch(r.Unwatch)
		return nil
	}
	if err := s.catchUp(now, k); err != nil {
		return err
	}
	return s.watch(*r.Watch)
}

// A kernel tells what happens, and is asked what there is.
type kernel struct {
	listener *netlink.Listener
	conn     *mdlayher.Conn
}

// openKernel listens before it can be asked, so that nothing falls in between.
func openKernel() (*kernel, error) {
	listener, err := netlink.Listen(unix.NETLINK_ROUTE, groups)
	if err != nil {
		return nil, err
	}
	conn, err := mdlayher.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &kernel{listener: listener, conn: conn}, nil
}

func (k *kernel) close() error { return errors.Join(k.listener.Close(), k.conn.Close()) }
