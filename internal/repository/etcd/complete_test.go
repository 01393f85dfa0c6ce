package etcd

import (
	"errors"
	"sync"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// A repository that comes here from disks is put where nothing is, by whoever is
// first of those who complete.
func TestARepositoryMovesHere(t *testing.T) {
	t.Parallel()
	servers := newCluster(t, 1)
	leader(t, servers)
	of := func(host int) Config {
		cfg := config(host, endpoints(servers)...)
		cfg.Epoch, cfg.Repository.Held = 2, repository.Version{Repository: cfg.UUID, Epoch: 1, Ballot: 99 << 16, Generation: 6}
		return cfg
	}
	before := open(t, of(3)) // looks for the new place before it is there
	if _, err := before.Poll(); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("before: %v, want %v", err, belfry.ErrNotFound)
	}
	move := repository.Move{Document: repositorytest.First(), Generation: 7, Previous: repository.Digest{6}, Op: opID(0, 7)}
	var group sync.WaitGroup
	for host := range 3 {
		group.Go(func() {
			if v, err := Complete(of(host), move); err != nil || v.Generation != 7 || v.Epoch != 2 {
				t.Errorf("host %d: %+v, %v", host, v, err)
			}
		})
	}
	group.Wait()
	if got, err := before.Load(); err != nil || got.Generation != 7 || got.Epoch != 2 || got.Previous != move.Previous || got.Op != move.Op {
		t.Errorf("loaded %+v, %v", got.Version, err)
	}
	// The last one may come when others work on already.
	v := add(t, before, opID(1, 1))
	if again, err := Complete(of(0), move); err != nil || again != v {
		t.Errorf("once more: %+v, %v; want %+v", again, err, v)
	}
	if got := load(t, before); got.Version != v {
		t.Errorf("after that: %+v, want %+v", got.Version, v)
	}
}

// What it has left here in an earlier epoch is replaced when it comes back, and
// counts for nobody after that.
func TestWhatARepositoryLeftIsReplaced(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	old := open(t, config(0, endpoints(servers)...))
	held := load(t, old)
	cfg := config(1, endpoints(servers)...)
	cfg.Epoch = 3
	move := repository.Move{Document: repositorytest.First(), Generation: 9, Op: opID(0, 9)}
	c := client(t, servers...)
	was, err := c.Get(ask(t), old.key)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := Complete(cfg, move); err != nil || v.Epoch != 3 || v.Generation != 9 {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := old.Poll(); !errors.Is(err, repository.Moved) {
		t.Errorf("who is still in epoch 1: %v, want %v", err, repository.Moved)
	}
	if _, err := old.CAS(held.Version, repositorytest.First(), opID(0, 2)); !errors.Is(err, repository.Moved) {
		t.Errorf("who writes in epoch 1: %v, want %v", err, repository.Moved)
	}
	again := open(t, cfg)
	if got := load(t, again); got.Generation != 9 {
		t.Errorf("generation %d", got.Generation)
	}
	// Somebody writes again what was left.
	if _, err := c.Put(ask(t), old.key, string(was.Kvs[0].Value)); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Load(); !errors.Is(err, repository.Regressed) {
		t.Errorf("the value of before: %v, want %v", err, repository.Regressed)
	}
}

// A key that holds anything else is nobody's to overwrite.
func TestAMoveOverwritesNothingElse(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	cfg := config(0, endpoints(servers)...)
	cfg.Epoch, cfg.UUID = 2, repository.UUID{77}
	c := client(t, servers...)
	before, err := c.Get(ask(t), cfg.key())
	if err != nil {
		t.Fatal(err)
	}
	move := repository.Move{Document: repositorytest.First(), Generation: 7, Op: opID(0, 7)}
	if _, err := Complete(cfg, move); !errors.Is(err, belfry.ErrExist) {
		t.Errorf("another repository: %v, want %v", err, belfry.ErrExist)
	}
	after, err := c.Get(ask(t), cfg.key())
	if err != nil || after.Kvs[0].ModRevision != before.Kvs[0].ModRevision {
		t.Errorf("it was written: %v", err)
	}
}
