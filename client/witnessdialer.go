package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
)

// A ResourceDialer connects to where a resource is, and ends its connections at once
// when that is no more: a program that waits for an answer of a dead server goes on.
// Safe for concurrent use.
type ResourceDialer struct {
	witness  *Witness
	resource string
	done     chan struct{}

	mu      sync.Mutex
	closed  bool
	usable  []string      // addresses, the best first; empty: the resource can not be used
	moved   []string      // where a move sends new connections; empty: nowhere
	used    string        // host of the holder that was connected to last
	changed chan struct{} // closed when that is otherwise
	open    map[*resourceConn]struct{}
}

// dialAgain is between two attempts at the same address.
const dialAgain = 250 * time.Millisecond

// OpenDialer is OpenWitness for exactly one resource, which may be missing now; what
// the program uses is known by what it connects to, so config.At is left empty. The
// errors are those of OpenWitness.
func OpenDialer(ctx context.Context, config WitnessConfig) (*ResourceDialer, error) {
	if len(config.Resources) != 1 || config.At != "" {
		return nil, fmt.Errorf("%w: a dialer follows one resource, and finds its holder; name one, and no At", belfry.ErrUsage)
	}
	config.AllowMissing = true
	w, err := OpenWitness(ctx, config)
	if err != nil {
		return nil, err
	}
	return newResourceDialer(w, config.Resources[0]), nil
}

// newResourceDialer follows a witness that follows the resource.
func newResourceDialer(w *Witness, resource string) *ResourceDialer {
	d := &ResourceDialer{
		witness: w, resource: resource, done: make(chan struct{}), changed: make(chan struct{}), open: map[*resourceConn]struct{}{},
	}
	go d.run()
	return d
}

// DialContext fits [net.Dialer] and http.Transport. The port of address counts where
// the resource's address has none; its host means nothing. It waits until the
// resource can be used, as long as ctx allows.
//
// What it returns fails with ErrResourceUnavailable when its holder does, and with
// ErrResourceMoved when clients are asked to go elsewhere.
func (d *ResourceDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%w: address %q: %w; only its port counts", belfry.ErrUsage, address, err)
	}
	var failed error
	for {
		target, changed, err := d.target(port)
		if err != nil {
			return nil, err
		}
		if target != "" {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, target)
			if err == nil {
				if c, ok := d.keep(conn, target, port); ok {
					return c, nil
				}
				continue // it failed meanwhile
			}
			failed = err
		}
		select {
		case <-changed:
		case <-time.After(dialAgain): // the holder may be just starting
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%w: %s", belfry.ErrResourceUnavailable, d.resource), ctx.Err(), failed)
		}
	}
}

// target is where to connect now; empty: nowhere.
func (d *ResourceDialer) target(port string) (target string, changed <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return "", nil, net.ErrClosed
	}
	for _, address := range slices.Concat(d.moved, d.usable) {
		return withPort(address, port), d.changed, nil
	}
	return "", d.changed, nil
}

// keep takes a connection under its care; false: its target is none any more.
func (d *ResourceDialer) keep(conn net.Conn, target, port string) (*resourceConn, bool) {
	host := hostOf(target)
	d.witness.Use(host) // its failure is news although another holder lives
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used = host
	c := &resourceConn{Conn: conn, dialer: d, target: target, port: port}
	if d.closed || d.cause(c) != nil {
		_ = conn.Close()
		return nil, false
	}
	d.open[c] = struct{}{}
	return c, true
}

// cause is why a connection can not be used; nil: it can.
func (d *ResourceDialer) cause(c *resourceConn) error {
	at := func(address string) bool { return withPort(address, c.port) == c.target }
	switch {
	case len(d.moved) > 0 && !slices.ContainsFunc(d.moved, at):
		return belfry.ErrResourceMoved
	case len(d.moved) == 0 && !slices.ContainsFunc(d.usable, at):
		return belfry.ErrResourceUnavailable
	}
	return nil
}

// run follows the witness until it is closed.
func (d *ResourceDialer) run() {
	defer close(d.done)
	for {
		e, err := d.witness.Next(context.Background()) // Close ends it
		if err != nil {
			return
		}
		switch {
		case e.Kind == WitnessMove && len(e.Change.Move.Addresses) > 0:
			d.set(func() { d.moved = e.Change.Move.Addresses })
		case e.Kind != WitnessState && e.Kind != WitnessChange, e.Change.Level.State == belfry.ResourceUnknown:
			// A doubt: what works goes on.
		default:
			d.set(func() { d.take(&e.Change) })
		}
	}
}

// take takes where the resource can be used now. Of the holder in use a doubt is no
// failure, also where another one is certain: what works there goes on.
func (d *ResourceDialer) take(c *belfry.ResourceChange) {
	usable := slices.Clone(c.Addresses)
	if c.HasAt && c.Level.At == belfry.ResourceUnknown {
		for _, address := range slices.Concat(d.moved, d.usable) {
			if hostOf(address) == d.used && !slices.Contains(usable, address) {
				usable = append(usable, address)
			}
		}
	}
	d.usable = usable
	d.moved = slices.DeleteFunc(slices.Clone(d.moved), func(a string) bool { return !slices.Contains(usable, a) })
}

// set changes where to connect, and ends the connections that are elsewhere.
func (d *ResourceDialer) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
	close(d.changed)
	d.changed = make(chan struct{})
	for c := range d.open {
		if err := d.cause(c); err != nil {
			c.fail(fmt.Errorf("%w: %s at %s", err, d.resource, c.target))
		}
	}
}

// Close ends the registration and all connections.
func (d *ResourceDialer) Close() {
	d.witness.Close()
	<-d.done
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	close(d.changed)
	for c := range d.open {
		c.fail(net.ErrClosed)
	}
}

// withPort adds a port to an address that has none.
func withPort(address, port string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(address, port)
}

// hostOf is an address without its port, if it has one.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// A resourceConn is a connection to one holder.
type resourceConn struct {
	net.Conn
	dialer *ResourceDialer
	target string
	port   string // that was asked for

	mu  sync.Mutex
	err error // why it was ended
}

// fail ends it; what waits in it returns err. The dialer's lock is held.
func (c *resourceConn) fail(err error) {
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	_ = c.Conn.Close()
	delete(c.dialer.open, c)
}

// because is the reason why an operation failed.
func (c *resourceConn) because(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && c.err != nil {
		return c.err
	}
	return err
}

// Read is for [net.Conn].
func (c *resourceConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.because(err)
}

// Write is for [net.Conn].
func (c *resourceConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.because(err)
}

// Close is for [net.Conn].
func (c *resourceConn) Close() error {
	c.dialer.mu.Lock()
	delete(c.dialer.open, c)
	c.dialer.mu.Unlock()
	return c.because(c.Conn.Close())
}
