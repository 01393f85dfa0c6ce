package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/security"
)

// refusalTime is how long every refusal takes, so that its time tells nothing.
const refusalTime = 100 * time.Millisecond

// A joinService is what somebody without a certificate can reach. It judges
// nothing itself but how often it is asked; the leader does the rest.
type joinService struct {
	belfryv1.UnimplementedJoinServiceServer
	a *Agent
}

// DescribeCluster says which cluster this is and shows nothing else.
func (j *joinService) DescribeCluster(ctx context.Context, _ *belfryv1.DescribeClusterRequest) (*belfryv1.DescribeClusterResponse, error) {
	if _, err := guest(ctx); err != nil {
		return nil, err
	}
	t := j.a.members.Table()
	return &belfryv1.DescribeClusterResponse{ClusterId: t.Cluster.String(), Generation: t.Generation, Epoch: t.Epoch}, nil
}

// Join has the leader admit whoever proves that it has a token.
func (j *joinService) Join(ctx context.Context, req *belfryv1.JoinRequest) (*belfryv1.JoinResponse, error) {
	resp := new(belfryv1.JoinResponse)
	err := j.guarded(ctx, "Join", func(ctx context.Context) error {
		if _, err := identityOf(ctx, req.GetCsr(), req.GetProof()); err != nil {
			return err
		}
		here := func(ctx context.Context) (err error) {
			resp, err = j.a.admit(ctx, req)
			return err
		}
		return j.a.Lead(ctx, belfryv1.JoinService_Join_FullMethodName, req, here, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// Renew gives a listed member, who proves that it has the listed key, its next
// certificate.
func (j *joinService) Renew(ctx context.Context, req *belfryv1.RenewRequest) (*belfryv1.RenewResponse, error) {
	resp := new(belfryv1.RenewResponse)
	err := j.guarded(ctx, "Renew", func(ctx context.Context) error {
		public, err := identityOf(ctx, req.GetCsr(), req.GetProof())
		if err != nil {
			return err
		}
		table := j.a.members.Table()
		n, ok := table.holder(public)
		if !ok {
			return fmt.Errorf("%w: no member has this key", belfry.ErrNotMember)
		}
		issued, err := j.a.issue(ctx, &belfryv1.IssueCertificateRequest{NodeId: n.ID[:], Csr: req.GetCsr()})
		resp.Certificate, resp.Ca = issued.GetCertificate(), table.authorities()
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// guarded bounds the failures of one address, and makes all refusals the same.
func (j *joinService) guarded(ctx context.Context, op string, do func(context.Context) error) error {
	begin := time.Now()
	from, err := guest(ctx)
	if err != nil {
		return err
	}
	if !j.a.failures.allowed(from, begin) {
		err = fmt.Errorf("%w: %d failures a second from one address", belfry.ErrLimit, failureRate)
	} else if err = do(ctx); err == nil {
		return nil
	}
	j.a.failures.count(from, begin)
	id := auditID()
	j.a.log.Warn("join refused", "op", op, "source", from.String(), "audit", id, "err", err)
	select {
	case <-time.After(time.Until(begin.Add(refusalTime))):
	case <-ctx.Done():
	}
	var told *belfry.Error
	switch {
	case errors.As(err, &told) && told.Op == opAdmit:
		return status.Error(toldAs(told.Err), told.Err.Error())
	case errors.Is(err, belfry.ErrUnknown): // the cluster's state, not the caller's doing
		return status.Error(codes.Unavailable, "the cluster can not admit now; try again (audit "+id+")")
	}
	return status.Error(codes.PermissionDenied, "join refused; the reason is in the log of the node that was asked (audit "+id+")")
}

// joinCodes carry the sentinels of what may be told.
var joinCodes = map[codes.Code]error{
	codes.InvalidArgument:    belfry.ErrUsage,
	codes.AlreadyExists:      belfry.ErrExist,
	codes.FailedPrecondition: belfry.ErrRestricted,
	codes.ResourceExhausted:  belfry.ErrLimit,
	codes.Unavailable:        belfry.ErrUnknown,
	codes.PermissionDenied:   belfry.ErrPermission,
}

func toldAs(err error) codes.Code {
	for code, sentinel := range joinCodes { // no error wraps two
		if errors.Is(err, sentinel) {
			return code
		}
	}
	return codes.Internal
}

// identityOf is the key of a request whose holder is at the other end of the
// connection.
func identityOf(ctx context.Context, csr, proof []byte) (ed25519.PublicKey, error) {
	public, err := security.CheckRequest(csr)
	if err != nil {
		return nil, err
	}
	from, _ := peer.FromContext(ctx)
	auth, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, fmt.Errorf("%w: no TLS", belfry.ErrPermission)
	}
	return public, security.CheckProof(auth.State, public, proof)
}

func auditID() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// guest is the address of a caller that came in under the server name for
// joining; all others have other services.
func guest(ctx context.Context) (netip.Addr, error) {
	from, ok := peer.FromContext(ctx)
	if ok {
		if auth, isTLS := from.AuthInfo.(credentials.TLSInfo); isTLS && security.IsJoin(auth.State) {
			addr, err := netip.ParseAddrPort(from.Addr.String())
			return addr.Addr().Unmap(), err
		}
	}
	return netip.Addr{}, status.Error(codes.PermissionDenied, "this service is for those who join")
}

// holder finds the member with a key.
func (t *Table) holder(public ed25519.PublicKey) (Node, bool) {
	for _, n := range t.Nodes {
		if n.Key.equal(PublicKey(public)) {
			return n, true
		}
	}
	return Node{}, false
}

const (
	// failureRate is how many failed attempts one address has in a second
	// (security.md, Joining). Those that succeed are not counted: many machines
	// may stand behind one address.
	failureRate = 5
	// maxFailing bounds the addresses that are remembered.
	maxFailing = 1024
	// tokenFailures is how many use a token up.
	tokenFailures = 10
)

// failures counts failed attempts. Safe for concurrent use.
type failures struct {
	mu    sync.Mutex
	since time.Time // begin of the second that is counted
	by    map[netip.Addr]int
}

// allowed tells whether an address may try.
func (f *failures) allowed(from netip.Addr, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn(now)
	return f.by[from] < failureRate && (len(f.by) < maxFailing || f.by[from] > 0)
}

func (f *failures) count(from netip.Addr, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn(now)
	f.by[from]++
}

func (f *failures) turn(now time.Time) {
	if f.by == nil || now.Sub(f.since) >= time.Second {
		f.since, f.by = now, map[netip.Addr]int{}
	}
}
