package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/wire"
)

// UDPConfig is what a UDP is made with. Deliver and Dropped are called by
// [UDP.Wait], the others by a goroutine that may wait for them; none while a
// lock is held that Send or Keys needs. All but Deliver may be nil.
type UDPConfig struct {
	// Local are this node's heartbeat addresses, at least one. Port 0 takes a
	// free one (see [UDP.Addrs]). This machine must have one of them; the others
	// may come later (see [UDP.AddressesChanged]).
	Local []netip.AddrPort

	// Endpoint seals and opens. From now on it is used under the lock of the
	// UDP only: see [UDP.Keys].
	Endpoint *wire.Endpoint

	// Deliver takes what is authentic, was not seen before and came from an
	// address that is bound to its sender.
	Deliver func(Received)

	// Refused says that a peer's kernel has no socket for our datagrams (ICMP
	// port unreachable; RFC 1122 4.1.3.1): its agent is not there.
	Refused func(peer belfry.NodeID, link uint8)

	// Unreachable says that this machine has no way to a peer on that link: the
	// interface or the local address is gone, or there is no route. It is
	// evidence on the link, and no verdict (cluster.md 12).
	Unreachable func(peer belfry.NodeID, link uint8)

	// Dropped says that n datagrams on watched links died in this machine's own
	// kernel because nobody read them in time (SO_RXQ_OVFL, socket(7)). It is
	// this node's fault, and no peer's silence.
	Dropped func(n uint32)

	// Congested says that n datagrams were not sent because this machine had no
	// room for them (ENOBUFS, EAGAIN, ENOMEM). It is this node's fault too.
	Congested func(n uint32)

	// Duplicate says that two agents run as this peer: an authentic and fresh
	// datagram came of a boot that was replaced more than 2 s before
	// (`node.duplicate`; cluster.md 3, Replay). At most once a second and peer.
	Duplicate func(peer belfry.NodeID)

	Logger *slog.Logger // nil: no log
}

// Received is one datagram.
type Received struct {
	From        belfry.NodeID
	Incarnation belfry.Incarnation
	Boot        belfry.Boot
	Link        uint8 // this node's index of the link that it came on

	// At is when the kernel took it from the network. It carries a monotonic
	// reading, so that it can be compared with time.Now.
	At     time.Time
	Proven bool // bound to this node's present boot: no recording from before it
	Body   wire.Body
}

// A Peer is one member as the datagrams see it.
type Peer struct {
	ID     belfry.NodeID
	Number belfry.NodeNumber // its name on the wire; not zero
	Links  []PeerLink

	// Distant: nothing is heard from it regularly, so its links share the
	// wildcard sockets instead of having one each.
	Distant bool
}

// A PeerLink is one way to a peer.
type PeerLink struct {
	Index  uint8          // unique among the links of the peer; 0 to 15
	Local  netip.AddrPort // one of UDPConfig.Local
	Remote netip.AddrPort // the only address from which the peer's datagrams are taken on this link
}

// UDPStats only grow.
type UDPStats struct {
	Sent, SentBytes         uint64 // datagrams; bytes of payload
	Received, ReceivedBytes uint64 // what arrived, also what was rejected
	SendErrors              uint64 // the kernel did not take it; the next two are part of it
	Congested               uint64 // for want of room
	Unreachable             uint64 // for want of a way
	Refused                 uint64 // ICMP port unreachable
	KernelDropped           uint64 // socket buffer overflows, watched or not
	AddressLosses           uint64 // how often a local address vanished
	Rejected                map[wire.Reason]uint64
}

// UDP is the datagram side of one agent: per local address one socket for
// anybody, and beside it one connected socket for each link of each peer, so
// that a flood at the former takes nothing from the latter (cluster.md 12).
// Its methods are safe for concurrent use.
type UDP struct {
	cfg UDPConfig
	log *slog.Logger

	seal sync.Mutex // guards cfg.Endpoint and the descriptors of the sockets
	buf  []byte     // for sealing, under seal

	poller  *poller
	waiting sync.Mutex // held by Wait, and guards what is its own:
	batch   *batch

	table  atomic.Pointer[peerTable] // replaced as a whole
	budget budget
	stats  udpCounters
	warned tally[wire.Reason]   // lines of the log
	twins  tally[belfry.NodeID] // calls of cfg.Duplicate

	mu       sync.Mutex // guards what follows
	wildcard []*socket
	links    map[linkKey]*socket
	peers    []Peer
	closed   bool

	// By descriptor, for Wait, which must not wait for mu: who holds that may be
	// opening thousands of sockets.
	fds     sync.Mutex
	sockets map[int]*socket

	// To the one goroutine that may wait: for the functions of cfg, for the log
	// and for what is to be read of interfaces.
	notes  chan note
	asides chan func()
	done   chan struct{}
	group  sync.WaitGroup
}

