package etcd

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

const opSize = 16

// opID is update number n of a host, as repositorytest.Holds reads it.
func opID(host, n int) (op repository.OpID) {
	op[0] = 2
	binary.LittleEndian.PutUint32(op[4:], uint32(host))
	binary.LittleEndian.PutUint32(op[8:], uint32(n))
	return op
}

func key(host int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(host) + 1}, ed25519.SeedSize))
}

func nodeID(host int) belfry.NodeID { return belfry.NodeID{0xa, byte(host)} }

// members are the hosts whose signature counts.
const members = 8

func admit(signer belfry.NodeID, _ []byte) (repository.Verify, error) {
	if signer[0] != 0xa || signer[1] >= members {
		return nil, belfry.ErrNotMember
	}
	return repository.VerifyKey(key(int(signer[1])).Public().(ed25519.PublicKey)), nil
}

func config(host int, endpoints ...string) Config {
	private := key(host)
	return Config{
		Endpoints: endpoints, Prefix: "belfry", Cluster: belfry.ClusterID{2}, UUID: repository.UUID{1},
		Repository: repository.Config{
			Node: nodeID(host), Host: host, Incarnation: 1, Boot: repository.UUID{1},
			Sign:  func(m []byte) []byte { return ed25519.Sign(private, m) },
			Holds: repositorytest.Holds, Admit: admit,
		},
	}
}

func endpoints(servers []*server) (all []string) {
	for _, s := range servers {
		all = append(all, s.endpoint())
	}
	return all
}

// found makes the repository, as soon as etcd is there.
func found(t testing.TB, cfg Config) {
	t.Helper()
	within(t, 30*time.Second, func() error {
		_, err := Create(cfg, repositorytest.First(), repository.OpID(repositorytest.First()))
		if err != nil && !errors.Is(err, belfry.ErrRestricted) && !errors.Is(err, belfry.ErrUnknown) {
			t.Fatal(err)
		}
		return err
	})
}

func open(t testing.TB, cfg Config) *Backend {
	t.Helper()
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// newRepository is one in an etcd of so many members.
func newRepository(t testing.TB, count int) []*server {
	t.Helper()
	servers := newCluster(t, count)
	found(t, config(0, endpoints(servers)...))
	return servers
}

func load(t testing.TB, b repository.Backend) repository.Snapshot {
	t.Helper()
	s, err := b.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// add makes one update on what is there.
func add(t testing.TB, b repository.Backend, op repository.OpID) repository.Version {
	t.Helper()
	base := load(t, b)
	v, err := b.CAS(base.Version, append(base.Document, op[:]...), op)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wantUpdates are those that follow the first document.
func wantUpdates(t testing.TB, b repository.Backend, ops ...repository.OpID) {
	t.Helper()
	want := repositorytest.First()
	for _, op := range ops {
		want = append(want, op[:]...)
	}
	if got := load(t, b); !bytes.Equal(got.Document, want) || got.Generation != uint64(len(ops)+1) {
		t.Errorf("generation %d has %x, want %x", got.Generation, got.Document, want)
	}
}

// wantHelpful is an error that names where, and what would be right.
func wantHelpful(t testing.TB, err error, where string) {
	t.Helper()
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte(where)) || !bytes.Contains([]byte(err.Error()), []byte("; ")) {
		t.Errorf("%v; want %q in it, and what would be right", err, where)
	}
}
