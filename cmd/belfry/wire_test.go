package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A wire joins network namespaces: it carries IP packets from the interface of
// one to that of another, late or not at all if it is told so, and keeps a
// capture of the datagrams. Every direction has conditions of its own.
//
// It is a program and not netem because few kernels have that.
type wire struct {
	ends  map[netip.Addr]end // never written once packets are carried
	group sync.WaitGroup

	mu         sync.Mutex
	ports      map[netip.Addr]*os.File // where packets to an address go
	opened     []*os.File
	rng        *rand.Rand
	conditions map[direction]*condition
	packets    []packet
	news       chan struct{} // closed and replaced when packets grows
}

// An end of the wire is a node on a network, by name.
type end struct{ node, network string }

// A direction is from one node to another on one network, by name.
type direction struct{ from, to, network string }

// A condition is what happens to the packets of one direction.
type condition struct {
	delay  time.Duration   // of each packet
	jitter time.Duration   // up to this much more, at random
	script []time.Duration // of the next datagrams, before delay and jitter count again
	lose   int             // every so many datagrams one is lost; 0: none
	mtu    int             // larger packets are lost, and nobody is told; 0: none is too large
	count  int             // of datagrams
	last   time.Time       // when the newest packet that is no datagram arrives: they keep their order
}

// A packet is a datagram that was captured.
type packet struct {
	direction
	sent     time.Time
	delay    time.Duration
	lost     bool
	scripted bool
	size     int // UDP payload, bytes
}

func (p packet) arrived() time.Time { return p.sent.Add(p.delay) }

func newWire(seed uint64) *wire {
	return &wire{
		ends:       map[netip.Addr]end{},
		ports:      map[netip.Addr]*os.File{},
		rng:        rand.New(rand.NewPCG(seed, 0)),
		conditions: map[direction]*condition{},
		news:       make(chan struct{}),
	}
}

// name says whose an address is, before the wire carries anything.
func (w *wire) name(addr netip.Addr, of end) { w.ends[addr] = of }

// plug makes an interface the one that an address is reached by, and carries
// what comes from it until the wire is cut.
func (w *wire) plug(addr netip.Addr, port *os.File) {
	w.mu.Lock()
	w.ports[addr] = port
	w.opened = append(w.opened, port)
	w.mu.Unlock()
	w.group.Go(func() { w.read(addr, port) })
}

// port is where packets to an address go now.
func (w *wire) port(addr netip.Addr) *os.File {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ports[addr]
}

// lead has packets to an address go to a port that was plugged in before.
func (w *wire) lead(addr netip.Addr, port *os.File) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports[addr] = port
}

func (w *wire) cut() {
	w.mu.Lock()
	for _, port := range w.opened {
		port.Close()
	}
	w.mu.Unlock()
	w.group.Wait()
}

// setCarrier plugs the cable of an address in, or out: the interface loses its
// carrier (TUNSETCARRIER).
func (w *wire) setCarrier(addr netip.Addr, on bool) error {
	w.mu.Lock()
	port := w.ports[addr]
	w.mu.Unlock()
	raw, err := port.SyscallConn()
	if err != nil {
		return err
	}
	value := int32(0)
	if on {
		value = 1
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.TUNSETCARRIER, uintptr(unsafe.Pointer(&value)))
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("TUNSETCARRIER", errno)
	}
	return err
}

func (w *wire) read(from netip.Addr, port *os.File) {
	runtime.LockOSThread() // for hurry: the thread ends with this
	hurry()
	buffer := make([]byte, 64<<10)
	for {
		n, err := port.Read(buffer)
		if err != nil {
			return // it is closed
		}
		w.forward(from, slices.Clone(buffer[:n]))
	}
}

// IPv4 (RFC 791 3.1) and UDP (RFC 768).
const (
	ipHeader  = 20
	udpHeader = 8
	protoUDP  = 17
)

func (w *wire) forward(from netip.Addr, ip []byte) {
	now := time.Now()
	if len(ip) < ipHeader || ip[0]>>4 != 4 {
		return // IPv6 router solicitations
	}
	to, _ := netip.AddrFromSlice(ip[16:20])
	sender, receiver := w.ends[from], w.ends[to]
	udp := ip[9] == protoUDP && len(ip) >= ipHeader+udpHeader
	p := packet{direction: direction{sender.node, receiver.node, sender.network}, sent: now}
	w.mu.Lock()
	port := w.ports[to]
	switch mtu := w.condition(p.direction).mtu; {
	case port == nil || sender.network != receiver.network || mtu > 0 && len(ip) > mtu:
		w.mu.Unlock()
		return
	case udp:
		p.delay, p.lost, p.scripted = w.fate(p.direction)
		p.size = int(binary.BigEndian.Uint16(ip[ipHeader+4:])) - udpHeader
		w.packets = append(w.packets, p)
		close(w.news)
		w.news = make(chan struct{})
	default:
		p.delay = w.inOrder(p.direction, now)
	}
	w.mu.Unlock()
	switch {
	case p.lost:
	case p.delay == 0:
		w.deliver(port, ip)
	default:
		time.AfterFunc(p.delay, func() { w.deliver(port, ip) })
	}
}

func (w *wire) deliver(port *os.File, ip []byte) {
	// A queue that is full loses packets, as any network does, and an interface
	// that is down takes none (EIO).
	if _, err := port.Write(ip); err != nil && !errors.Is(err, fs.ErrClosed) && !errors.Is(err, syscall.EIO) {
		fmt.Fprintln(os.Stderr, "wire:", err)
	}
}

// condition is that of one direction. Called with mu.
func (w *wire) condition(d direction) *condition {
	c := w.conditions[d]
	if c == nil {
		c = new(condition)
		w.conditions[d] = c
	}
	return c
}

// fate is what happens to the next datagram. Called with mu.
func (w *wire) fate(d direction) (delay time.Duration, lost, scripted bool) {
	c := w.condition(d)
	c.count++
	switch {
	case len(c.script) > 0:
		delay, c.script = c.script[0], c.script[1:]
		return c.delay + delay, false, true
	case c.lose > 0 && c.count%c.lose == 0:
		return 0, true, false
	}
	return c.delay + w.random(c.jitter), false, false
}

// inOrder is the delay of a packet that must not overtake another. Called with
// mu.
func (w *wire) inOrder(d direction, now time.Time) time.Duration {
	c := w.condition(d)
	delay := c.delay + w.random(c.jitter)
	if delay == 0 && !c.last.After(now) {
		return 0
	}
	// A millisecond apart, timers fire in their order.
	c.last = latest(now.Add(delay), c.last.Add(time.Millisecond))
	return c.last.Sub(now)
}

// random is a time up to limit. Called with mu.
func (w *wire) random(limit time.Duration) time.Duration {
	if limit == 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(limit)))
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// set changes the conditions of directions.
func (w *wire) set(directions []direction, change func(*condition)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range directions {
		change(w.condition(d))
	}
}

// sample is the delay that a datagram would have now.
func (w *wire) sample(d direction) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.condition(d)
	return c.delay + w.random(c.jitter)
}
