package main

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A proxy hands local connections to where a resource is now. What was connected
// to a holder that failed is reset, so that the client connects again instead of
// waiting.
type proxy struct {
	listener net.Listener
	hold     time.Duration // that a new connection waits for a target
	drain    time.Duration // that an old one may stay after a move
	trouble  func(error)

	mu      sync.Mutex
	target  string        // host:port; empty: none
	changed chan struct{} // closed when target is otherwise
	open    map[*spliced]struct{}

	conns sync.WaitGroup
}

// idleAfterMove is how long an old connection must be idle to end.
const idleAfterMove = time.Second

// A spliced is one connection of a client, with its other end.
type spliced struct {
	client, server net.Conn
	target         string
	last           atomic.Int64 // when something went through, unix ns
}

func newProxy(l net.Listener, hold, drain time.Duration, trouble func(error)) *proxy {
	return &proxy{
		listener: l, hold: hold, drain: drain, trouble: trouble,
		changed: make(chan struct{}), open: map[*spliced]struct{}{},
	}
}

// run serves until ctx ends; then it cuts all connections.
func (p *proxy) run(ctx context.Context) error {
	defer p.conns.Wait()
	defer context.AfterFunc(ctx, func() { _ = p.listener.Close() })()
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			p.reset(func(*spliced) bool { return true })
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		p.conns.Go(func() { p.serve(ctx, conn) })
	}
}

// use sends new connections to a target; empty: they are held. Those of targets
// that can not be used any more are reset.
func (p *proxy) use(target string, usable []string) {
	p.set(target)
	p.reset(func(s *spliced) bool { return !slices.Contains(usable, s.target) })
}

// move sends new connections to a target; old ones end when they are idle, or
// when their time is over.
func (p *proxy) move(target string, done <-chan struct{}) {
	p.mu.Lock()
	old := p.target
	p.mu.Unlock()
	if old == target {
		return
	}
	p.set(target)
	deadline := time.Now().Add(p.drain)
	p.conns.Go(func() {
		ticker := time.NewTicker(idleAfterMove / 4)
		defer ticker.Stop()
		for {
			now := time.Now()
			p.reset(func(s *spliced) bool {
				idle := now.Sub(time.Unix(0, s.last.Load())) >= idleAfterMove
				return s.target == old && (idle || now.After(deadline))
			})
			if now.After(deadline) {
				return
			}
			select {
			case <-ticker.C:
			case <-done:
				return
			}
		}
	})
}

func (p *proxy) set(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.target != target {
		p.target = target
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// reset cuts the connections that are meant, the clients' ends with a reset.
func (p *proxy) reset(meant func(*spliced) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.open {
		if meant(s) {
			s.cut()
		}
	}
}

func (s *spliced) cut() {
	if c, ok := s.client.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = s.client.Close()
	_ = s.server.Close()
}

// serve waits for a target that answers, and joins both ends.
func (p *proxy) serve(ctx context.Context, client net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, p.hold)
	defer cancel()
	for {
		p.mu.Lock()
		target, changed := p.target, p.changed
		p.mu.Unlock()
		if target != "" {
			server, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
			if err == nil {
				p.splice(&spliced{client: client, server: server, target: target})
				return
			}
			p.trouble(err)
		}
		select {
		case <-changed:
		case <-time.After(idleAfterMove / 4): // the holder may be just starting
		case <-ctx.Done():
			if c, ok := client.(*net.TCPConn); ok {
				_ = c.SetLinger(0)
			}
			_ = client.Close()
			return
		}
	}
}

// splice copies both ways until either end closes.
func (p *proxy) splice(s *spliced) {
	s.last.Store(time.Now().UnixNano())
	p.mu.Lock()
	p.open[s] = struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{s.client, s.server}, {s.server, s.client}} {
		both.Go(func() {
			_, err := io.Copy(noting{way[1], s}, way[0])
			if half, ok := way[1].(*net.TCPConn); ok && err == nil {
				_ = half.CloseWrite() // the other way may go on
			} else if !errors.Is(err, net.ErrClosed) {
				s.cut()
			}
		})
	}
	both.Wait()
	p.mu.Lock()
	delete(p.open, s)
	p.mu.Unlock()
	_ = s.client.Close()
	_ = s.server.Close()
}

// noting keeps when something went through.
type noting struct {
	net.Conn
	s *spliced
}

func (n noting) Write(b []byte) (int, error) {
	n.s.last.Store(time.Now().UnixNano())
	return n.Conn.Write(b)
}
