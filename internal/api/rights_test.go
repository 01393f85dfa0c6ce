package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// TestEveryMethodHasItsPlace reads the methods from the messages' descriptors,
// so that a new one, of whichever service, fails until it is placed: in the
// table of rights, or among those that other means guard.
func TestEveryMethodHasItsPlace(t *testing.T) {
	t.Parallel()
	const want = `
                                  none reader witness operator admin
ConfigService.ApplyConfig         -    -      -       yes      yes
ConfigService.ConfirmConfig       -    -      -       yes      yes
ConfigService.DiffConfig          -    -      -       yes      yes
ConfigService.GetConfig           -    -      -       yes      yes
ConfigService.ListGenerations     -    -      -       yes      yes
ConfigService.MoveRepository      -    -      -       -        yes
ConfigService.PlanConfig          -    -      -       yes      yes
ConfigService.RollbackConfig      -    -      -       yes      yes
ConfigService.SetConfig           -    -      -       yes      yes
EventService.ListClasses          -    yes    yes     yes      yes
EventService.ListEntries          -    yes    -       yes      yes
EventService.ListEvents           -    yes    yes     yes      yes
EventService.SendEvent            -    -      -       yes      yes
EventService.SendEvents           -    -      -       yes      yes
EventService.Subscribe            -    yes    yes     yes      yes
EventService.Watch                -    yes    yes     yes      yes
HandlerService.ListHandlers       -    yes    -       yes      yes
HandlerService.ListRuns           -    -      -       yes      yes
HandlerService.ReplayEvents       -    -      -       yes      yes
HandlerService.RetryRun           -    -      -       yes      yes
HandlerService.TestHandler        -    -      -       yes      yes
JoinService.DescribeCluster       whoever joins
JoinService.GetMembership         whoever joins
JoinService.Join                  whoever joins
JoinService.Renew                 whoever joins
LicenseService.AddIssuer          -    -      -       -        yes
LicenseService.GetLicense         -    yes    -       yes      yes
LicenseService.ListIssuers        -    -      -       -        yes
LicenseService.ListLicenses       -    yes    -       yes      yes
LicenseService.RemoveIssuer       -    -      -       -        yes
LicenseService.RemoveLicense      -    -      -       -        yes
LicenseService.RevokeLicenses     -    -      -       -        yes
LicenseService.UnlockLicense      -    -      -       -        yes
LicenseService.WatchLicense       -    yes    -       yes      yes
LinkService.GetLinkMatrix         -    yes    -       yes      yes
LinkService.ListLinks             -    yes    -       yes      yes
LinkService.WatchLinks            -    yes    -       yes      yes
MemberPeerService.Follow          members
MemberPeerService.GetMember       members
MemberPeerService.GetProgress     members
MemberPeerService.GetRepository   members
MemberPeerService.GetSecret       members
MemberPeerService.IssueCertificate members
MemberPeerService.TakeOver        members
MemberPeerService.TakeSecret      members
MemberPeerService.TakeTable       members
MemberService.CreateToken         -    -      -       -        yes
MemberService.ListClients         -    -      -       -        yes
MemberService.ListGrants          -    -      -       -        yes
MemberService.ListTokens          -    -      -       -        yes
MemberService.RemoveClient        -    -      -       -        yes
MemberService.RemoveNode          -    -      -       -        yes
MemberService.RevokeToken         -    -      -       -        yes
MemberService.RotateCA            -    -      -       -        yes
MemberService.SetGrant            -    -      -       -        yes
NodeService.GetNode               -    yes    -       yes      yes
NodeService.GetStatus             -    yes    -       yes      yes
NodeService.ListNodes             -    yes    -       yes      yes
NodeService.StartNode             -    -      -       yes      yes
NodeService.StopNode              -    -      -       yes      yes
PeerService.Connect               members
WitnessService.DeclareResource    -    -      -       yes      yes
WitnessService.DrainNode          -    -      -       yes      yes
WitnessService.EndRegistrations   -    -      -       yes      yes
WitnessService.GetNodeInformation -    -      yes     yes      yes
WitnessService.ListDeclared       -    yes    -       yes      yes
WitnessService.ListWitness        -    yes    -       yes      yes
WitnessService.MoveClients        -    -      -       yes      yes
WitnessService.RegisterClient     -    -      yes     yes      yes
WitnessService.SetResource        -    -      -       yes      yes
WitnessService.SetZone            -    -      -       yes      yes
WitnessService.UnregisterClient   -    -      yes     yes      yes
WitnessService.WaitChanges        -    -      yes     yes      yes
WitnessService.WatchChanges       -    -      yes     yes      yes
WitnessService.WithdrawResource   -    -      -       yes      yes
`
	elsewhere := map[string]string{"JoinService": "whoever joins", "PeerService": "members", "MemberPeerService": "members"} // by handshake: security.md, Streams
	s := New(Options{Decide: byRole})
	var rows []string
	protoregistry.GlobalFiles.RangeFilesByPackage("belfry.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				row := fmt.Sprintf("%-33s", service.Name()+"."+method.Name())
				full := fmt.Sprintf("/%s/%s", service.FullName(), method.Name())
				if who := elsewhere[string(service.Name())]; who != "" && !ours(full) {
					rows = append(rows, row+" "+who+"\n")
					continue
				}
				for role := belfry.RoleNone; role <= belfry.RoleAdmin; role++ {
					cell := "-"
					if s.judge(Subject{UID: 1000, Role: role}, full, "") == nil {
						cell = "yes"
					}
					row += fmt.Sprintf(" %-*s", len(role.String()), cell)
				}
				if !ours(full) {
					t.Errorf("%s is not judged", full)
				}
				rows = append(rows, strings.TrimRight(row, " ")+"\n")
			}
		}
		return true
	})
	slices.Sort(rows)
	got := "\n" + strings.Repeat(" ", 33) + " none reader witness operator admin\n" + strings.Join(rows, "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWhatIsRefusedIsNotDone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		subject Subject
		do      func(context.Context, *client.Client) error
		want    string // empty: allowed
	}{
		{operator, send, ""},
		{reader, send, "SendEvent: permission denied: uid 1000 is reader here; it takes operator"},
		{nobody, send, "SendEvent: permission denied: uid 65534 has no role at this agent; ask its administrator for one"},
		{Subject{Client: "ci", Role: belfry.RoleReader}, send, "SendEvent: permission denied: client ci is reader here; it takes operator"},
		{reader, register("node.state"), ""},
		{reader, register("process.exit"), "register: process.exit:x: permission denied: uid 1000 is reader here; to observe process.exit takes operator, or a grant, unless it is its own, and that can not be told"},
		{reader, register("*"), "register: *:x: permission denied: uid 1000 is reader here; to observe * takes operator, or a grant"},
		{nobody, register("node.state"), "Subscribe: permission denied: uid 65534 has no role at this agent; ask its administrator for one"},
		{nobody, func(ctx context.Context, c *client.Client) error { _, err := c.Status(ctx); return err }, "GetStatus: permission denied: uid 65534 has no role at this agent; ask its administrator for one"},
	}
	for _, tt := range tests {
		a := startAgent(t, tt.subject)
		err := tt.do(t.Context(), a.dial(t))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v; want it allowed", tt.subject, err)
		case tt.want != "" && (!errors.Is(err, belfry.ErrPermission) || err.Error() != tt.want):
			t.Errorf("%s: %v\nwant %s", tt.subject, err, tt.want)
		}
		if tt.want != "" {
			if len(a.events.sent) > 0 || len(a.events.consumers) > 0 && len(a.events.consumers[0].numbers) > 0 {
				t.Errorf("%s: refused and done all the same", tt.subject)
			}
			if got := a.Counters().Denied; got != 1 {
				t.Errorf("%s: %d denials counted; want 1", tt.subject, got)
			}
		}
	}
}

