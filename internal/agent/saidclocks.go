package agent

import (
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
)

// saidClockLife is how long it counts what a member said: it is asked again
// every 10 s as long as there is no stream to it.
const saidClockLife = time.Minute

// saidClocks are the clocks of members that take no stream of this node, perhaps
// because of its clock: what they said when it asked whether it is a member. The
// zero value is ready, and safe for concurrent use.
type saidClocks struct {
	mu sync.Mutex
	by map[belfry.NodeID]saidClock
}

type saidClock struct {
	ahead time.Duration // of this node's
	at    time.Time
}

// note returns whether this is news: a clock so far off that certificates may
// not count, which it was not when it was noted before.
func (c *saidClocks) note(id belfry.NodeID, ahead time.Duration, now time.Time) (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[belfry.NodeID]saidClock{}
	}
	news = clockLevel(ahead) == LevelFailure && clockLevel(c.by[id].ahead) != LevelFailure
	c.by[id] = saidClock{ahead, now}
	return news
}

// ahead is nil if the member said nothing lately.
func (c *saidClocks) ahead(id belfry.NodeID, now time.Time) *time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	said, ok := c.by[id]
	if !ok || now.Sub(said.at) > saidClockLife {
		return nil
	}
	return &said.ahead
}
