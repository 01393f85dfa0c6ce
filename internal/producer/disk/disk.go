// Package disk serves disk.state: whether a disk is there and works.
//
// The kernel tells by uevents that a disk or its medium came or went. How a disk
// is, only sysfs says, and only to who looks.
package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/netlink"
	"github.com/belfry-ha/belfry/internal/producer"
)

// Class is the one class of this producer.
const Class belfry.Class = "disk.state"

// probeEvery is how often a disk that is watched is looked at, where its driver
// keeps a state: no uevent tells that it changes.
const probeEvery = 5 * time.Second

// endAfter is how long the entry of a disk that only a pattern found stays when
// the disk is gone.
const endAfter = 10 * time.Second

// kernelGroup is the multicast group of NETLINK_KOBJECT_UEVENT in which the
// kernel speaks; the second one is udev's.
const kernelGroup = 1

// A Producer has no state between two calls of Run and is safe for concurrent use.
type Producer struct{ sys string } // where sysfs is mounted

// New makes a Producer.
func New() *Producer { return &Producer{sys: "/sys"} }

// Name is the folder's.
func (*Producer) Name() string { return "disk" }

// Classes is disk.state.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{
		Class:    Class,
		Kind:     belfry.State,
		Summary:  "whether a disk is there and works: up, blocked, offline, absent, unknown",
		Subject:  "NAME, with stars",
		Data:     "belfry.v1.DiskState",
		Globs:    true,
		Remote:   true,
		Optional: true,
	}}
}

// CheckSubject refuses what is no name of a disk.
func (*Producer) CheckSubject(_ belfry.Class, subject string) error { return checkSubject(subject) }

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	listener, err := netlink.Listen(unix.NETLINK_KOBJECT_UEVENT, kernelGroup)
	if err != nil {
		return fmt.Errorf("disk: uevents: %w", err)
	}
	inner, cancel := context.WithCancel(ctx)
	ready := make(chan chan<- struct{})
	failed := make(chan error, 1)
	var group sync.WaitGroup
	group.Go(func() { listener.Signal(inner, ready, failed) })
	defer group.Wait()
	defer listener.Close() // ends Signal
	defer cancel()
	s := newSession(p.sys, send)
	if err := s.scan(time.Now()); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return s.loop(ctx, listener, requests, ready, failed)
}

func (s *session) loop(
	ctx context.Context, listener *netlink.Listener, requests <-chan producer.Request, ready <-chan chan<- struct{}, failed <-chan error,
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
			return fmt.Errorf("disk: %w", err)
		case done := <-ready:
			err = s.catchUp(time.Now(), listener)
			close(done)
		case r := <-requests:
			if r.Watch == nil {
				s.Unwatch(r.Unwatch)
			} else {
				err = s.watch(time.Now(), listener, *r.Watch)
			}
		case <-timer.C:
			err = s.advance(time.Now())
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("disk: %w", err)
		}
	}
}

// watch looks before it answers: who attaches a disk and then asks for it finds
// it, and in the state that it is in.
func (s *session) watch(now time.Time, listener *netlink.Listener, w event.Watch) error {
	if err := s.catchUp(now, listener); err != nil {
		return err
	}
	err := checkSubject(w.Subject)
	if w.Entry == 0 {
		err = checkPattern(w.Subject)
	}
	if err != nil { // it may come from a node that knows other subjects
		return s.Refuse(w, err)
	}
	if w.Entry == 0 {
		err = s.scan(now)
	} else {
		err = s.look(now, w.Subject)
	}
	if err != nil {
		return err
	}
	err = s.Watch(w)
	s.plan(now)
	return err
}

// catchUp takes what the kernel has told. Where it says that it lost some, all
// disks are looked at.
func (s *session) catchUp(now time.Time, listener *netlink.Listener) error {
	lost := false
	for {
		datagram, err := listener.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost = true
			s.Doubt()
			continue
		case err != nil:
			return err
		case datagram != nil:
			err = s.uevent(now, datagram)
		case lost:
			err = s.scan(now)
			s.Certain()
			return err
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}
