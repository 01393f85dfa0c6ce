package transport

import (
	"net"
	"net/netip"
	"testing"
)

// a dialer is the far end of a connection on which nothing happens.
type dialer struct {
	net.Conn
	from netip.AddrPort
}

func (d dialer) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(d.from) }
func (dialer) Close() error           { return nil }

// Whoever has many addresses can fill all places for handshakes, but not those
// of members, by whose streams a cluster lives.
func TestStrangersTakeNoMembersPlace(t *testing.T) {
	t.Parallel()
	d := newDoors(nil)
	member := netip.MustParseAddr("10.0.0.2")
	d.expect(map[netip.Addr]bool{member: true})
	var admitted []*doorConn
	for n := range 1000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n / 250), byte(n % 250)}), 1000)
		if c := d.admit(dialer{from: from}); c != nil {
			admitted = append(admitted, c)
		}
	}
	if len(admitted) != maxPending {
		t.Errorf("%d handshakes of strangers under way, want %d", len(admitted), maxPending)
	}
	for port := range uint16(maxPendingPerAddress + 1) {
		c := d.admit(dialer{from: netip.AddrPortFrom(member, 1000+port)})
		if (c != nil) != (port < maxPendingPerAddress) {
			t.Errorf("connection %d from a member's address: admitted %t", port+1, c != nil)
		}
	}
	d.expect(nil) // it was removed meanwhile
	_ = admitted[0].Close()
	if c := d.admit(dialer{from: netip.MustParseAddrPort("10.2.0.1:1000")}); c == nil {
		t.Error("a place that is free again is not given")
	}
}
