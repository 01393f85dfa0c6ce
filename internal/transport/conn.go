package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// Limits of security.md: who has not authenticated costs little.
const (
	maxPending           = 256 // TLS handshakes under way, of members' addresses and of others
	maxPendingPerAddress = 16
	maxConnections       = 12_288
)

// doors is the listener of the stream port. It closes at once what is over a
// limit, and knows the connection behind each remote address, so that one can
// be closed by its stream. Safe for concurrent use.
type doors struct {
	net.Listener

	mu      sync.Mutex
	open    map[string]*doorConn // by remote address
	pending map[netip.Addr]int   // handshakes under way
	members map[netip.Addr]bool  // from where members dial; replaced, never changed
	waiting map[bool]int         // handshakes under way together, from where members dial and from elsewhere
	refused uint64

	failures uint64 // handshakes, since the last line in the log
	told     time.Time
}

func newDoors(l net.Listener) *doors {
	return &doors{Listener: l, open: map[string]*doorConn{}, pending: map[netip.Addr]int{}, waiting: map[bool]int{}}
}

// expect says from where members dial. They have places of their own: whoever
// fills the others keeps no member from its streams.
func (d *doors) expect(members map[netip.Addr]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.members = members
}

// Accept gives only connections that are within the limits.
func (d *doors) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := d.admit(conn); c != nil {
			_ = GiveUp(conn, clientTimeout) // of a test's pipe; quiet has less for nodes
			return c, nil
		}
		_ = conn.Close()
	}
}

func (d *doors) admit(conn net.Conn) *doorConn {
	addr := hostOf(conn.RemoteAddr())
	d.mu.Lock()
	defer d.mu.Unlock()
	member := d.members[addr]
	if d.waiting[member] >= maxPending || d.pending[addr] >= maxPendingPerAddress || len(d.open) >= maxConnections {
		d.refused++
		return nil
	}
	d.waiting[member]++
	d.pending[addr]++
	c := &doorConn{Conn: conn, doors: d, addr: addr, member: member, pending: true}
	d.open[conn.RemoteAddr().String()] = c
	return c
}

// settle ends the time in which a connection counts as a handshake.
func (d *doors) settle(c *doorConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settleLocked(c)
}

func (d *doors) settleLocked(c *doorConn) {
	if !c.pending {
		return
	}
	c.pending = false
	d.waiting[c.member]--
	if d.pending[c.addr]--; d.pending[c.addr] == 0 {
		delete(d.pending, c.addr)
	}
}

// failed lets at most one line a second into the log.
func (d *doors) failed(log func(n uint64)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures++
	if now := time.Now(); now.Sub(d.told) >= time.Second {
		log(d.failures)
		d.failures, d.told = 0, now
	}
}

// connection is the one from that remote address; nil if it is closed.
func (d *doors) connection(remote string) *doorConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[remote]
}

// Refused is how many connections were closed because of a limit.
func (d *doors) Refused() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused
}

// A doorConn is one accepted connection.
type doorConn struct {
	net.Conn
	doors   *doors
	addr    netip.Addr
	member  bool                 // it was accepted as from a member's address
	pending bool                 // guarded by doors.mu
	limited *time.Timer          // likewise; nil: it may live as long as it likes
	client  *tls.ConnectionState // likewise; of a client's, to be judged again. Nil: a node's, or a guest's
}

// limit ends the connection after a time, whatever is done on it. The first
// one counts.
func (c *doorConn) limit(d time.Duration) {
	c.doors.mu.Lock()
	defer c.doors.mu.Unlock()
	if c.limited == nil {
		c.limited = time.AfterFunc(d, func() { _ = c.Close() })
	}
}

// Close closes the connection and takes it off the books.
func (c *doorConn) Close() error {
	remote := c.RemoteAddr().String()
	c.doors.mu.Lock()
	if c.limited != nil {
		c.limited.Stop()
	}
	c.doors.settleLocked(c)
	if c.doors.open[remote] == c {
		delete(c.doors.open, remote)
	}
	c.doors.mu.Unlock()
	return c.Conn.Close()
}

// doorCredentials tells the doors when a handshake has ended.
type doorCredentials struct {
	credentials.TransportCredentials
	doors  *doors
	guest  func(tls.ConnectionState) bool
	client func(tls.ConnectionState) bool
	verify func(tls.ConnectionState) error // the check of the handshake
	log    *slog.Logger
}

func (c *doorCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := c.TransportCredentials.ServerHandshake(conn)
	if door, ok := conn.(*doorConn); ok {
		auth, isTLS := info.(credentials.TLSInfo)
		guest := err == nil && isTLS && c.guest != nil && c.guest(auth.State)
		if guest {
			door.limit(guestTime)
		} else {
			c.doors.settle(door)
		}
		if err == nil && isTLS && !guest && c.client(auth.State) {
			err = door.keepClient(auth.State, c.verify)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) { // those are probes
		c.doors.failed(func(n uint64) {
			c.log.Warn("handshake refused", "source", conn.RemoteAddr().String(), "err", err, "count", n)
		})
	}
	return secured, info, err
}

func (c *doorCredentials) Clone() credentials.TransportCredentials {
	clone := *c
	clone.TransportCredentials = c.TransportCredentials.Clone()
	return &clone
}

func hostOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// quiet makes a connection of a node stream what cluster.md 12 wants: no
// periodic bytes, and an end when what was sent stays unacknowledged (tcp(7)).
func quiet(conn net.Conn) error {
	if door, ok := conn.(*doorConn); ok {
		conn = door.Conn
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil // a test's pipe
	}
	return errors.Join(tcp.SetKeepAlive(false), GiveUp(conn, userTimeout))
}

// GiveUp ends a connection when what was sent stays unacknowledged for so long
// (tcp(7), TCP_USER_TIMEOUT): whoever is at the other end is gone, and did not say
// so. What is no TCP connection stays as it is.
func GiveUp(conn net.Conn, after time.Duration) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
	})
}

// dialTCP opens a connection to a stream port.
func dialTCP(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	if err := quiet(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
