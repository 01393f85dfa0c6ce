package agent

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// TestEachLimitOfTheTableIsReached takes the rows of security.md's table that
// the member table and the stream port enforce: as much as the row allows is let
// pass, and one more is refused.
func TestEachLimitOfTheTableIsReached(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		most  int // by the table
		reach func(t *testing.T, n int) error
		is    error
	}{
		{"document, bytes", 1 << 20, readDocument, belfry.ErrLimit},
		{"nodes", 1024, listNodes, belfry.ErrLimit},
		{"tokens alive", 64, holdTokens, belfry.ErrLimit},
		{"name of a node, bytes", 63, nameNode, nil},
		{"pending TLS handshakes of one address", 16, openHandshakes(1, 16), io.EOF},
		{"pending TLS handshakes", 256, openHandshakes(32, 256), io.EOF},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if err := row.reach(t, row.most); err != nil {
				t.Errorf("%d: %v; want none", row.most, err)
			}
			if err := row.reach(t, row.most+1); err == nil || row.is != nil && !errors.Is(err, row.is) {
				t.Errorf("%d: %v; want %v", row.most+1, err, row.is)
			}
		})
	}
}

// readDocument reads a member table of n bytes.
func readDocument(t *testing.T, n int) error {
	_, dir := openTable(t, testTable(t))
	path := dir + "/" + memberFile
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, strings.Repeat("\n", n-len(data))...), 0o600); err != nil {
		return err
	}
	_, err = OpenMembers(dir)
	return err
}

func listNodes(t *testing.T, n int) error {
	table := testTable(t)
	key := make(PublicKey, ed25519.PublicKeySize)
	for i := len(table.Nodes); i < n; i++ {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 7431)
		table.Nodes = append(table.Nodes, Node{
			ID: belfry.NewNodeID(), Number: belfry.NodeNumber(i + 1), Name: fmt.Sprintf("n%d", i), Key: key,
			Networks: []Network{{Name: "net1", Heartbeat: address}}, Streams: address,
		})
	}
	return table.Validate()
}

func holdTokens(t *testing.T, n int) error {
	table := testTable(t)
	for i := range n {
		table.Tokens = append(table.Tokens, JoinToken{ID: fmt.Sprintf("%016x", i), Hash: Digest{1}, Expires: time.Now().Add(time.Minute), Role: "node", Creator: "test"})
	}
	return table.Validate()
}

func nameNode(t *testing.T, n int) error {
	table := testTable(t)
	table.Nodes[0].Name = strings.Repeat("n", n)
	return table.Validate()
}

// openHandshakes begins n from so many addresses in turn, and tells whether
// the last of them was closed before its time was over. All others have to stay.
func openHandshakes(addresses, most int) func(*testing.T, int) error {
	return func(t *testing.T, n int) error {
		node := localNodes(t, 1)[0]
		a := startAgent(t, node)
		defer stopAgent(t, a)
		conns := make([]net.Conn, n)
		for i := range conns {
			from := net.Dialer{Timeout: testTimeout, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%addresses))}}
			conn, err := from.DialContext(t.Context(), "tcp", node.Streams.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conns[i] = conn
		}
		wait := 200 * time.Millisecond
		if n > most {
			wait = 5 * time.Second // half of the time that a handshake has
		}
		last := closed(conns[n-1], wait) // accepted after all others
		for i, conn := range conns[:n-1] {
			if err := closed(conn, time.Millisecond); err != nil {
				t.Errorf("handshake %d of %d: %v; want it to wait", i+1, n, err)
			}
		}
		return last
	}
}

// closed waits for the other side to close a connection; nil: it does not.
func closed(conn net.Conn, wait time.Duration) error {
	_ = conn.SetReadDeadline(time.Now().Add(wait)) // the read tells
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
