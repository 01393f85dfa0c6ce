package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// fakeJoins knows the nodes a, which is listed, and b, which was removed.
type fakeJoins struct {
	asked int
	err   error // of Join; nil: there is no such token
}

func (*fakeJoins) Describe() *belfryv1.DescribeClusterResponse { return nil }

func (f *fakeJoins) Join(context.Context, tls.ConnectionState, *belfryv1.JoinRequest) (*belfryv1.JoinResponse, error) {
	f.asked++
	if f.err != nil {
		return nil, f.err
	}
	return nil, fmt.Errorf("%w: no token", belfry.ErrPermission)
}

func (*fakeJoins) Renew(context.Context, tls.ConnectionState, *belfryv1.RenewRequest) (*belfryv1.RenewResponse, error) {
	return &belfryv1.RenewResponse{}, nil
}

func (f *fakeJoins) Membership(_ tls.ConnectionState, req *belfryv1.GetMembershipRequest) (*belfryv1.GetMembershipResponse, error) {
	f.asked++
	if id := req.GetNodeId(); id != "a" && id != "b" {
		return nil, fmt.Errorf("%w: node %s is not listed and was not removed", belfry.ErrNotMember, id)
	}
	return &belfryv1.GetMembershipResponse{Removed: req.GetNodeId() == "b", Generation: 7}, nil
}

// TestWhoAsksForItsMembershipLearnsNoMore: a stranger is answered as by Join,
// counts against the same limit, and only refusals are audited.
func TestWhoAsksForItsMembershipLearnsNoMore(t *testing.T) {
	t.Parallel()
	var audited []string
	joins := &fakeJoins{}
	j := &joinService{s: New(Options{
		Joins: joins,
		Guest: func(state tls.ConnectionState) bool { return state.ServerName == "guest" },
		Audit: func(r AuditRecord) {
			audited = append(audited, fmt.Sprintf("%s denied=%t", r.Operation, r.Denied != nil))
		},
	})}
	from := func(name string) context.Context {
		return peer.NewContext(t.Context(), &peer.Peer{
			Addr:     &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5},
			AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{ServerName: name}},
		})
	}
	ask := func(ctx context.Context, id string) (*belfryv1.GetMembershipResponse, error) {
		return j.GetMembership(ctx, &belfryv1.GetMembershipRequest{NodeId: id})
	}
	if _, err := ask(from("else"), "a"); status.Code(err) != codes.PermissionDenied || joins.asked != 0 {
		t.Errorf("who has a certificate: %v, asked %d times; want permission denied, not asked", err, joins.asked)
	}
	for id, removed := range map[string]bool{"a": false, "b": true} {
		if answer, err := ask(from("guest"), id); err != nil || answer.GetRemoved() != removed || answer.GetGeneration() != 7 {
			t.Errorf("%s: %v, %v; want removed %t with generation 7", id, answer, err, removed)
		}
	}
	plain := func(err error) string { // without the audit id
		text, _, _ := strings.Cut(status.Convert(err).Message(), " (audit")
		return text
	}
	_, refused := ask(from("guest"), "c")
	_, join := j.Join(from("guest"), &belfryv1.JoinRequest{})
	if status.Code(refused) != codes.PermissionDenied || plain(refused) != plain(join) || !strings.HasPrefix(plain(join), "join refused") {
		t.Errorf("a stranger: %v; want the same as of Join: %v", refused, join)
	}
	if diff := cmp.Diff([]string{"GetMembership denied=true", "Join denied=true"}, audited); diff != "" {
		t.Errorf("audited (-want +got):\n%s", diff)
	}
	if _, err := j.Renew(from("guest"), &belfryv1.RenewRequest{}); err != nil || audited[len(audited)-1] != "Renew denied=false" {
		t.Errorf("%v, the last that is audited is %q; want what changes something", err, audited[len(audited)-1])
	}
}

// TestWhoJoinsAsksAgainWhereTheClusterIsNotReady which is not its own doing.
func TestWhoJoinsAsksAgainWhereTheClusterIsNotReady(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want codes.Code
	}{
		{fmt.Errorf("%w: nobody leads", belfry.ErrUnknown), codes.Unavailable},
		{&belfry.Error{Op: "peer.call", Err: context.DeadlineExceeded}, codes.Unavailable},
		{fmt.Errorf("%w: no token", belfry.ErrPermission), codes.PermissionDenied},
	} {
		j := &joinService{s: New(Options{Joins: &fakeJoins{err: tt.err}, Guest: func(tls.ConnectionState) bool { return true }, Audit: func(AuditRecord) {}})}
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5}, AuthInfo: credentials.TLSInfo{}})
		if _, err := j.Join(ctx, &belfryv1.JoinRequest{}); status.Code(err) != tt.want {
			t.Errorf("%v: %v; want %s", tt.err, err, tt.want)
		}
	}
}

// TestStrangersThatAskForAMembershipAreBounded by what Join allows them.
func TestStrangersThatAskForAMembershipAreBounded(t *testing.T) {
	t.Parallel()
	joins := &fakeJoins{}
	var limited int
	j := &joinService{s: New(Options{
		Joins: joins,
		Guest: func(tls.ConnectionState) bool { return true },
		Audit: func(r AuditRecord) {
			if errors.Is(r.Denied, belfry.ErrLimit) {
				limited++
			}
		},
	})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()                                   // nobody waits for the answers
	j.failures.turn(time.Now().Add(time.Hour)) // the second that is counted does not end
	ctx = peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5}, AuthInfo: credentials.TLSInfo{}})
	for joins.asked < failureRate {
		if _, err := j.GetMembership(ctx, &belfryv1.GetMembershipRequest{NodeId: "c"}); err == nil {
			t.Fatal("a stranger is answered")
		}
	}
	before := joins.asked
	for range 3 {
		_, _ = j.GetMembership(ctx, &belfryv1.GetMembershipRequest{NodeId: "a"}) // refused: the rate counts before the key
	}
	if joins.asked != before || limited != 3 {
		t.Errorf("asked %d times, limited %d times; want %d and 3", joins.asked, limited, before)
	}
}
