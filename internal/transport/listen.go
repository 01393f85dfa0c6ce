package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// listenAgain is how often an address that is not this machine's is tried.
const listenAgain = time.Second

// A listeners accepts on several addresses as if they were one.
type listeners struct {
	accepted chan net.Conn
	closed   chan struct{}
	group    sync.WaitGroup
	log      *slog.Logger

	mu    sync.Mutex
	open  []net.Listener
	ended bool
}

// Listen listens for TCP on all of the addresses. One that this machine does
// not have now is listened on as soon as it does; if it has none of them, or one
// is in use, that is the error. Nil log: no log.
func Listen(addrs []netip.AddrPort, log *slog.Logger) (net.Listener, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &listeners{accepted: make(chan net.Conn), closed: make(chan struct{}), log: log}
	var absent []netip.AddrPort
	var missing error
	for _, addr := range addrs {
		err := l.listen(addr)
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			absent, missing = append(absent, addr), err
			continue
		}
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	if len(absent) == len(addrs) {
		return nil, errors.Join(missing, l.Close())
	}
	for _, addr := range absent {
		log.Warn("this machine does not have the address now; it is listened on when it does", "address", addr)
		l.group.Go(func() { l.await(addr) })
	}
	return l, nil
}

// listen adds one address.
func (l *listeners) listen(addr netip.AddrPort) error {
	one, err := net.Listen("tcp", addr.String())
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return errors.Join(net.ErrClosed, one.Close())
	}
	l.open = append(l.open, one)
	l.group.Go(func() { l.accept(one) })
	return nil
}

// await tries an address until it can be had.
func (l *listeners) await(addr netip.AddrPort) {
	tick := time.NewTicker(listenAgain)
	defer tick.Stop()
	for {
		select {
		case <-l.closed:
			return
		case <-tick.C:
		}
		switch err := l.listen(addr); {
		case err == nil:
			l.log.Info("address is listened on", "address", addr)
			return
		case !errors.Is(err, syscall.EADDRNOTAVAIL):
			l.log.Warn("address is not listened on", "address", addr, "err", err)
		}
	}
}

// acceptPause keeps a loop from spinning while the machine is out of
// descriptors.
const acceptPause = 100 * time.Millisecond

func (l *listeners) accept(one net.Listener) {
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
func (l *listeners) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends all of them; it can be called again.
func (l *listeners) Close() error {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return nil
	}
	l.ended = true
	close(l.closed)
	var errs []error
	for _, one := range l.open {
		errs = append(errs, one.Close())
	}
	l.mu.Unlock()
	l.group.Wait()
	return errors.Join(errs...)
}

// Addr is that of the first that is open.
func (l *listeners) Addr() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) == 0 {
		return &net.TCPAddr{}
	}
	return l.open[0].Addr()
}
