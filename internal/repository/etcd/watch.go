package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/belfry-ha/belfry/internal/repository"
)

// rewatch is how long after its end a watch begins anew, and rewatchMost how
// long when etcd has not answered several times: the poll goes on meanwhile.
const (
	rewatch     = 200 * time.Millisecond
	rewatchMost = 2 * time.Second
)

// watch tells of new values until ctx ends. After each interruption it reads the
// key, and follows from there: what changed meanwhile, and was compacted, is
// told as the value that is there now.
func (b *Backend) watch(ctx context.Context) {
	pause := rewatch
	for told := int64(0); ctx.Err() == nil; _ = wait(ctx, pause) {
		asking, cancel := context.WithTimeout(ctx, b.cfg.Deadline)
		at, err := b.get(asking)
		cancel()
		if err != nil {
			told, pause = 0, min(2*pause, rewatchMost) // that etcd is back is worth a look
			continue
		}
		pause = rewatch
		if at.revision != told {
			told = at.revision
			b.hint(at)
		}
		// Not from the key's own revision: that may be compacted though nothing
		// has changed since.
		told = b.follow(ctx, at.now+1, told)
	}
}

// follow tells of what is written from a revision on, and returns the last one.
// It ends when etcd can not go on: the revision is compacted, or the member has
// lost its leader and would tell nothing.
func (b *Backend) follow(ctx context.Context, from, told int64) int64 {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for answer := range b.client.Watch(ctx, b.key, clientv3.WithRev(from)) {
		for _, e := range answer.Events {
			told = e.Kv.ModRevision
			b.hint(stored{cluster: answer.Header.ClusterId, now: answer.Header.Revision, revision: told, value: e.Kv.Value})
		}
		if answer.Err() != nil {
			break
		}
	}
	return told
}

// hint never waits for who takes hints: only the newest one is kept.
func (b *Backend) hint(at stored) {
	v := repository.Version{Repository: b.cfg.UUID, Epoch: b.cfg.Epoch, Ballot: repository.Ballot(at.revision)}
	b.mu.Lock()
	found, err := repository.DecodeValue(b.place(at.cluster), at.value, b.cfg.Repository.Admit)
	b.mu.Unlock()
	if err == nil {
		v = found.Version
		v.Ballot = max(v.Ballot, repository.Ballot(at.revision))
	}
	select {
	case <-b.hints:
	default:
	}
	b.hints <- v // has room: nobody else puts anything in
}