// A note is what the kernel said of a datagram that was sent, or was not.
type note struct {
	link linkID
	err  syscall.Errno // ECONNREFUSED, ENOBUFS, or EHOSTUNREACH, which stand for their kind
}

type udpCounters struct {
	sent, sentBytes, received, receivedBytes atomic.Uint64
	sendErrors, congested, unreachable       atomic.Uint64
	refused, dropped, addressLosses          atomic.Uint64
	rejected                                 [32]atomic.Uint64 // by wire.Reason
}

// ListenUDP opens the wildcard sockets. The error names the address and wraps
// ErrExist if somebody has it, ErrNotFound if this machine has none of them,
// ErrUsage if cfg is wrong.
func ListenUDP(cfg UDPConfig) (*UDP, error) {
	if len(cfg.Local) == 0 || cfg.Endpoint == nil || cfg.Deliver == nil {
		return nil, &belfry.Error{Op: "udp.listen", Err: fmt.Errorf("%w: an address, an endpoint and a function to deliver to are needed", belfry.ErrUsage)}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	u := &UDP{
		cfg:     cfg,
		log:     cfg.Logger,
		batch:   newBatch(),
		links:   map[linkKey]*socket{},
		sockets: map[int]*socket{},
		notes:   make(chan note, 64),
		asides:  make(chan func(), 64),
		done:    make(chan struct{}),
	}
	u.table.Store(&peerTable{})
	var err error
	if u.poller, err = newPoller(); err != nil {
		return nil, &belfry.Error{Op: "udp.listen", Err: err}
	}
	for _, local := range cfg.Local {
		s, err := listenWildcard(unmap(local))
		if err == nil {
			u.wildcard = append(u.wildcard, s)
			err = u.take(s)
		}
		if err != nil {
			return nil, errors.Join(listenError(local, err), u.Close())
		}
	}
	if !u.start(ownAddresses()) {
		return nil, errors.Join(listenError(cfg.Local[0], syscall.EADDRNOTAVAIL), u.Close())
	}
	u.group.Go(u.tell)
	return u, nil
}

func listenError(addr netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		err = fmt.Errorf("%w: another agent runs there; stop it or change ports.heartbeat", belfry.ErrExist)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		err = fmt.Errorf("%w: this machine has no such address; compare the node's networks with `ip address`", belfry.ErrNotFound)
	}
	return &belfry.Error{Op: "udp.listen", Subject: "udp " + addr.String(), Err: err}
}

// Addrs are the local addresses, in the order of UDPConfig.Local, with the
// port that was taken.
func (u *UDP) Addrs() []netip.AddrPort {
	addrs := make([]netip.AddrPort, len(u.wildcard))
	for i, s := range u.wildcard {
		addrs[i] = s.local
	}
	return addrs
}

// Keys runs f on the endpoint, for the change of epoch or boot. f must not
// call methods of the UDP.
func (u *UDP) Keys(f func(*wire.Endpoint) error) error {
	u.seal.Lock()
	defer u.seal.Unlock()
	return f(u.cfg.Endpoint)
}

// Send seals a body and hands it to the kernel. It never waits: what the
// kernel does not take at once is lost and counted, as on the network. It
// wraps ErrNotMember for an unknown peer, ErrNotFound for an unknown link,
// what [wire.Endpoint.Seal] wraps, and else the system's error.
func (u *UDP) Send(to belfry.NodeID, link uint8, body wire.Body) error {
	l, size, err := u.sealAndSend(to, link, body)
	switch {
	case l == nil:
		return err
	case err != nil:
		u.stats.sendErrors.Add(1)
		u.note(l.id, err)
		return &belfry.Error{Op: "udp.send", Node: to, Subject: l.remote.String(), Err: err}
	}
	u.stats.sent.Add(1)
	u.stats.sentBytes.Add(uint64(size))
	return nil
}

