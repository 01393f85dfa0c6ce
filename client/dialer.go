package client

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// A dialer remembers why it failed, which the layers above it do not tell.
type dialer struct {
	network, address string

	mu   sync.Mutex
	last error
}

func (d *dialer) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, d.network, d.address)
	d.note(err)
	return conn, err
}

func (d *dialer) note(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = err
}

func (d *dialer) lastError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// notedCredentials remember why a handshake failed: the library only says that
// the connection did. In TLS 1.3 the client's part is over before the server has
// judged its certificate, whose refusal is what it reads first (RFC 8446 4.4.2.4).
type notedCredentials struct {
	credentials.TransportCredentials
	dialer *dialer
}

func (n *notedCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := n.TransportCredentials.ClientHandshake(ctx, authority, conn)
	if err != nil {
		if errors.As(err, new(x509.UnknownAuthorityError)) {
			n.dialer.note(unknownAuthority{err})
		} else {
			n.dialer.note(err)
		}
		return secured, info, err
	}
	return &notedConn{secured, n.dialer}, info, nil
}

func (n *notedCredentials) Clone() credentials.TransportCredentials {
	return &notedCredentials{n.TransportCredentials.Clone(), n.dialer}
}

type notedConn struct {
	net.Conn
	dialer *dialer
}

func (c *notedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if alert := (*net.OpError)(nil); errors.As(err, &alert) && alert.Op == "remote error" { // as crypto/tls calls alerts
		c.dialer.note(refusedCertificate{err})
	}
	return n, err
}

// Write hears, when it fails, what the server said before it closed: the
// library would not read any more.
func (c *notedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && c.SetReadDeadline(time.Now().Add(lastWord)) == nil {
		_, _ = c.Read(make([]byte, 1))
	}
	return n, err
}

// lastWord bounds the wait for what has been sent already.
const lastWord = 100 * time.Millisecond

// refusedCertificate is why a server ended a connection that the client had
// opened: it does not take the certificate.
type refusedCertificate struct{ error }

func (r refusedCertificate) Unwrap() error { return r.error }

// unknownAuthority is why a client did not take the certificate of a server.
type unknownAuthority struct{ error }

func (u unknownAuthority) Unwrap() error { return u.error }
