package etcd

import (
	"fmt"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Repair puts back what this node holds, in the place of a value that is
// damaged, gone, or older: etcd was restored from a backup. Who calls it has
// asked the members which generation most of them have. What it writes is above
// all that any of them has seen, also where etcd counts its revisions from the
// start again.
//
// ErrConflict: what is there counts, and is not older. ErrUnknown: call again.
func (b *Backend) Repair(held repository.Snapshot) (repository.Version, error) {
	if err := b.writable(held.Document); err != nil {
		return repository.Version{}, b.fail("repair", err)
	}
	ctx, done := b.begin()
	defer done()
	var open error
	for {
		at, err := b.get(ctx)
		if err != nil {
			return repository.Version{}, b.fail("repair", outcome(open, err))
		}
		found, err := b.judge(at)
		switch {
		case err == nil && found.Same(held.Version):
			return found.Version, nil
		case err == nil && found.Generation >= held.Generation:
			return found.Version, b.fail("repair", fmt.Errorf("%w: generation %d is there and counts, %d is held; load it",
				belfry.ErrConflict, found.Generation, held.Generation))
		}
		b.mu.Lock()
		above := max(held.Ballot, b.floor.Ballot, repository.Ballot(at.revision)) + 1
		b.mu.Unlock()
		r := repository.Record{Generation: held.Generation, Previous: held.Previous, Op: held.Op, Accepted: above}
		v, err := b.replace(ctx, at, r, held.Document)
		switch {
		case err == nil && v.Generation > 0:
			return v, nil
		case err == nil:
		case refusal(err) != nil:
			return repository.Version{}, b.fail("repair", outcome(open, refusal(err)))
		default:
			open = unanswered(err)
		}
	}
}
