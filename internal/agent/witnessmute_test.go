package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/witness"
)

const (
	muteStreams = 16   // over gRPC
	mutePages   = 4    // with server-sent events
	muteChanges = 3000 // more than the buffers of a stream hold
	muteWindow  = 64 << 10
)

// What is unread of a client that has registered and does not read. It reads it all, until the
// changes that it was told of add up to want; messages is how many told of them.
type unread func(t *testing.T, want uint64) (messages int)

// muteStream is one over gRPC and mutual TLS, with a connection of its own.
func muteStream(t *testing.T, n LocalNode, dir string) unread {
	t.Helper()
	identity, err := ClientTLS(dir)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+n.Streams.String(),
		grpc.WithTransportCredentials(credentials.NewTLS(identity)),
		grpc.WithStaticStreamWindowSize(muteWindow), grpc.WithStaticConnWindowSize(muteWindow))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := belfryv1.NewWitnessServiceClient(conn).WatchChanges(t.Context(), &belfryv1.WatchChangesRequest{
		Register: &belfryv1.ClientRegistration{Client: "mute", Resources: []string{"node/b"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || first.GetRegistered() == nil {
		t.Fatalf("first %v, %v; want registered", first, err)
	}
	return func(t *testing.T, want uint64) (messages int) {
		t.Helper()
		for sum := uint64(0); sum < want; {
			m, err := stream.Recv()
			if err != nil {
				t.Fatalf("told of %d changes, then %v; want %d", sum, err, want)
			}
			for _, c := range m.GetChanges() {
				if sum += c.GetCount(); c.GetSeq() != sum {
					t.Fatalf("number %d after %d changes in all", c.GetSeq(), sum)
				}
				messages++
			}
		}
		return messages
	}
}

// muteEvents is one with server-sent events, and as little room in its socket as the
// kernel allows.
func muteEvents(t *testing.T, n LocalNode) unread {
	t.Helper()
	token, err := WebToken(n.State)
	if err != nil {
		t.Fatal(err)
	}
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		outer := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) })
		if outer != nil {
			return outer
		}
		return err
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", n.Web.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprintf(conn, "GET /v1/witness/stream?resource=node/b&client=mute HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", token)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", response, err)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	next := func(event string) string {
		for found := false; lines.Scan(); {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && found {
				return data
			}
			found = lines.Text() == "event: "+event
		}
		return ""
	}
	if next("registered") == "" {
		t.Fatalf("not registered: %v", lines.Err())
	}
	return func(t *testing.T, want uint64) (messages int) {
		t.Helper()
		for sum := uint64(0); sum < want; messages++ {
			var c struct {
				Seq   uint64 `json:"seq,string"`
				Count uint64 `json:"count,string"`
			}
			data := next("change")
			if err := json.Unmarshal([]byte(data), &c); err != nil {
				t.Fatalf("told of %d changes, then %q, %v (%v); want %d", sum, data, err, lines.Err(), want)
			}
			if sum += c.Count; c.Seq != sum {
				t.Fatalf("number %d after %d changes in all", c.Seq, sum)
			}
		}
		return messages
	}
}

// heapNow is what is in use.
func heapNow() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Clients that register and never read delay nobody and cost no more than the buffers
// of their streams; when they read again all that they have missed is counted.
func TestClientsThatNeverReadDelayNobody(t *testing.T) {
	nodes := localNodes(t, 2)
	a := startAgent(t, nodes[0])
	state := belfry.ResourceAvailable
	set := func() {
		a.witness.tell(witness.Override{Resource: "node/b", State: state, Until: time.Now().Add(time.Hour)})
	}
	set()
	var all []unread
	for range muteStreams {
		all = append(all, muteStream(t, nodes[0], filepath.Join(filepath.Dir(nodes[0].State), "client")))
	}
	for range mutePages {
		all = append(all, muteEvents(t, nodes[0]))
	}
	reader := openWitness(t, client.WitnessConfig{Resources: []string{"node/b"}}, nodes[0])
	expectTold(t, reader, "now node/b available x0")
	before := heapNow()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	for i := range muteChanges {
		if state = belfry.ResourceAvailable; i%2 == 0 {
			state = belfry.ResourceUnavailable
		}
		set()
		e, err := reader.Next(ctx)
		if err != nil || e.Kind != client.WitnessChange || e.Change.Count != 1 || e.Change.Level.State != state {
			t.Fatalf("change %d: told %+v, %v; want %s", i+1, e, err, state)
		}
	}
	const most = 6 * muteWindow // of both ends of a connection, and of the agent; all changes are more
	if grown := (int64(heapNow()) - int64(before)) / int64(len(all)); grown > most {
		t.Errorf("%d KiB more are held for each client that does not read; want %d at most", grown>>10, most>>10)
	}
	for i, read := range all {
		if messages := read(t, muteChanges); i < muteStreams && messages >= muteChanges {
			t.Errorf("client %d has %d messages of %d changes; want that what it has not read is one", i, messages, muteChanges)
		}
	}
}
