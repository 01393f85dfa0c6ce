package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// acceptPause keeps a listener from spinning while the machine is out of
// descriptors.
const acceptPause = 100 * time.Millisecond

// A streamListener accepts on several addresses as if they were one.
type streamListener struct {
	open     []net.Listener // at least one; never written after ListenStreams
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
	group    sync.WaitGroup
}

// ListenStreams opens the port for the streams of other nodes on all of the
// addresses, whether or not this machine has them yet. The error wraps that of
// the system.
func ListenStreams(addrs []netip.AddrPort) (net.Listener, error) {
	l := &streamListener{accepted: make(chan net.Conn), closed: make(chan struct{})}
	for _, addr := range addrs {
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error { return freeBind(fd, addr.Addr()) })
		}}
		one, err := config.Listen(context.Background(), "tcp", addr.String())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: %w", addr, err), l.Close())
		}
		l.open = append(l.open, one)
	}
	for _, one := range l.open {
		l.group.Go(func() { l.accept(one) })
	}
	return l, nil
}

func (l *streamListener) accept(one net.Listener) {
	for {
		conn, err := one.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-l.closed:
				return
			case <-time.After(acceptPause):
				continue
			}
		}
		select {
		case l.accepted <- conn:
		case <-l.closed:
			_ = conn.Close()
			return
		}
	}
}

// Accept is [net.Listener].
func (l *streamListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends all of them; it can be called again.
func (l *streamListener) Close() error {
	var errs []error
	l.once.Do(func() {
		close(l.closed)
		for _, one := range l.open {
			errs = append(errs, one.Close())
		}
	})
	l.group.Wait()
	return errors.Join(errs...)
}

// Addr is the first address.
func (l *streamListener) Addr() net.Addr { return l.open[0].Addr() }