func send(ctx context.Context, c *client.Client) error {
	_, err := c.Send(ctx, "user.x", "", nil, 0)
	return err
}

func register(class string) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		s, err := c.Register(ctx, belfry.Registration{Class: class, Subject: "x"})
		if err == nil {
			s.Close()
		}
		return err
	}
}

func TestAServiceOfOthersPassesUntouched(t *testing.T) {
	t.Parallel()
	s := New(Options{Decide: byRole})
	for _, method := range []string{belfryv1.PeerService_Connect_FullMethodName, "/grpc.health.v1.Health/Check"} {
		got, err := s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return "done", nil })
		if got != "done" || err != nil {
			t.Errorf("%s: %v, %v; want it passed on", method, got, err)
		}
	}
	_, err := s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: belfryv1.NodeService_GetStatus_FullMethodName}, nil)
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a call from nowhere: %v; want permission denied", err)
	}
}

func TestARequestRateHoldsForEachConnection(t *testing.T) {
	t.Parallel()
	s := New(Options{Decide: byRole})
	call := func(calls *bucket) error {
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: localAuth{subject: admin, calls: calls}})
		_, err := s.admit(ctx, belfryv1.NodeService_GetStatus_FullMethodName, nil)
		return err
	}
	slow := newBucket(0, 2, now)
	for i, want := range []error{nil, nil, belfry.ErrLimit} {
		if got := asClient(call(slow)); got != want { //nolint:errorlint // the sentinel itself
			t.Errorf("call %d: %v; want %v", i, got, want)
		}
	}
	if err := call(newBucket(0, 2, now)); err != nil {
		t.Errorf("a second connection suffers from the first: %v", err)
	}
	if got := s.Counters().Limited; got != 1 {
		t.Errorf("%d counted; want 1", got)
	}
	b := newBucket(2, 4, now)
	for i, want := range []bool{true, true, true, true, false} {
		if got := b.take(now, 1); got != want {
			t.Errorf("take %d: %t; want %t", i, got, want)
		}
	}
	if !b.take(now.Add(time.Second), 2) || b.take(now.Add(time.Second), 1) {
		t.Error("after a second there are not exactly two more")
	}
}

