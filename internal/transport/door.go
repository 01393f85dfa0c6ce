package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A Door is a connection to a member's stream port by somebody who has no
// certificate yet, or none that counts. For one goroutine.
type Door struct {
	conn   *grpc.ClientConn
	client belfryv1.JoinServiceClient
	state  tls.ConnectionState
	doubt  atomic.Pointer[error] // why the other side was not believed; the library only says that there is no connection
}

// OpenDoor connects to HOST:PORT, if from is valid with that source address,
// and returns when the other side has proved itself as cfg wants it: then it
// can be asked. It wraps ErrNoAgent if nobody could be reached. The errors of
// Door's methods wrap ErrUnknown or ErrRestricted where asking again may help,
// what cfg's verification says, or what the member tells.
func OpenDoor(ctx context.Context, address string, from netip.Addr, cfg *tls.Config) (*Door, error) {
	d := &Door{}
	cfg = cfg.Clone()
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		err := verify(state) // in a goroutine of the library's, which may outlive the call
		d.doubt.Store(&err)
		return err
	}
	dialer := &net.Dialer{}
	if from.IsValid() && !from.IsUnspecified() {
		dialer.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	var err error
	var unreached atomic.Pointer[error] // by the last dial: the library dials in goroutines of its own
	d.conn, err = grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "tcp", addr)
			unreached.Store(&err)
			return conn, err
		}))
	if err != nil {
		return nil, fmt.Errorf("%w: address %q: %w", belfry.ErrUsage, address, err)
	}
	d.client = belfryv1.NewJoinServiceClient(d.conn)
	var at peer.Peer
	_, err = d.client.DescribeCluster(ctx, &belfryv1.DescribeClusterRequest{}, grpc.Peer(&at))
	auth, ok := at.AuthInfo.(credentials.TLSInfo)
	if err == nil && !ok {
		err = fmt.Errorf("%w: no TLS", belfry.ErrPermission)
	}
	if err != nil {
		if why := unreached.Load(); why != nil && *why != nil && status.Code(err) == codes.Unavailable {
			err = fmt.Errorf("%w: %w", belfry.ErrNoAgent, withoutDialled(*why))
		} else {
			err = d.explain(err)
		}
		return nil, errors.Join(err, d.Close())
	}
	d.state = auth.State
	return d, nil
}

// State is that of the connection, for proofs that are bound to it.
func (d *Door) State() tls.ConnectionState { return d.state }

// Close ends the connection.
func (d *Door) Close() error { return d.conn.Close() }

// Join uses up a token.
func (d *Door) Join(ctx context.Context, req *belfryv1.JoinRequest) (*belfryv1.JoinResponse, error) {
	resp, err := d.client.Join(ctx, req)
	return resp, d.explain(err)
}

// Renew asks for a listed member's next certificate.
func (d *Door) Renew(ctx context.Context, req *belfryv1.RenewRequest) (*belfryv1.RenewResponse, error) {
	resp, err := d.client.Renew(ctx, req)
	return resp, d.explain(err)
}

// Membership asks whether a node is a member still.
func (d *Door) Membership(ctx context.Context, req *belfryv1.GetMembershipRequest) (*belfryv1.GetMembershipResponse, error) {
	resp, err := d.client.GetMembership(ctx, req)
	return resp, d.explain(err)
}

// explain gives an error its sentinel back.
func (d *Door) explain(err error) error {
	if err == nil {
		return nil
	}
	if doubt := d.doubt.Load(); doubt != nil && *doubt != nil {
		return *doubt
	}
	s := status.Convert(err)
	if s.Code() == codes.DeadlineExceeded || s.Code() == codes.Canceled {
		return context.DeadlineExceeded
	}
	sentinel, ok := doorSentinels[s.Code()]
	if !ok {
		sentinel = belfry.ErrUnsupported
	}
	text := s.Message()
	if rest, ok := strings.CutPrefix(text, belfry.ErrRestricted.Error()+": "); ok && s.Code() == codes.Unavailable {
		sentinel, text = belfry.ErrRestricted, rest
	}
	return fmt.Errorf("%w: %s", sentinel, strings.TrimPrefix(text, sentinel.Error()+": "))
}

// withoutDialled leaves out what was dialled, which the caller names.
func withoutDialled(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// doorSentinels are what the codes of answers mean here.
var doorSentinels = map[codes.Code]error{
	codes.InvalidArgument:   belfry.ErrUsage,
	codes.AlreadyExists:     belfry.ErrExist,
	codes.PermissionDenied:  belfry.ErrPermission,
	codes.ResourceExhausted: belfry.ErrLimit,
	codes.Unavailable:       belfry.ErrUnknown,
	codes.Unknown:           belfry.ErrUnknown,
}
