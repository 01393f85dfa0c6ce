package api

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAChangeIsAuditedAndWhatChangesNothingIsNot(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(t.TempDir(), "s"), subject: operator}
	a.Server = New(Options{
		Decide: byRole,
		Events: a.events, Cluster: a.cluster, Config: &fakeConfiguration{}, Identify: a.identify,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err := a.ServeUnix(a.socket, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, a.Server) })
	c := a.dial(t)

	stopped, err := c.StopNode(t.Context(), "a", false)
	want := &belfryv1.StopNodeResponse{NodeId: nodeA.String(), NodeName: "a", Changed: true, Generation: 8, Running: 1}
	if diff := cmp.Diff(want, stopped, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("stop a: %v, -want +got:\n%s", err, diff)
	}
	again, err := c.StopNode(t.Context(), nodeB.String(), false)
	if err != nil || again.GetChanged() || again.GetNodeName() != "b" {
		t.Errorf("stop b: %v, %v; want that it is so already", again, err)
	}
	if started, err := c.StartNode(t.Context(), "b", true); err != nil || !started.GetChanged() {
		t.Errorf("dry start of b: %v, %v; want that it would change", started, err)
	}
	set, err := c.SetConfig(t.Context(), "tunables.x", "2", false)
	if err != nil || set.GetBefore() != "1" || set.GetSetting().GetValue() != "2" {
		t.Errorf("set: %v, %v; want 2, was 1", set, err)
	}
	if _, err := c.StopNode(t.Context(), "z", false); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("stop z: %v; want ErrNotFound", err)
	}
	if _, err := c.SetConfig(t.Context(), "tunables.x", "3", false); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "x is 3; want 1 to 2") {
		t.Errorf("set to 3: %v; want ErrUsage with the range", err)
	}
	var audited []string
	for line := range strings.Lines(log.String()) {
		if _, what, ok := strings.Cut(line, "msg=changed component=api "); ok {
			audited = append(audited, strings.TrimSpace(what))
		}
	}
	wantAudit := []string{
		`op=StopNode subject=a by="uid 1001" pid=4712 generation=8`,
		`op=SetConfig subject=tunables.x by="uid 1001" pid=4712 before=1 value=2 generation=8`,
	}
	if diff := cmp.Diff(wantAudit, audited); diff != "" {
		t.Errorf("audit: -want +got:\n%s", diff)
	}
}

func TestSettingsComeWithTheirRange(t *testing.T) {
	t.Parallel()
	c := startAgent(t, operator).dial(t)
	got, err := c.Config(t.Context(), "tunables")
	if err != nil {
		t.Fatal(err)
	}
	want := &belfryv1.GetConfigResponse{
		Generation: 7,
		Settings:   []*belfryv1.Setting{{Path: "tunables.x", Value: "2", Default: "1", Range: "1 to 2", Set: true}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := c.Config(t.Context(), "x"); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("an unknown section: %v; want ErrUsage", err)
	}
}