// TestARequestRateHoldsForEachRemoteClient, over all its connections: nothing
// else bounds how many it opens.
func TestARequestRateHoldsForEachRemoteClient(t *testing.T) {
	t.Parallel()
	s := New(Options{Decide: byRole, IdentifyTLS: func(state tls.ConnectionState) (Subject, error) {
		return Subject{Client: state.ServerName, Role: belfry.RoleReader}, nil
	}})
	call := func(client string) error {
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{ServerName: client}}})
		_, err := s.admit(ctx, belfryv1.NodeService_GetStatus_FullMethodName, nil)
		return err
	}
	if err := call("one"); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour) // nothing comes back before
	calls := s.callers.of(Subject{Client: "one"}, later)
	for calls.take(later, 1) { //nolint:revive // until it is empty
	}
	if err := asClient(call("one")); err != belfry.ErrLimit { //nolint:errorlint // the sentinel itself
		t.Errorf("after the burst: %v; want ErrLimit", err)
	}
	if err := call("two"); err != nil {
		t.Errorf("a second client suffers from the first: %v", err)
	}
	if got := s.Counters().Limited; got != 1 {
		t.Errorf("%d counted; want 1", got)
	}
}

func TestUsersSendAtALimitedRate(t *testing.T) {
	t.Parallel()
	s := senders{buckets{rate: sendRate, burst: sendBurst}}
	for i := range sendBurst {
		if !s.take(reader, now) {
			t.Fatalf("refused after %d; want %d", i, sendBurst)
		}
	}
	if s.take(reader, now) {
		t.Error("one more than the burst was let pass")
	}
	if !s.take(operator, now) || !s.take(reader, now.Add(time.Millisecond)) {
		t.Error("another uid, or a later time, was refused")
	}
	for range 3 * sendBurst {
		if !s.take(admin, now) {
			t.Fatal("root was refused")
		}
	}
}

func TestConnectionsOfOneUserAreLimited(t *testing.T) {
	t.Parallel()
	c := newLocalCredentials(nil, new(atomic.Uint64))
	for i := range maxConnectionsPerUID {
		if err := c.admit(reader); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if err := c.admit(reader); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("one more: %v; want ErrLimit", err)
	}
	if err := c.admit(operator); err != nil {
		t.Errorf("another user: %v", err)
	}
	c.release(reader)
	if err := c.admit(reader); err != nil {
		t.Errorf("after one was closed: %v", err)
	}
	for c.open < maxConnections {
		if err := c.admit(admin); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.admit(admin); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("more than all: %v; want ErrLimit", err)
	}
}

func TestAStrangerIsNotLetIn(t *testing.T) {
	t.Parallel()
	a := startAgent(t, Subject{Client: "stranger"})
	if _, err := client.Dial(t.Context(), a.socket); err == nil {
		t.Error("dial succeeded; want a refusal")
	}
	if got := a.Counters().Denied; got == 0 {
		t.Error("the refusal was not counted")
	}
}

func TestWhatCanNotBeReadIsCountedAndDropped(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	large := strings.Repeat("x", maxRequest+1)
	if _, err := a.raw(t).SendEvent(t.Context(), &belfryv1.SendEventRequest{Class: "user." + large}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request that is too large: %v; want resource exhausted", err)
	}
	stream, err := a.raw(t).SendEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&belfryv1.SendEventsRequest{Events: []*belfryv1.SendEventRequest{{Class: "user." + large}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message that is too large: %v; want resource exhausted", err)
	}
	// The client has its answer before the server has counted.
	for deadline := time.Now().Add(10 * time.Second); a.Counters().Malformed < 2 && time.Now().Before(deadline); {
		if _, err := a.dial(t).Status(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.Counters().Malformed; got != 2 || len(a.events.sent) > 0 {
		t.Errorf("%d counted, %d sent; want 2 and nothing", got, len(a.events.sent))
	}
}
