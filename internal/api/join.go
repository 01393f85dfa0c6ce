package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// Joins lets in who has no certificate yet. It is safe for concurrent use.
// Errors wrap a sentinel; of an *belfry.Error with operation [OpAdmit] the
// caller is told the cause, of all others nothing.
type Joins interface {
	// Describe says which cluster this is.
	Describe() *belfryv1.DescribeClusterResponse
	// Join admits whoever proves, on this connection, that it has a token.
	Join(ctx context.Context, on tls.ConnectionState, req *belfryv1.JoinRequest) (*belfryv1.JoinResponse, error)
	// Renew gives a listed member that proves, on this connection, that it has
	// the listed key its next certificate.
	Renew(ctx context.Context, on tls.ConnectionState, req *belfryv1.RenewRequest) (*belfryv1.RenewResponse, error)
	// Membership tells a node that proves, on this connection, that it has its
	// key whether it is listed or was removed.
	Membership(on tls.ConnectionState, req *belfryv1.GetMembershipRequest) (*belfryv1.GetMembershipResponse, error)
}

// OpAdmit marks an error that may be told to whoever asked: it has proved that
// it has a token, and what it learns is no help to those who have none.
const OpAdmit = "admit"

const (
	// refusalTime is how long every refusal takes, so that its time tells
	// nothing.
	refusalTime = 100 * time.Millisecond
	// failureRate is how many failed attempts one address has in a second
	// (security.md, Joining). Those that succeed are not counted: many machines
	// may stand behind one address.
	failureRate = 5
	// maxFailing bounds the addresses that are remembered.
	maxFailing = 1024
)

// RegisterRemote adds what can be reached over the network: the services of
// Register, and the one for joining, which is all that a guest can reach.
func (s *Server) RegisterRemote(g *grpc.Server) {
	s.Register(g)
	belfryv1.RegisterJoinServiceServer(g, &joinService{s: s})
}

// A joinService judges nothing itself but how often it is asked.
type joinService struct {
	belfryv1.UnimplementedJoinServiceServer
	s        *Server
	failures failures
}

// DescribeCluster says which cluster this is and shows nothing else.
func (j *joinService) DescribeCluster(ctx context.Context, _ *belfryv1.DescribeClusterRequest) (*belfryv1.DescribeClusterResponse, error) {
	if _, _, err := j.guest(ctx); err != nil {
		return nil, err
	}
	return j.s.opts.Joins.Describe(), nil
}

// Join admits whoever proves that it has a token.
func (j *joinService) Join(ctx context.Context, req *belfryv1.JoinRequest) (resp *belfryv1.JoinResponse, err error) {
	err = j.changing(ctx, "Join", func(on tls.ConnectionState, record *AuditRecord) error {
		resp, err = j.s.opts.Joins.Join(ctx, on, req)
		record.Target = cmp.Or(resp.GetName(), req.GetName()) + " by token " + hex.EncodeToString(req.GetTokenId())
		record.Generation = resp.GetGeneration()
		return err
	})
	return resp, err
}

// Renew gives a listed member its next certificate.
func (j *joinService) Renew(ctx context.Context, req *belfryv1.RenewRequest) (resp *belfryv1.RenewResponse, err error) {
	err = j.changing(ctx, "Renew", func(on tls.ConnectionState, _ *AuditRecord) error {
		resp, err = j.s.opts.Joins.Renew(ctx, on, req)
		return err
	})
	return resp, err
}

// GetMembership tells a node whether it is a member still. It changes nothing,
// so that only what is refused is audited: a node that was removed could else
// fill the log.
func (j *joinService) GetMembership(ctx context.Context, req *belfryv1.GetMembershipRequest) (resp *belfryv1.GetMembershipResponse, err error) {
	_, err = j.guarded(ctx, "GetMembership", func(on tls.ConnectionState, _ *AuditRecord) error {
		resp, err = j.s.opts.Joins.Membership(on, req)
		return err
	})
	return resp, err
}

// changing is guarded, and what is done is audited.
func (j *joinService) changing(ctx context.Context, op string, do func(tls.ConnectionState, *AuditRecord) error) error {
	record, err := j.guarded(ctx, op, do)
	if err == nil {
		j.s.opts.Audit(record)
	}
	return err
}

// guarded bounds the failures of one address, makes all refusals the same, and
// audits them. The record is of what was done.
func (j *joinService) guarded(ctx context.Context, op string, do func(tls.ConnectionState, *AuditRecord) error) (record AuditRecord, err error) {
	begin := time.Now()
	from, on, err := j.guest(ctx)
	if err != nil {
		return record, err
	}
	record = AuditRecord{Subject: from.String(), Operation: op}
	if !j.failures.allowed(from, begin) {
		err = fmt.Errorf("%w: %d failures a second from one address", belfry.ErrLimit, failureRate)
	} else if err = do(on, &record); err == nil {
		return record, nil
	}
	j.failures.count(from, begin)
	id := auditID()
	record.Target, record.Denied = "audit "+id, err
	j.s.opts.Audit(record)
	j.s.log.Warn("join refused", "op", op, "source", from.String(), "audit", id, "err", err)
	select {
	case <-time.After(time.Until(begin.Add(refusalTime))):
	case <-ctx.Done():
	}
	for e := (*belfry.Error)(nil); errors.As(err, &e); err = e.Err { // the leader's answer may stand inside
		if e.Op == OpAdmit {
			return record, statusOf(e)
		}
	}
	// The cluster's state, not the caller's doing: nobody leads, or who does is busy,
	// or has not answered in time and may have admitted it. It asks again, and hears.
	if errors.Is(err, belfry.ErrUnknown) || errors.Is(err, belfry.ErrRestricted) || errors.Is(err, context.DeadlineExceeded) {
		return record, status.Error(codes.Unavailable, "the cluster can not admit now; try again (audit "+id+")")
	}
	return record, status.Error(codes.PermissionDenied, "join refused; the reason is in the log of the node that was asked (audit "+id+")")
}

func auditID() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// guest is a caller that came in under the server name for joining; all others
// have other services.
func (j *joinService) guest(ctx context.Context) (netip.Addr, tls.ConnectionState, error) {
	from, ok := peer.FromContext(ctx)
	if ok {
		auth, isTLS := from.AuthInfo.(credentials.TLSInfo)
		if isTLS && j.s.opts.Guest != nil && j.s.opts.Guest(auth.State) {
			addr, err := netip.ParseAddrPort(from.Addr.String())
			return addr.Addr().Unmap(), auth.State, err
		}
	}
	return netip.Addr{}, tls.ConnectionState{}, status.Error(codes.PermissionDenied, "this service is for those who join")
}

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
