// Package network watches the interfaces that hold this node's heartbeat
// addresses, by rtnetlink(7): which interface has an address, whether it is set
// up, whether its cable leads anywhere. What it learns is for the cluster
// machine, which needs it whether or not anybody is registered; so a [Watcher]
// runs as long as its agent, and is no Producer. Its DESIGN.md says why it looks
// again instead of believing what it is told.
package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/netlink"
)

// A Status is how things stand with one address.
type Status struct {
	Addr netip.Addr

	// Present: an interface of this machine has the address, and may send from
	// it. An IPv6 address that is still being checked for duplicates, or was
	// found to be one, is not present (RFC 4862 5.4). The fields below are zero
	// while it is not, and for the unspecified address, which is always present.
	Present bool

	Name    string // of the interface
	Index   int    // of the interface; 1 is always lo
	AdminUp bool   // it is set up (IFF_UP)
	Carrier bool   // something answers at the other end, and frames may pass (IFF_LOWER_UP and IFF_RUNNING)
	Speed   int    // Mbit/s; 0: not known, as without carrier, and of lo
	MTU     int    // bytes
}

// working tells whether datagrams can leave from the address.
func (s Status) working() bool { return s.Present && s.AdminUp && s.Carrier }

// Stats only grow.
type Stats struct {
	Looks    uint64 // how often everything was read
	Overruns uint64 // how often messages were lost for want of room (ENOBUFS), so that everything was read
}

// lookGap is the least time between two looks: however often interfaces
// change, the rest of the agent has most of the processor.
const lookGap = 5 * time.Millisecond

// A Watcher follows a set of addresses. Stats is safe for concurrent use; Run is
// called once.
type Watcher struct {
	addrs  []netip.Addr
	events *mdlayher.Conn // of the groups below
	kernel *kernel

	looks, overruns atomic.Uint64
}

// groups are the multicast groups of rtnetlink(7) that tell of interfaces and
// addresses.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR

// Open makes a Watcher in the network namespace of the calling thread. Of an
// address with a zone, only the interface of that name counts. The error names
// what the kernel refused.
func Open(addrs []netip.Addr) (*Watcher, error) {
	w := &Watcher{}
	for _, a := range addrs {
		if a = a.Unmap(); !slices.Contains(w.addrs, a) {
			w.addrs = append(w.addrs, a)
		}
	}
	// Before the first look, so that nothing falls in between.
	events, err := mdlayher.Dial(unix.NETLINK_ROUTE, &mdlayher.Config{Groups: groups})
	if err != nil {
		return nil, watchError("open", err)
	}
	w.events = events
	if w.kernel, err = openKernel(); err != nil {
		return nil, watchError("open", errors.Join(err, events.Close()))
	}
	return w, nil
}

func watchError(what string, err error) error {
	return &belfry.Error{Op: "network.watch", Subject: what, Err: fmt.Errorf("rtnetlink: %w", err)}
}

// Stats is a copy.
func (w *Watcher) Stats() Stats {
	return Stats{Looks: w.looks.Load(), Overruns: w.overruns.Load()}
}

// Run reports the status of every address, sorted as they were given, and from
// then on each time those that changed. A report may wait: meanwhile the kernel
// keeps what happens, and what it can not keep is read anew. Run closes the
// Watcher and returns nil when ctx ends.
func (w *Watcher) Run(ctx context.Context, report func([]Status)) (err error) {
	defer func() { err = errors.Join(err, w.Close()) }()
	stop := context.AfterFunc(ctx, func() { _ = w.events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var known []Status
	for ctx.Err() == nil {
		now, err := w.look()
		if err != nil {
			return watchError("look", err)
		}
		looked := time.Now()
		if changed := differing(known, now); len(changed) > 0 {
			report(changed)
		}
		known = now
		if err := w.await(ctx, time.Time{}); err != nil {
			return watchError("wait", err)
		}
		// One look answers all that happens within the gap.
		for next := looked.Add(lookGap); time.Now().Before(next) && ctx.Err() == nil; {
			if err := w.await(ctx, next); err != nil {
				return watchError("wait", err)
			}
		}
	}
	return nil
}

// Close is for a Watcher that does not run.
func (w *Watcher) Close() error { return errors.Join(w.events.Close(), w.kernel.close()) }

// differing are the statuses in now that are not as they were known.
func differing(known, now []Status) (changed []Status) {
	for i, s := range now {
		if known == nil || known[i] != s {
			changed = append(changed, s)
		}
	}
	return changed
}

// await returns when something may have changed, at the time (zero: there is
// none), or when ctx ends.
func (w *Watcher) await(ctx context.Context, until time.Time) error {
	if err := w.events.SetReadDeadline(until); err != nil {
		return err
	}
	for ctx.Err() == nil { // after the deadline was set, which its end sets too
		messages, err := w.events.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			w.overruns.Add(1)
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
		if slices.ContainsFunc(messages, w.concerns) {
			return nil
		}
	}
	return nil
}

// concerns tells whether a message is about one of the addresses, or about an
// interface that holds one: a machine with many containers has many others.
func (w *Watcher) concerns(m mdlayher.Message) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.kernel.held[netlink.Index(m.Data)]
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := netlink.ParseAddress(m.Data)
		return err == nil && holdsOne(a, w.addrs)
	}
	return false
}

// look reads the status of every address.
func (w *Watcher) look() ([]Status, error) {
	w.looks.Add(1)
	return w.kernel.statuses(w.addrs)
}
