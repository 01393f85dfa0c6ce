package configview

import (
	"errors"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// TestWhatNoAgentActsOnIsRefused when it is added or changed; it may stay, and go.
func TestWhatNoAgentActsOnIsRefused(t *testing.T) {
	t.Parallel()
	link := repository.Link{A: "a", B: "b", Network: "net1", Disabled: true}
	with := repository.Document{Links: []repository.Link{link}, Linked: []repository.LinkedCluster{{Name: "bonn"}}}
	changed := repository.Document{Links: []repository.Link{{A: "a", B: "b", Network: "net1"}}, Linked: with.Linked}
	for name, c := range map[string]struct {
		base, next repository.Document
		want       string
	}{
		"added":   {repository.Document{}, with, "links[0]: not supported: agents of this version do not act on it: every pair of nodes has heartbeats on each network that both are on; leave it out\nlinked[0]: not supported: agents of this version do not act on it: no other cluster is watched; leave it out"},
		"changed": {with, changed, "links[0]: not supported: agents of this version do not act on it: every pair of nodes has heartbeats on each network that both are on; leave it out"},
		"stays":   {with, with, ""},
		"goes":    {with, repository.Document{}, ""},
	} {
		err := Acts(c.base, c.next)
		if err == nil && c.want == "" {
			continue
		}
		if err == nil || err.Error() != c.want || !errors.Is(err, belfry.ErrUnsupported) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}