// sealAndSend has a link where the kernel was asked.
func (u *UDP) sealAndSend(to belfry.NodeID, link uint8, body wire.Body) (l *link, size int, err error) {
	u.seal.Lock()
	defer u.seal.Unlock()
	if l, err = u.table.Load().link(to, link); err != nil {
		return nil, 0, &belfry.Error{Op: "udp.send", Node: to, Err: err}
	}
	datagram, err := u.cfg.Endpoint.Seal(time.Now(), u.buf[:0], to, body)
	if err != nil {
		return nil, 0, err
	}
	u.buf = datagram[:0]
	err = l.send(datagram)
	var errno syscall.Errno
	if l.socket.connected && errors.As(err, &errno) {
		if said, ok := saidByICMP(errno); ok { // of an earlier one; this one was not sent
			if err = l.send(datagram); err == nil {
				u.note(l.id, said)
			}
		}
	}
	return l, len(datagram), err
}

// note counts what the kernel said and passes it on. It never waits, because
// it may be the cluster's own loop that sends; what does not fit is said again
// of the next datagram.
func (u *UDP) note(l linkID, err error) {
	n := note{link: l}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		u.stats.refused.Add(1)
		n.err = syscall.ECONNREFUSED
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		u.stats.congested.Add(1)
		n.err = syscall.ENOBUFS
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN),
		errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EINVAL):
		// The last three: what IP_PKTINFO names is not there any more.
		u.stats.unreachable.Add(1)
		n.err = syscall.EHOSTUNREACH
	default:
		return
	}
	select {
	case u.notes <- n:
	default:
	}
}

// aside has something done by the goroutine that may wait. A line of the log
// is lost if it does not keep up; what is counted is not.
func (u *UDP) aside(f func()) {
	select {
	case u.asides <- f:
	default:
	}
}

// tell hands on what the kernel said.
func (u *UDP) tell() {
	var looked time.Time
	for {
		select {
		case f := <-u.asides:
			f()
		case n := <-u.notes:
			if n.err == syscall.EHOSTUNREACH && time.Since(looked) > time.Second {
				u.AddressesChanged()
				looked = time.Now()
			}
			switch {
			case n.err == syscall.ECONNREFUSED && u.cfg.Refused != nil:
				u.cfg.Refused(n.link.peer, n.link.index)
			case n.err == syscall.EHOSTUNREACH && u.cfg.Unreachable != nil:
				u.cfg.Unreachable(n.link.peer, n.link.index)
			case n.err == syscall.ENOBUFS && u.cfg.Congested != nil:
				u.cfg.Congested(1)
			}
		case <-u.done:
			for len(u.asides) > 0 { // the log is whole in the end
				(<-u.asides)()
			}
			return
		}
	}
}

// Stats is a copy.
func (u *UDP) Stats() UDPStats {
	s := UDPStats{
		Sent: u.stats.sent.Load(), SentBytes: u.stats.sentBytes.Load(),
		Received: u.stats.received.Load(), ReceivedBytes: u.stats.receivedBytes.Load(),
		SendErrors: u.stats.sendErrors.Load(), Congested: u.stats.congested.Load(),
		Unreachable: u.stats.unreachable.Load(), Refused: u.stats.refused.Load(),
		KernelDropped: u.stats.dropped.Load(), AddressLosses: u.stats.addressLosses.Load(), Rejected: map[wire.Reason]uint64{},
	}
	for _, r := range wire.Reasons() {
		s.Rejected[r] = u.stats.rejected[r].Load()
	}
	return s
}

// take makes Wait read a socket; with an error it is closed. Called with mu, or
// before anybody else knows u.
func (u *UDP) take(s *socket) error {
	u.fds.Lock()
	u.sockets[s.fd] = s
	u.fds.Unlock()
	if err := u.poller.add(s.fd); err != nil {
		return errors.Join(err, u.forget(s))
	}
	return nil
}

// forget closes a socket. Called like take.
func (u *UDP) forget(s *socket) error {
	if s.fd < 0 {
		return nil
	}
	u.fds.Lock()
	delete(u.sockets, s.fd)
	u.fds.Unlock()
	u.seal.Lock()
	defer u.seal.Unlock()
	return s.close()
}

// Close closes all sockets, ends a Wait and waits for its end: afterwards no
// function of the configuration is called. So it must not be called by one.
func (u *UDP) Close() error {
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return nil
	}
	u.closed = true
	errs := []error{u.poller.stop()}
	for _, s := range u.wildcard {
		errs = append(errs, u.forget(s))
	}
	for _, s := range u.links {
		errs = append(errs, u.forget(s))
	}
	u.mu.Unlock()
	u.waiting.Lock() // from now on nothing is read, and nothing put aside
	defer u.waiting.Unlock()
	u.poller.close()
	close(u.done)
	u.group.Wait()
	return errors.Join(errs...)
}
