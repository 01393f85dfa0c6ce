package api

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/belfry-ha/belfry"
)

// localCredentials identifies the process at the other end of a unix socket
// once, when its connection is accepted (security.md, Local rights): a
// descriptor that is passed on later keeps its opener's rights.
type localCredentials struct {
	identify func(net.Conn) (Subject, error)
	limited  *atomic.Uint64 // connections that were too many

	mu     sync.Mutex
	open   int            // connections
	perUID map[uint32]int // likewise
}

// Limits of security.md.
const (
	maxConnections       = 1024
	maxConnectionsPerUID = 64
)

func newLocalCredentials(identify func(net.Conn) (Subject, error), limited *atomic.Uint64) *localCredentials {
	return &localCredentials{identify: identify, limited: limited, perUID: map[uint32]int{}}
}

// localAuth is what the handshake found out, and what is counted per
// connection.
type localAuth struct {
	credentials.CommonAuthInfo
	subject Subject
	calls   *bucket
}

// AuthType names the way of authentication.
func (localAuth) AuthType() string { return "unix" }

func (c *localCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	s, err := c.identify(conn)
	if err == nil {
		err = c.admit(s)
	}
	if err != nil {
		return nil, nil, err
	}
	return &countedConn{Conn: conn, release: sync.OnceFunc(func() { c.release(s) })}, localAuth{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		subject:        s,
		calls:          newBucket(callRate, callBurst, time.Now()),
	}, nil
}

// admit counts a connection. An administrator is only held to the bound of
// all together.
func (c *localCredentials) admit(s Subject) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= maxConnections || s.Role < belfry.RoleAdmin && c.perUID[s.UID] >= maxConnectionsPerUID {
		c.limited.Add(1)
		return fmt.Errorf("%w: too many connections to this socket; close some", belfry.ErrLimit)
	}
	c.open++
	c.perUID[s.UID]++
	return nil
}

func (c *localCredentials) release(s Subject) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if c.perUID[s.UID]--; c.perUID[s.UID] == 0 {
		delete(c.perUID, s.UID)
	}
}

// countedConn gives its place back when it is closed.
type countedConn struct {
	net.Conn
	release func()
}

func (c *countedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

func (c *localCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	panic("api: server credentials used by a client")
}

func (c *localCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

func (c *localCredentials) Clone() credentials.TransportCredentials { return c }

func (c *localCredentials) OverrideServerName(string) error { return nil }

// A bucket is a token bucket, safe for concurrent use.
type bucket struct {
	rate, burst float64 // tokens per second; most tokens

	mu     sync.Mutex
	tokens float64
	at     time.Time // of tokens
}

func newBucket(rate, burst float64, now time.Time) *bucket {
	return &bucket{rate: rate, burst: burst, tokens: burst, at: now}
}

// take takes n tokens, all or none.
func (b *bucket) take(now time.Time, n float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := now.Sub(b.at); d > 0 {
		b.tokens, b.at = min(b.burst, b.tokens+b.rate*d.Seconds()), now
	}
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}
