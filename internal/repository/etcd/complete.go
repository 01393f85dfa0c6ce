package etcd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Complete brings a repository that moves here into etcd: the first generation of
// cfg.Epoch is that of m, whose headers are not looked at. Members who complete
// at the same time write the same document, and one of them is first. After any
// error, and after any crash, it may be called again, by any member. What the
// repository has left there in an earlier epoch is replaced.
//
// ErrExist: the key holds something else. Moved: a later epoch has begun.
// ErrUnknown: call again.
func Complete(cfg Config, m repository.Move) (repository.Version, error) {
	b, err := connect(cfg)
	if err != nil {
		return repository.Version{}, err
	}
	v, err := b.complete(m)
	return v, errors.Join(err, b.Close())
}

func (b *Backend) complete(m repository.Move) (repository.Version, error) {
	if err := b.writable(m.Document); err != nil {
		return repository.Version{}, b.fail("complete", err)
	}
	ctx, done := b.begin()
	defer done()
	var open error // of an attempt that got no answer
	for {
		at, err := b.get(ctx)
		if err != nil {
			return repository.Version{}, b.fail("complete", outcome(open, err))
		}
		if at.revision != 0 && !b.left(at) {
			found, err := b.judge(at)
			switch {
			case err == nil && found.Generation >= m.Generation:
				return found.Version, nil
			case err == nil, errors.Is(err, belfry.ErrUsage), errors.Is(err, repository.Damaged):
				err = fmt.Errorf("%w: the key holds something else; name another prefix, or delete the key", belfry.ErrExist)
			}
			return repository.Version{}, b.fail("complete", outcome(open, err))
		}
		next := repository.Record{Generation: m.Generation, Previous: m.Previous, Op: m.Op, Accepted: 1}
		v, err := b.replace(ctx, at, next, m.Document)
		switch {
		case err == nil && v.Generation > 0:
			return v, nil
		case err == nil: // another member was first
		case refusal(err) != nil:
			return repository.Version{}, b.fail("complete", outcome(open, refusal(err)))
		default:
			open = unanswered(err)
		}
	}
}

// left tells whether what the key has was left there by this repository, in an
// epoch before this one. Nobody need have signed it: nothing is taken from it.
func (b *Backend) left(at stored) bool {
	const repositoryAt, epochAt = 8, 40 // in the record
	return len(at.value) > repository.BlockSize && bytes.Equal(at.value[repositoryAt:repositoryAt+16], b.cfg.UUID[:]) &&
		binary.LittleEndian.Uint64(at.value[epochAt:]) < b.cfg.Epoch
}
