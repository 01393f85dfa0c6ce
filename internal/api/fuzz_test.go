package api

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// FuzzLocalAPI sends bytes right after accept, in place of HTTP/2 or behind
// its preface, and then looks whether the agent still answers others.
func FuzzLocalAPI(f *testing.F) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	f.Add([]byte{})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte(preface))
	f.Add([]byte(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"))                         // SETTINGS
	f.Add([]byte(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\x01\x05\x00")) // and a frame that is too long
	dir, err := os.MkdirTemp("", "belfry")                                                  //nolint:usetesting // a fuzz target has a folder for each input; this one is for all
	if err != nil {
		f.Fatal(err)
	}
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(dir, "s"), subject: admin}
	a.Server = New(Options{Decide: byRole, Events: a.events, Cluster: a.cluster, Config: &fakeConfiguration{}, Identify: a.identify})
	if err := a.ServeUnix(a.socket, ""); err != nil {
		f.Fatal(err)
	}
	c, err := client.Dial(f.Context(), a.socket)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = c.Close()
		_ = a.Stop(f.Context())
		_ = os.RemoveAll(dir)
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		conn, err := net.Dial("unix", a.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(data); err == nil {
			_, _ = io.ReadAll(io.LimitReader(conn, 64))
		}
		if _, err := c.Classes(t.Context(), ""); err != nil {
			t.Errorf("the agent does not answer: %v", err)
		}
		if n := len(a.events.opened); n > 0 {
			t.Errorf("%d consumers were made by bytes that say nothing", n)
		}
	})
}

// FuzzRegister feeds a stream any registration that decodes.
func FuzzRegister(f *testing.F) {
	hi := 90.0
	for _, r := range []*belfryv1.Registration{
		{}, {Class: "node.state"}, {Class: "filesystem.usage", Subject: "/", Hi: &hi}, {Class: "*", Scope: belfryv1.Scope_SCOPE_CLUSTER, Nodes: []string{"b"}},
	} {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	s := New(Options{Decide: byRole, Events: newFakeEvents(), Cluster: &fakeCluster{}, Config: &fakeConfiguration{}})
	f.Fuzz(func(t *testing.T, data []byte) {
		var p belfryv1.Registration
		if proto.Unmarshal(data, &p) != nil {
			return
		}
		r, err := s.registration(&p)
		if err != nil {
			if refusal := refusalOf(err); refusal.GetCode() != "USAGE" && refusal.GetCode() != "NOT_FOUND" || refusal.GetMessage() == "" {
				t.Errorf("refused with %v", refusal)
			}
			return
		}
		if r.Class == "" || len(r.Nodes) != len(p.GetNodes()) {
			t.Errorf("%v became %+v", &p, r)
		}
	})
}
