package transport

import (
	"crypto/tls"
	"time"

	"google.golang.org/grpc/credentials"
)

// clientFarewell is what a client's connection is left when its client is let
// in no more: its streams are told why, and nothing new is begun on it. Every
// node refuses it altogether within 2 s (security.md, invariant 2).
const clientFarewell = 500 * time.Millisecond

// credentials are those of the stream port.
func (s *Streams) credentials() credentials.TransportCredentials {
	return &doorCredentials{
		TransportCredentials: credentials.NewTLS(s.cfg.ServerTLS),
		doors:                s.doors,
		guest:                s.cfg.Guest,
		client:               s.isClient,
		verify:               s.cfg.ServerTLS.VerifyConnection,
		log:                  s.log,
	}
}

// isClient tells whether a verified connection is no node's.
func (s *Streams) isClient(state tls.ConnectionState) bool {
	_, err := s.cfg.Identify(state)
	return err != nil
}

// Recheck judges the connections of clients again, as their handshakes did, and
// closes those that would be refused now, after clientFarewell. It is to be
// called when ServerTLS has begun to judge otherwise, and does not wait.
func (s *Streams) Recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.group.Go(func() {
		if ended := s.doors.recheck(s.cfg.ServerTLS.VerifyConnection); ended > 0 {
			s.log.Info("connections of clients that are let in no more end", "count", ended)
		}
	})
}

// recheck says how many connections it ends.
func (d *doors) recheck(verify func(tls.ConnectionState) error) (ended int) {
	for c, state := range d.clients() {
		if verify(*state) != nil {
			c.limit(clientFarewell)
			ended++
		}
	}
	return ended
}

// clients are the connections that are not ending already.
func (d *doors) clients() map[*doorConn]*tls.ConnectionState {
	d.mu.Lock()
	defer d.mu.Unlock()
	clients := map[*doorConn]*tls.ConnectionState{}
	for _, c := range d.open {
		if c.client != nil && c.limited == nil {
			clients[c] = c.client
		}
	}
	return clients
}

// keepClient has the connection judged again with the others. What changed
// while its handshake ran, when no Recheck saw it, is caught here.
func (c *doorConn) keepClient(state tls.ConnectionState, verify func(tls.ConnectionState) error) error {
	c.doors.mu.Lock()
	c.client = &state
	c.doors.mu.Unlock()
	return verify(state)
}
