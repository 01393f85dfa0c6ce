package agent

import (
	"maps"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
)

// duplicates remembers when a second agent with the identity of a node was
// noticed last. The zero value is ready, and safe for concurrent use.
type duplicates struct {
	mu sync.Mutex
	at map[belfry.NodeID]time.Time
}

func (d *duplicates) note(id belfry.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == nil {
		d.at = map[belfry.NodeID]time.Time{}
	}
	d.at[id] = time.Now()
}

func (d *duplicates) seen() map[belfry.NodeID]time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.at)
}
