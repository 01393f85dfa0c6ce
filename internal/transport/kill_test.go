package transport_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

// childVariable makes this test binary a node of its own, because only a
// process can be killed: "KEYS ADDRESS PEER PEER-ADDRESS".
const childVariable = "BELFRY_TEST_TRANSPORT_CHILD"

func TestMain(m *testing.M) {
	for variable, run := range map[string]func([]string) error{childVariable: runChild, floodVariable: runFlood} {
		if line := os.Getenv(variable); line != "" {
			if err := run(strings.Fields(line)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	m.Run()
}

// runChild serves until its standard input ends.
func runChild(args []string) error {
	keys, err := security.Load(args[0])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", args[1])
	if err != nil {
		return err
	}
	peer, err := belfry.ParseNodeID(args[2])
	if err != nil {
		return err
	}
	opts := security.TLSOptions{
		Keys:   func() *security.Keys { return keys },
		Listed: func(belfry.NodeID, ed25519.PublicKey) error { return nil },
	}
	s := transport.NewStreams(transport.StreamsConfig{
		Listener: l, ServerTLS: security.NodeServerConfig(opts), Identify: identify,
		ClientTLS: func(p belfry.NodeID) *tls.Config { return security.NodeClientConfig(opts, p) },
		Self:      transport.Hello{Node: keys.Node, Incarnation: 1, Boot: 1},
		Deliver:   func(transport.StreamEvent) {},
	})
	s.SetPeers([]transport.StreamPeer{{ID: peer, Addrs: []netip.AddrPort{netip.MustParseAddrPort(args[3])}}})
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// child starts node i of a cluster as a process; it knows the other node.
func (c *streamCluster) child(t *testing.T, i int) *exec.Cmd {
	t.Helper()
	if c.ports[i] != nil {
		_ = c.ports[i].Close()
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %s", childVariable, c.dirs[i], c.addrs[i], c.ids[1-i], c.addrs[1-i]))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// TestAKilledProcessIsAResetThenARefusedDial is the evidence that a verdict
// needs (cluster.md 7), from a real process, in both directions of dialling.
func TestAKilledProcessIsAResetThenARefusedDial(t *testing.T) {
	t.Parallel()
	for name, killed := range map[string]int{"the one that dialled": 0, "the one that accepted": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newStreamCluster(t, 2)
			n := c.start(t, 1-killed, startOptions{})
			process := c.child(t, killed)
			n.wantUp(t, c.ids[killed], 1)
			began := time.Now()
			if err := process.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			n.want(t, transport.Reset{Peer: c.ids[killed], Incarnation: 1})
			took := time.Since(began)
			t.Logf("SIGKILL to Reset: %v", took)
			if took > 2*time.Second { // below TCP_USER_TIMEOUT
				t.Errorf("the reset took %v; it is the kernel's and needs no timer", took)
			}
			_ = process.Wait()
			n.Probe(c.ids[killed], 0, c.addrs[killed], patience)
			n.want(t, transport.Dialed{Peer: c.ids[killed], Result: cluster.DialRefused})
		})
	}
}

// TestAStoppedProcessIsNoReset: a process that is stopped by SIGSTOP looks
// alive to TCP, and its stream stays.
func TestAStoppedProcessIsNoReset(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	n := c.start(t, 0, startOptions{})
	process := c.child(t, 1)
	n.wantUp(t, c.ids[1], 1)
	if err := process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { // the signal takes a moment
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process.Process.Pid))
		return err == nil && bytes.Contains(stat, []byte(") T "))
	})
	for range 3 {
		n.probe(t, c.ids[1], c.addrs[1])
		n.want(t, transport.Dialed{Peer: c.ids[1], Result: cluster.DialAccepted})
	}
	// A question waits, as it should; the stream does not end by it.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := n.Call(ctx, c.ids[1], "/x", nil); err == nil || errors.Is(err, belfry.ErrUnknown) {
		t.Errorf("question to a stopped process: %v; want the end of patience", err)
	}
	if len(n.events) != 0 {
		t.Errorf("events of a stopped process: %v", <-n.events)
	}
}

// probe starts a short one, as soon as the one before is over.
func (n *streamNode) probe(t *testing.T, peer belfry.NodeID, addr netip.AddrPort) {
	t.Helper()
	waitFor(t, func() bool {
		n.Probe(peer, 0, addr, 50*time.Millisecond)
		return len(n.events) > 0
	})
}
