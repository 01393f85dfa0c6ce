package etcd

import (
	"net"
	"sync"
	"testing"
)

// A proxy lies between one node and etcd.
type proxy struct {
	t        testing.TB
	listener net.Listener
	to       string

	mu    sync.Mutex
	down  bool
	deaf  bool // requests pass, answers do not
	conns []net.Conn
	heard int64 // bytes of answers that did not pass
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, to: to}
	t.Cleanup(func() { l.Close(); p.cut() })
	go p.serve()
	return p
}

func (p *proxy) endpoint() string { return p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		down := p.down
		p.mu.Unlock()
		if down {
			in.Close()
			continue
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		go p.pass(out, in, func() bool { return false })
		go p.pass(in, out, func() bool { return p.deaf })
	}
}

// pass copies until one end is closed, and then closes the other.
func (p *proxy) pass(to, from net.Conn, drop func() bool) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		dropped := drop()
		if dropped {
			p.heard += int64(n)
		}
		p.mu.Unlock()
		if n > 0 && !dropped {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut ends all connections and takes no more.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// heal takes connections again; those that were deaf are cut first.
func (p *proxy) heal() {
	p.cut()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.deaf = false, false
}

// deafen drops the answers from now on.
func (p *proxy) deafen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = true
}
