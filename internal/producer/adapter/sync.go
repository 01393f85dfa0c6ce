package adapter

import (
	"errors"
	"maps"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/netlink"
)

// syncTries bounds how often everything is read in a row because messages were
// lost meanwhile; after that others have their turn for syncPause.
const (
	syncTries = 5
	syncPause = 20 * time.Millisecond
)

// touched are what messages were about that came while everything was read.
type touched struct {
	links     map[int]bool
	addresses map[netlink.Address]bool
}

// catchUp takes what the kernel has told. Where it says that it lost some, all
// is read anew.
func (s *session) catchUp(now time.Time, k *kernel) error {
	if err := s.drain(now, k, nil); err != nil {
		return err
	}
	if s.lossy && !now.Before(s.resync) {
		return s.sync(now, k)
	}
	return nil
}

// drain takes all messages there are, in order. seen notes what they are about;
// nil: nobody asks.
func (s *session) drain(now time.Time, k *kernel, seen *touched) error {
	for {
		datagram, err := k.listener.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			s.lose()
			continue
		case err != nil || datagram == nil:
			return err
		}
		messages, err := netlink.Messages(datagram)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if err := s.take(now, m, seen); err != nil {
				return err
			}
		}
	}
}

func (s *session) take(now time.Time, m syscall.NetlinkMessage, seen *touched) error {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		i, err := netlink.ParseInterface(m.Data)
		// A port that is deleted as one of a bridge is still an interface.
		if err != nil || i.Family != unix.AF_UNSPEC {
			return err
		}
		if seen != nil {
			seen.links[i.Index] = true
		}
		if m.Header.Type == unix.RTM_DELLINK {
			return s.gone(now, i.Index)
		}
		return s.link(now, i)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := netlink.ParseAddress(m.Data)
		if err != nil {
			return err
		}
		if seen != nil {
			seen.addresses[identity(a)] = true
		}
		return s.address(now, a, m.Header.Type == unix.RTM_NEWADDR)
	}
	return nil
}

// sync reads all interfaces and addresses. The answer is newer than the messages
// that came before it was asked for, and older than those that come after it has
// come; of what came in between nobody knows. So what the messages of that time
// are about is taken from them, for they are in order, and all the rest from the
// answer.
func (s *session) sync(now time.Time, k *kernel) error {
	for range syncTries {
		if err := s.drain(now, k, nil); err != nil {
			return err
		}
		links, err := netlink.Interfaces(k.conn)
		if err != nil {
			return err
		}
		addresses, err := netlink.Addresses(k.conn)
		if err != nil {
			return err
		}
		losses := s.losses
		seen := &touched{links: map[int]bool{}, addresses: map[netlink.Address]bool{}}
		if err := s.drain(now, k, seen); err != nil {
			return err
		}
		if err := s.merge(now, links, addresses, seen); err != nil {
			return err
		}
		if s.losses == losses {
			s.lossy, s.resync = false, time.Time{}
			s.Certain()
			return nil
		}
	}
	s.resync = now.Add(syncPause)
	return nil
}

// merge makes what is known equal to what there is, but for what seen names.
func (s *session) merge(now time.Time, links []netlink.Interface, addresses []netlink.Address, seen *touched) error {
	there := map[int]bool{}
	for _, i := range links {
		there[i.Index] = true
	}
	for _, index := range slices.Sorted(maps.Keys(s.byIndex)) {
		if there[index] || seen.links[index] {
			continue
		}
		if err := s.gone(now, index); err != nil {
			return err
		}
	}
	for _, i := range links {
		if seen.links[i.Index] {
			continue
		}
		if err := s.link(now, i); err != nil {
			return err
		}
	}
	return s.mergeAddresses(now, addresses, seen)
}

func (s *session) mergeAddresses(now time.Time, addresses []netlink.Address, seen *touched) error {
	have := map[netlink.Address]bool{}
	for _, a := range addresses {
		have[identity(a)] = true
	}
	for _, index := range slices.Sorted(maps.Keys(s.byIndex)) {
		for _, a := range s.byIndex[index].sortedAddresses() {
			if have[a] || seen.addresses[a] {
				continue
			}
			if err := s.address(now, a, false); err != nil {
				return err
			}
		}
	}
	for _, a := range addresses {
		if seen.addresses[identity(a)] {
			continue
		}
		if err := s.address(now, a, true); err != nil {
			return err
		}
	}
	return nil
}
