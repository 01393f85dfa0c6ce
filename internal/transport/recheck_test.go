package transport_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// answered calls a service that the node has and that implements nothing.
func answered(t *testing.T, cc *grpc.ClientConn) codes.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := belfryv1.NewNodeServiceClient(cc).ListNodes(ctx, &belfryv1.ListNodesRequest{})
	return status.Code(err)
}

// dialClient is a connection of a client, and its key.
func (c *streamCluster) dialClient(t *testing.T) (*grpc.ClientConn, ed25519.PublicKey) {
	t.Helper()
	config := c.client(t)
	cc, err := grpc.NewClient("passthrough:///"+c.addrs[0].String(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc, publicOf(config)
}

func publicOf(config *tls.Config) ed25519.PublicKey {
	return config.Certificates[0].Leaf.PublicKey.(ed25519.PublicKey)
}

// TestAClientThatIsLetInNoMoreLosesItsConnection, and nobody else does: a
// client of the same name with another key, and the nodes.
func TestAClientThatIsLetInNoMoreLosesItsConnection(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	var removed atomic.Pointer[ed25519.PublicKey]
	c.letIn = func(key ed25519.PublicKey) error {
		if gone := removed.Load(); gone != nil && gone.Equal(key) {
			return belfry.ErrPermission
		}
		return nil
	}
	c.services = func(g *grpc.Server) {
		belfryv1.RegisterNodeServiceServer(g, belfryv1.UnimplementedNodeServiceServer{})
	}
	low, high := c.start(t, 0, startOptions{}), c.start(t, 1, startOptions{})
	low.wantUp(t, c.ids[1], 1)
	high.wantUp(t, c.ids[0], 1)
	gone, key := c.dialClient(t)
	stays, _ := c.dialClient(t)
	for _, cc := range []*grpc.ClientConn{gone, stays} {
		if got := answered(t, cc); got != codes.Unimplemented {
			t.Fatalf("before: %v; want the service's own answer", got)
		}
	}

	removed.Store(&key)
	begin := time.Now()
	low.Recheck()
	low.Recheck() // one after the other change nothing
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if !gone.WaitForStateChange(ctx, connectivity.Ready) {
		t.Fatal("the connection stays open")
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it was closed after %v; within 2 s", took)
	}
	if got := answered(t, gone); got != codes.Unavailable {
		t.Errorf("when it dials again: %v; want it refused", got)
	}
	if got := answered(t, stays); got != codes.Unimplemented || stays.GetState() != connectivity.Ready {
		t.Errorf("the other client: %v, %v", got, stays.GetState())
	}
	if !low.Connected(c.ids[1]) || len(low.events)+len(high.events) != 0 {
		t.Error("the nodes' stream suffered")
	}
}

// TestAClientRemovedDuringItsHandshakeIsRefused: the check of the handshake was
// before the removal, and Recheck before the connection was known.
func TestAClientRemovedDuringItsHandshakeIsRefused(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 1)
	var asked atomic.Uint32
	c.letIn = func(ed25519.PublicKey) error {
		if asked.Add(1) == 1 {
			return nil
		}
		return belfry.ErrPermission
	}
	c.services = func(g *grpc.Server) {
		belfryv1.RegisterNodeServiceServer(g, belfryv1.UnimplementedNodeServiceServer{})
	}
	c.start(t, 0, startOptions{})
	cc, _ := c.dialClient(t)
	if got := answered(t, cc); got != codes.Unavailable || asked.Load() < 2 {
		t.Errorf("%v after %d checks; want it refused by the second", got, asked.Load())
	}
}
