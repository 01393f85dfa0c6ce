package api

import (
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// A second agent is what is most worth knowing, of this node too.
func TestANoteTellsOfASecondAgent(t *testing.T) {
	t.Parallel()
	view := ClusterView{Self: nodeA, Time: time.Unix(1000, 0)}
	if got, want := noteOf(view, &cluster.NodeStatus{ID: nodeA}), "this node"; got != want {
		t.Errorf("note %q, want %q", got, want)
	}
	view.Duplicates = map[belfry.NodeID]time.Time{nodeA: view.Time.Add(-15 * time.Second)}
	if got, want := noteOf(view, &cluster.NodeStatus{ID: nodeA}), "a second agent runs with its identity"; got != want {
		t.Errorf("note %q, want %q", got, want)
	}
}
