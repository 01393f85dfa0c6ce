package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/wire"
)

// A keyring is what this node proves itself with. Readers take what holds now;
// changes are on disk before they hold. Safe for concurrent use.
type keyring struct {
	dir string

	mu   sync.Mutex // held by whoever changes something
	keys atomic.Pointer[security.Keys]

	unsettled atomic.Pointer[unsettled] // nil: the certificate is under the first authority
}

// unsettled: the authorities changed, and the node's certificate is not renewed yet.
type unsettled struct {
	over  chan struct{} // closed when it is, or when they change again
	until time.Time     // nobody waits longer
}

// settleTime is how long after a change of the authorities a joiner waits for
// this node's certificate: it is renewed dutySoon after it, if the holder of the
// authority's key answers. Below transport's time for a handshake.
const settleTime = 5 * time.Second

// settled returns when the node's certificate is under the authority that tokens
// name, or settleTime after the authorities changed, or when ctx ends.
func (k *keyring) settled(ctx context.Context) {
	u := k.unsettled.Load()
	if u == nil {
		return
	}
	timer := time.NewTimer(time.Until(u.until))
	defer timer.Stop()
	select {
	case <-u.over:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// hold has keys count, which are on disk. k.mu is held.
func (k *keyring) hold(next *security.Keys) {
	k.keys.Store(next)
	var now *unsettled
	if issuer := next.Issuer(); issuer == nil || !issuer.Equal(next.CA[0]) {
		now = &unsettled{over: make(chan struct{}), until: time.Now().Add(settleTime)}
	}
	if last := k.unsettled.Swap(now); last != nil {
		close(last.over)
	}
}

func newKeyring(dir string, keys *security.Keys) *keyring {
	k := &keyring{dir: dir}
	k.keys.Store(keys)
	return k
}

// now is read-only.
func (k *keyring) now() *security.Keys { return k.keys.Load() }

// secret is that of an epoch, if the node has the one with this hash. A zero
// hash is that of a table that names none.
func (k *keyring) secret(epoch uint32, hash Digest) (security.Secret, bool) {
	s, ok := k.now().Secrets[epoch]
	return s, ok && (hash == Digest{} || sha256.Sum256(s[:]) == hash)
}

// keep has a secret on disk and at hand. Another one of the same epoch goes:
// the committed table says which one counts. Those of epochs that are over by
// two are removed.
func (k *keyring) keep(epoch uint32, s security.Secret) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.now()
	if had, ok := old.Secrets[epoch]; ok && had == s {
		return nil
	} else if ok {
		if err := security.RemoveSecret(k.dir, epoch); err != nil {
			return err
		}
	}
	if err := security.WriteSecret(k.dir, epoch, s); err != nil && !errors.Is(err, belfry.ErrExist) {
		return err
	}
	next := *old
	next.Secrets = maps.Clone(old.Secrets)
	next.Secrets[epoch] = s
	next.Epoch = slices.Max(slices.Collect(maps.Keys(next.Secrets)))
	k.keys.Store(&next)
	return nil
}

// forget removes the secrets of epochs that nobody sends under any more.
func (k *keyring) forget(present uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := *k.now()
	next.Secrets = maps.Clone(next.Secrets)
	var errs []error
	for epoch := range next.Secrets {
		if epoch != present && epoch+1 != present && epoch != present+1 {
			errs = append(errs, security.RemoveSecret(k.dir, epoch))
			delete(next.Secrets, epoch)
		}
	}
	k.keys.Store(&next)
	return errors.Join(errs...)
}

const (
	// epochLife is how long a group secret is used (security.md, Keys).
	epochLife = 24 * time.Hour
	// confirmTimeout bounds the wait for members that are to have the secret of
	// the next epoch; who has not asks for it. A removal does not wait so long.
	confirmTimeout        = 10 * time.Second
	confirmRemovalTimeout = 500 * time.Millisecond

	secretRetry    = 200 * time.Millisecond
	secretRetryMax = 5 * time.Second
)

// followEpoch sends and opens datagrams under the epoch that a table names.
// Without its secret this node is not heard: it asks for it until it has it.
func (a *Agent) followEpoch(old, table *Table) {
	if old.Epoch == table.Epoch && old.Secret == table.Secret {
		return
	}
	secret, ok := a.keys.secret(table.Epoch, table.Secret)
	if !ok {
		a.group.Go(func() error { a.fetchSecret(a.ended, table); return nil })
		return
	}
	grace := wire.Grace
	if !sameNodes(old, table) { // a node was removed with it
		grace = wire.GraceRemoval
	}
	err := a.udp.Keys(func(e *wire.Endpoint) error {
		if err := errors.Join(e.Learn(table.Epoch, wire.Secret(secret)), e.Rotate(time.Now(), table.Epoch, grace)); err != nil {
			e.Adopt(table.Epoch, wire.Secret(secret)) // from far away, or from another half's epoch of this number
		}
		return nil
	})
	err = errors.Join(err, a.keys.forget(table.Epoch))
	a.log.Info("epoch of the datagram keys", "epoch", table.Epoch, "err", err)
}

// fetchSecret asks the members for the secret of a table's epoch until it is
// here, or another table is.
func (a *Agent) fetchSecret(ctx context.Context, table *Table) {
	for wait := secretRetry; a.members.Table() == table; wait = min(2*wait, secretRetryMax) {
		for _, n := range table.Nodes {
			if n.ID == a.id.node.ID || !a.streams.Connected(n.ID) {
				continue
			}
			if err := a.askSecret(ctx, n.ID, table); err != nil {
				a.log.Debug("no secret from this member", "peer", n.Name, "epoch", table.Epoch, "err", err)
				continue
			}
			a.config.mu.Lock()
			defer a.config.mu.Unlock()
			if a.members.Table() == table {
				a.followEpoch(&Table{Nodes: table.Nodes}, table)
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (a *Agent) askSecret(ctx context.Context, from belfry.NodeID, table *Table) error {
	resp := new(belfryv1.GetSecretResponse)
	req := &belfryv1.GetSecretRequest{Epoch: table.Epoch, Hash: table.Secret[:]}
	if err := a.ask(ctx, from, belfryv1.MemberPeerService_GetSecret_FullMethodName, req, resp); err != nil {
		return err
	}
	secret, err := table.believe(resp.GetSecret())
	if err != nil {
		return err
	}
	return a.keys.keep(table.Epoch, secret)
}

// believe takes what a member gave for the secret of the table's epoch only if
// it is the one that the table names.
func (t *Table) believe(given []byte) (security.Secret, error) {
	secret, err := secretOf(given)
	if err == nil && sha256.Sum256(secret[:]) != t.Secret {
		err = fmt.Errorf("%w: it is not the secret that the configuration names", belfry.ErrConflict)
	}
	return secret, err
}

func secretOf(b []byte) (s security.Secret, err error) {
	if len(b) != len(s) {
		return s, fmt.Errorf("%w: a secret of %d bytes; %d", belfry.ErrUsage, len(b), len(s))
	}
	return security.Secret(b), nil
}

// getSecret answers a member that lacks the secret of the present epoch.
func (a *Agent) getSecret(_ context.Context, req *belfryv1.GetSecretRequest) (*belfryv1.GetSecretResponse, error) {
	table := a.members.Table()
	secret, ok := a.keys.secret(req.GetEpoch(), table.Secret)
	if !ok || req.GetEpoch() != table.Epoch || Digest(req.GetHash()) != table.Secret {
		return nil, fmt.Errorf("%w: secret of epoch %d; this node is in epoch %d", belfry.ErrNotFound, req.GetEpoch(), table.Epoch)
	}
	return &belfryv1.GetSecretResponse{Secret: secret[:]}, nil
}

// takeSecret keeps the secret of the next epoch. What it opens is opened at
// once: members switch one after the other.
func (a *Agent) takeSecret(_ context.Context, req *belfryv1.TakeSecretRequest) (*belfryv1.TakeSecretResponse, error) {
	table := a.members.Table()
	secret, err := secretOf(req.GetSecret())
	if err == nil && req.GetEpoch() != table.Epoch+1 {
		err = fmt.Errorf("%w: secret of epoch %d; this node is in epoch %d", belfry.ErrStale, req.GetEpoch(), table.Epoch)
	}
	if err != nil {
		return nil, err
	}
	if err := a.keys.keep(req.GetEpoch(), secret); err != nil {
		return nil, err
	}
	return &belfryv1.TakeSecretResponse{}, a.udp.Keys(func(e *wire.Endpoint) error { return e.Learn(req.GetEpoch(), wire.Secret(secret)) })
}

// rotate begins a new epoch, in one generation with what edit does, by commit or
// commitAlone. without is a node that is not to have the secret. This node is
// the leader.
func (a *Agent) rotate(ctx context.Context, commit committer, without belfry.NodeID, edit func(*Table) error) (changed bool, generation uint64, err error) {
	a.rotating.Lock()
	defer a.rotating.Unlock()
	table := a.members.Table()
	epoch, secret := table.Epoch+1, security.NewSecret()
	if err := a.keys.keep(epoch, secret); err != nil {
		return false, 0, err
	}
	timeout := confirmTimeout
	if !without.IsZero() {
		timeout = confirmRemovalTimeout
	}
	a.spread(ctx, timeout, without, &belfryv1.TakeSecretRequest{Epoch: epoch, Secret: secret[:]})
	return commit(ctx, func(t *Table) error {
		if t.Epoch+1 != epoch {
			return fmt.Errorf("%w: epoch %d has begun meanwhile; try again", belfry.ErrConflict, t.Epoch)
		}
		if err := edit(t); err != nil {
			return err
		}
		t.Epoch, t.Secret, t.Since = epoch, sha256.Sum256(secret[:]), time.Now().UTC().Truncate(time.Second)
		return nil
	})
}

// spread gives the secret of the next epoch to all other members but one.
func (a *Agent) spread(ctx context.Context, timeout time.Duration, without belfry.NodeID, req *belfryv1.TakeSecretRequest) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	to := a.members.Table().clone()
	to.remove(without)
	_, missed := a.askAll(ctx, to, func(id belfry.NodeID) error {
		return a.ask(ctx, id, belfryv1.MemberPeerService_TakeSecret_FullMethodName, req, new(belfryv1.TakeSecretResponse))
	})
	for _, n := range missed {
		a.log.Warn("member did not confirm the next group secret; it will ask for it", "peer", n.Name, "epoch", req.GetEpoch())
	}
}
