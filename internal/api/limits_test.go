package api

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// TestEachLimitOfTheTableIsReached takes the rows of security.md's table that
// this package enforces: as much as the row allows is let pass, and one more is
// refused. Those of other packages are in theirs.
func TestEachLimitOfTheTableIsReached(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		most  int                             // by the table
		reach func(t *testing.T, n int) error // tries n
		is    func(err error) bool            // the refusal
	}{
		{"request message, bytes", 1 << 20, sendRequest, exhausted},
		{"response message, bytes", 4 << 20, listResponse, exhausted},
		{"data of one occurrence, bytes", 4 << 10, sendData, limited},
		{"local connections of one uid", 64, connect(reader), limited},
		{"local connections", 1024, connect(admin), limited},
		{"requests of one local connection at once", 4000, request(0), limited},
		{"requests of one local connection in the next second", 2000, request(time.Second), limited},
		{"user.* occurrences of one uid at once", 10_000, sendUser(0), limited},
		{"user.* occurrences of one uid in the next second", 1000, sendUser(time.Second), limited},
		{"join failures of one address in a second", 5, failJoin, limited},
		{"events in one request", 1024, sendMany, limited},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if err := row.reach(t, row.most); err != nil {
				t.Errorf("%d: %v; want none", row.most, err)
			}
			if err := row.reach(t, row.most+1); err == nil || !row.is(err) {
				t.Errorf("%d: %v; want a refusal", row.most+1, err)
			}
		})
	}
}

func limited(err error) bool {
	return errors.Is(asClient(err), belfry.ErrLimit) || errors.Is(err, belfry.ErrLimit)
}

func exhausted(err error) bool { return status.Code(err) == codes.ResourceExhausted }

// sendRequest sends a message of n bytes.
func sendRequest(t *testing.T, n int) error {
	req := &belfryv1.SendEventRequest{Class: "user.x", Subject: strings.Repeat("s", n-100)}
	for proto.Size(req) < n {
		req.Subject += "s"
	}
	_, err := startAgent(t, admin).raw(t).SendEvent(t.Context(), req)
	return err
}

// listResponse has the server answer with n bytes.
func listResponse(t *testing.T, n int) error {
	a := startAgent(t, admin)
	conn, err := grpc.NewClient("unix:"+a.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2*n)))
	if err != nil {
		return err
	}
	defer conn.Close()
	list := func(name int) (int, error) {
		a.events.status = event.Status{Entries: []event.EntryStatus{{Entry: 1, Class: "user.x", Subject: strings.Repeat("n", name)}}}
		resp, err := belfryv1.NewEventServiceClient(conn).ListEntries(t.Context(), &belfryv1.ListEntriesRequest{})
		return proto.Size(resp), err
	}
	const near = 1000 // the lengths in the message have as many bytes as in the longest
	size, err := list(n - near)
	if err != nil {
		return err
	}
	size, err = list(n - near + n - size)
	if err == nil && size != n {
		t.Errorf("%d bytes; want %d", size, n)
	}
	return err
}

// sendData sends an occurrence with n bytes of data.
func sendData(t *testing.T, n int) error {
	text := strings.Repeat("x", n-100)
	for {
		data, err := structpb.NewStruct(map[string]any{"a": text})
		if err != nil {
			return err
		}
		if proto.Size(data) == n {
			_, err = startAgent(t, admin).raw(t).SendEvent(t.Context(), &belfryv1.SendEventRequest{Class: "user.x", Data: data})
			return err
		}
		text += "x"
	}
}

func connect(as Subject) func(*testing.T, int) error {
	return func(_ *testing.T, n int) error {
		c := newLocalCredentials(nil, new(atomic.Uint64))
		for range n {
			if err := c.admit(as); err != nil {
				return err
			}
		}
		return nil
	}
}

// request charges requests to a new connection: all that it may make at once
// and then, a while later, n more; without a while n at once.
func request(later time.Duration) func(*testing.T, int) error {
	return func(t *testing.T, n int) error {
		c := newLocalCredentials(func(net.Conn) (Subject, error) { return reader, nil }, new(atomic.Uint64))
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
		_, info, err := c.ServerHandshake(ours)
		if err != nil {
			return err
		}
		calls := info.(localAuth).calls
		return spend(func(at time.Time) bool { return calls.take(at, 1) }, time.Now(), later, n)
	}
}

func sendUser(later time.Duration) func(*testing.T, int) error {
	return func(_ *testing.T, n int) error {
		s := senders{buckets{rate: sendRate, burst: sendBurst}}
		return spend(func(at time.Time) bool { return s.take(reader, at) }, time.Now(), later, n)
	}
}

// spend takes n at once or, with a while, all and then n after it.
func spend(take func(time.Time) bool, at time.Time, later time.Duration, n int) error {
	if later > 0 {
		for take(at) { // ends: a bucket has a bottom
		}
		at = at.Add(later)
	}
	for range n {
		if !take(at) {
			return belfry.ErrLimit
		}
	}
	return nil
}

func failJoin(_ *testing.T, n int) error {
	var f failures
	at, from := time.Now(), netip.MustParseAddr("192.0.2.1")
	for range n {
		if !f.allowed(from, at) {
			return belfry.ErrLimit
		}
		f.count(from, at)
	}
	return nil
}

func sendMany(t *testing.T, n int) error {
	stream, err := startAgent(t, admin).raw(t).SendEvents(t.Context())
	if err != nil {
		return err
	}
	req := &belfryv1.SendEventsRequest{}
	for range n {
		req.Events = append(req.Events, &belfryv1.SendEventRequest{Class: "user.x"})
	}
	if err := stream.Send(req); err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func TestHeadersOfARequestAreLimited(t *testing.T) {
	t.Parallel()
	client := belfryv1.NewNodeServiceClient(startAgent(t, admin).conn(t))
	for _, n := range []int{12 << 10, 17 << 10} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-large", strings.Repeat("x", n))
		_, err := client.GetStatus(ctx, &belfryv1.GetStatusRequest{})
		if refused := err != nil; refused != (n > 16<<10) {
			t.Errorf("%d bytes: %v; the limit is 16 KiB", n, err)
		}
	}
}
