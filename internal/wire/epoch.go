package wire

import (
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// Grace is how long the epoch before stays open for receiving after a change
// (cluster.md 3). After a removal GraceRemoval, so that the removed node's
// copies are worth nothing soon.
const (
	Grace        = 60 * time.Second
	GraceRemoval = 2 * time.Second
)

// epochs holds the pseudorandom keys of the epochs before, now and next. The
// secrets themselves are not kept.
type epochs struct {
	cluster belfry.ClusterID
	current uint32
	until   time.Time         // the epoch before is open up to here, exclusively
	prk     map[uint32][]byte // of the epochs current-1, current, current+1
}

// add takes the secret of an epoch; others than the three are refused.
func (e *epochs) add(epoch uint32, secret Secret) error {
	if epoch != e.current && epoch-1 != e.current && epoch+1 != e.current {
		return fmt.Errorf("%w: secret of epoch %d; the present one is %d, and only its neighbours are kept",
			belfry.ErrUsage, epoch, e.current)
	}
	e.prk[epoch] = extract(secret, e.cluster)
	secret.wipe()
	return nil
}

// rotate makes epoch the present one and forgets what is two and more behind.
func (e *epochs) rotate(epoch uint32, until time.Time) error {
	if epoch == e.current {
		return nil
	}
	if epoch-1 != e.current {
		return fmt.Errorf("%w: epoch %d; the one after %d is next", belfry.ErrUsage, epoch, e.current)
	}
	if e.prk[epoch] == nil {
		return fmt.Errorf("%w: secret of epoch %d; it must be here before the epoch begins", belfry.ErrNotFound, epoch)
	}
	e.current, e.until = epoch, until
	for old := range e.prk { // the order can not be seen
		if old != epoch && old != epoch-1 {
			clear(e.prk[old])
			delete(e.prk, old)
		}
	}
	return nil
}

// adopt begins again with one epoch.
func (e *epochs) adopt(epoch uint32, secret Secret) {
	for _, prk := range e.prk { // the order can not be seen
		clear(prk)
	}
	e.current, e.until = epoch, time.Time{}
	e.prk = map[uint32][]byte{epoch: extract(secret, e.cluster)}
	secret.wipe()
}

// open finds the open epoch whose number mod 16 is given.
func (e *epochs) open(now time.Time, low byte) (uint32, bool) {
	switch low {
	case byte(e.current & 15):
		return e.current, true
	case byte((e.current + 1) & 15):
		return e.current + 1, e.prk[e.current+1] != nil
	case byte((e.current - 1) & 15):
		return e.current - 1, e.prk[e.current-1] != nil && now.Before(e.until)
	}
	return 0, false
}
