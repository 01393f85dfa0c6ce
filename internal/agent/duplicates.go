package agent

import (
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// duplicateLife is for how long a second agent counts as running after it was
	// noticed. It sends heartbeats, asks for streams again every few seconds, and
	// whether it is a member every 11 s at most (askEvery); some of that gets lost.
	duplicateLife = 20 * time.Second
	// duplicateMost is the longest that it counts: where members do not answer it
	// is noticed more rarely, and counts for half as long again as that takes.
	duplicateMost = time.Minute
)

// duplicates remembers when a second agent with the identity of a node was
// noticed last. The zero value is ready, and safe for concurrent use.
type duplicates struct {
	mu      sync.Mutex
	noticed map[belfry.NodeID]notice
}

type notice struct {
	at, until time.Time
}

func (d *duplicates) note(id belfry.NodeID, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noticed == nil {
		d.noticed = map[belfry.NodeID]notice{}
	}
	life := duplicateLife
	if before, ok := d.noticed[id]; ok && now.Before(before.at.Add(duplicateMost)) {
		life = min(max(life, now.Sub(before.at)*3/2), duplicateMost)
	}
	d.noticed[id] = notice{at: now, until: now.Add(life)}
}

// forget is called when a node shows a newer incarnation: what was noticed is of
// those before. If there are two agents still, that is noticed again.
func (d *duplicates) forget(id belfry.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.noticed, id)
}

// seen is when those were noticed last that run still, as far as is known.
func (d *duplicates) seen(now time.Time) map[belfry.NodeID]time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := map[belfry.NodeID]time.Time{}
	for id, n := range d.noticed {
		if now.Before(n.until) {
			seen[id] = n.at
		}
	}
	return seen
}
