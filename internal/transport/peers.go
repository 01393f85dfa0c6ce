package transport

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/wire"
)

// linkID is a link as the cluster names it.
type linkID struct {
	peer  belfry.NodeID
	index uint8
}

// linkKey is a link as the kernel names it, with whom it is for: what makes
// a connected socket a different one.
type linkKey struct {
	peer          belfry.NodeID
	local, remote netip.AddrPort
}

// A peerTable is never written after it was stored.
type peerTable struct {
	links map[linkID]*link
	bound map[linkKey]*link
	// watched are the local addresses on which a watched link has no socket of
	// its own: what their wildcard socket drops is missed.
	watched map[netip.AddrPort]bool
}

// A link is one way to one peer.
type link struct {
	id            linkID
	local, remote netip.AddrPort
	socket        *socket // connected, else the wildcard one
	pin           []byte  // see pinTo
}

func (l *link) send(datagram []byte) error { return l.socket.send(datagram, l.remote, l.pin) }

// repin names interface and source address of what is sent, where the socket
// and the routing table do not.
func (l *link) repin(own []ownAddress) {
	l.pin = nil
	index := interfaceTo(own, l.local.Addr(), l.remote.Addr())
	if index != 0 || l.socket.local.Addr().IsUnspecified() && l.local.Addr().Zone() == "" {
		l.pin = pinTo(index, l.local.Addr())
	}
}

func (t *peerTable) link(to belfry.NodeID, index uint8) (*link, error) {
	l := t.links[linkID{to, index}]
	if l == nil {
		return nil, fmt.Errorf("%w: no link %d to this peer; its links are set with the member table", belfry.ErrNotFound, index)
	}
	return l, nil
}

// SetPeers replaces the peers: from now on datagrams of these are taken and
// no others. Sockets of links that stay are kept. A link whose own socket can
// not be opened uses the wildcard one; the next call tries again, and so does
// AddressesChanged. The error wraps ErrUsage if the table is wrong, and nothing
// is changed then. The peers must not be written to afterwards.
func (u *UDP) SetPeers(peers []Peer) error {
	if err := checkPeers(peers); err != nil {
		return &belfry.Error{Op: "udp.peers", Err: err}
	}
	members := make([]wire.Member, len(peers))
	for i, p := range peers {
		members[i] = wire.Member{ID: p.ID, Number: p.Number}
	}
	if err := u.Keys(func(e *wire.Endpoint) error { return e.SetMembers(members) }); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	u.peers = peers
	u.connect(ownAddresses())
	return nil
}

// connect gives each link a socket and tells Send and Wait. Called with mu.
func (u *UDP) connect(own []ownAddress) {
	table := &peerTable{links: map[linkID]*link{}, bound: map[linkKey]*link{}, watched: map[netip.AddrPort]bool{}}
	kept := map[linkKey]*socket{}
	for _, p := range u.peers {
		for _, pl := range p.Links {
			key := linkKey{p.ID, unmap(pl.Local), unmap(pl.Remote)}
			l := &link{id: linkID{p.ID, pl.Index}, local: key.local, remote: key.remote}
			if l.socket = u.socketFor(key, p.Distant, l.id); l.socket == nil {
				u.log.Warn("no socket for link", "peer", p.ID, "local", key.local)
				continue
			}
			l.repin(own)
			if l.socket.connected {
				kept[key] = l.socket
			} else if !p.Distant {
				table.watched[l.socket.local] = true
			}
			table.links[l.id], table.bound[key] = l, l
		}
	}
	u.table.Store(table)
	for key, s := range u.links {
		if kept[key] != s {
			_ = u.forget(s) // what it still holds is from a peer or link that is gone
		}
	}
	u.links = kept
}

// socketFor is the socket that a link sends with: its own, if it is watched
// and the kernel allows it, else that of its local address. Called with mu.
func (u *UDP) socketFor(key linkKey, distant bool, id linkID) *socket {
	wildcard := u.wildcardOf(key.local)
	if distant || wildcard == nil {
		return wildcard
	}
	if s := u.links[key]; s != nil && s.link == id {
		return s
	}
	if wildcard.absent {
		return wildcard // the kernel connects no socket whose address it has not got
	}
	s, err := connectLink(key.local, key.remote)
	if err == nil {
		s.link, s.key = id, key
		err = u.take(s)
	}
	if err == nil {
		return s
	}
	if old := u.table.Load().bound[key]; old == nil || old.socket.connected { // else it is known
		u.log.Warn("link uses the shared socket", "peer", key.peer, "local", key.local, "remote", key.remote, "err", err)
	}
	return wildcard
}

// wildcardOf is the socket that is bound to local, or to its port on all
// addresses of the family.
func (u *UDP) wildcardOf(local netip.AddrPort) *socket {
	for _, s := range u.wildcard {
		all := s.local.Addr().IsUnspecified() && s.local.Addr().Is4() == local.Addr().Is4() && s.local.Port() == local.Port()
		if s.local == local || all {
			return s
		}
	}
	return nil
}

func checkPeers(peers []Peer) error {
	var wrong []error
	addrs := map[linkKey]bool{}
	for _, p := range peers {
		seen := [16]bool{}
		for _, l := range p.Links {
			key := linkKey{p.ID, unmap(l.Local), unmap(l.Remote)}
			switch {
			case l.Index > 15 || seen[l.Index]:
				wrong = append(wrong, fmt.Errorf("%w: peer %s: link index %d; 0 to 15, each once", belfry.ErrUsage, p.ID, l.Index))
				continue
			case !l.Local.IsValid() || !l.Remote.IsValid() || key.local.Addr().Is4() != key.remote.Addr().Is4() || addrs[key]:
				wrong = append(wrong, fmt.Errorf("%w: peer %s: link %d from %s to %s; two addresses of one family, each pair once",
					belfry.ErrUsage, p.ID, l.Index, l.Local, l.Remote))
			}
			seen[l.Index], addrs[key] = true, true
		}
	}
	return errors.Join(wrong...)
}

// unmap gives each address one form, so that addresses can be compared.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
