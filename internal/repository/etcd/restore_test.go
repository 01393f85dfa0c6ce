package etcd

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// wantRegressed: nothing is read and nothing is written.
func wantRegressed(t *testing.T, b *Backend, held repository.Snapshot) {
	t.Helper()
	p := patient{b}
	for name, call := range map[string]func() error{
		"load": func() error { _, err := p.Load(); return err },
		"poll": func() error { _, err := p.Poll(); return err },
		"commit": func() error {
			op := opID(7, 7)
			_, err := p.CAS(held.Version, append(held.Document, op[:]...), op)
			return err
		},
	} {
		err := call()
		if !errors.Is(err, repository.Regressed) || !errors.Is(err, belfry.ErrRestricted) {
			t.Errorf("%s: %v, want %v", name, err, repository.Regressed)
		}
	}
}

// A backup of etcd is put back that lacks generations which a node has seen. The
// nodes say so, and one of them puts the newest one back.
func TestARestoredBackupIsFoundAndRepaired(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	s := servers[0]
	a := open(t, config(0, s.endpoint()))
	ops := []repository.OpID{opID(1, 1), opID(1, 2), opID(1, 3)}
	add(t, a, ops[0])
	s.kill()
	backup := filepath.Join(t.TempDir(), "backup")
	s.copyData(backup)
	s.start()
	p := patient{a}
	for _, op := range ops[1:] {
		add(t, p, op)
	}
	held := load(t, a)
	s.kill()
	s.restore(backup)
	s.start()

	wantRegressed(t, a, held)
	// A node that has been down knows it from its local copy.
	cfg := config(1, s.endpoint())
	cfg.Repository.Held = held.Version
	b := open(t, cfg)
	wantRegressed(t, b, held)
	// A new one can not know: it must not make a value that the others hold for
	// less. This is what its local copy is for.
	c := open(t, config(2, s.endpoint()))
	if got := load(t, c); got.Generation != 2 {
		t.Errorf("generation %d, want 2", got.Generation)
	}

	v, err := b.Repair(held)
	if err != nil {
		t.Fatal(err)
	}
	if !v.Same(held.Version) || !held.Before(v) {
		t.Errorf("repaired as %+v, want the value of %+v and a higher ballot", v, held.Version)
	}
	for _, of := range []*Backend{a, b, c} {
		wantUpdates(t, of, ops...)
	}
	if again, err := a.Repair(held); err != nil || again != v {
		t.Errorf("repaired again: %+v, %v; want %+v", again, err, v)
	}
	ops = append(ops, opID(1, 4))
	add(t, a, ops[3])
	for _, of := range []*Backend{a, b, c} {
		wantUpdates(t, of, ops...)
	}
	if _, err := b.Repair(held); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("repair of a value that is newer: %v, want %v", err, belfry.ErrConflict)
	}
}

// The same bytes in another etcd: it was restored there, or somebody copied it.
func TestAValueOfAnotherEtcdIsRefused(t *testing.T) {
	t.Parallel()
	from, to := newRepository(t, 1), newCluster(t, 1)
	a := open(t, config(0, endpoints(from)...))
	op := opID(1, 1)
	add(t, a, op)
	held := load(t, a)
	was, err := client(t, from...).Get(ask(t), a.key)
	if err != nil {
		t.Fatal(err)
	}
	other := client(t, to...)
	for range 20 { // its revisions are higher, so that only the store tells
		if _, err := other.Put(ask(t), "another key", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Put(ask(t), a.key, string(was.Kvs[0].Value)); err != nil {
		t.Fatal(err)
	}
	b := open(t, config(1, endpoints(to)...))
	wantRegressed(t, b, held)
	if _, err := b.Repair(held); err != nil {
		t.Fatal(err)
	}
	wantUpdates(t, b, op)
	wantUpdates(t, open(t, config(2, endpoints(to)...)), op)
}

func TestADeletedKeyIsFoundAndRepaired(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	a := open(t, config(0, endpoints(servers)...))
	op := opID(1, 1)
	add(t, a, op)
	held := load(t, a)
	if _, err := client(t, servers...).Delete(ask(t), a.key); err != nil {
		t.Fatal(err)
	}
	wantRegressed(t, a, held)
	if _, err := a.Repair(held); err != nil {
		t.Fatal(err)
	}
	wantUpdates(t, a, op)
}

// Somebody who can write the key puts an old value back, whole and signed: its
// revision is the newest one, its generation is not.
func TestAnOldValueWrittenAgainIsRefused(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	a := open(t, config(0, endpoints(servers)...))
	c := client(t, servers...)
	was, err := c.Get(ask(t), a.key)
	if err != nil {
		t.Fatal(err)
	}
	add(t, a, opID(1, 1))
	held := load(t, a)
	if _, err := c.Put(ask(t), a.key, string(was.Kvs[0].Value)); err != nil {
		t.Fatal(err)
	}
	wantRegressed(t, a, held)
}

// Another value of the generation that this node holds is a fork.
func TestAForkIsRefused(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	a := open(t, config(0, endpoints(servers)...))
	v := add(t, a, opID(1, 1))
	cfg := config(1, endpoints(servers)...)
	cfg.Repository.Held = v
	cfg.Repository.Held.Digest[0] ^= 1
	wantRegressed(t, open(t, cfg), load(t, a))
}
