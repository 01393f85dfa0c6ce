package disk

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"os"
	"path/filepath"
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

func key(host byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{host + 1}, ed25519.SeedSize))
}

func nodeID(host int) belfry.NodeID { return belfry.NodeID{0xa, byte(host)} }

// config is a host of this machine; all of them are members.
func config(host, incarnation int) repository.Config {
	private := key(byte(host))
	keys := map[belfry.NodeID]repository.Verify{}
	return repository.Config{
		Node: nodeID(host), Host: host, Incarnation: uint64(incarnation), Boot: repository.UUID{1}, Local: true,
		Sign:  func(m []byte) []byte { return ed25519.Sign(private, m) },
		Own:   repository.VerifyKey(private.Public().(ed25519.PublicKey)),
		Holds: repositorytest.Holds,
		Admit: func(signer belfry.NodeID, _ []byte) (repository.Verify, error) {
			if signer[0] != 0xa {
				return nil, belfry.ErrNotMember
			}
			if keys[signer] == nil {
				keys[signer] = repository.VerifyKey(key(signer[1]).Public().(ed25519.PublicKey))
			}
			return keys[signer], nil
		},
	}
}

func header(l repository.Layout) repository.Header {
	return repository.Header{
		Repository: repository.UUID{1}, Cluster: belfry.ClusterID{2}, Epoch: 1, Sequence: 1,
		Disks: []repository.UUID{{3}}, Layout: l, Created: time.Unix(0, 0).UTC(), Label: "test",
	}
}

func small() repository.Layout {
	return repository.CompactLayout(8, 8*repository.BlockSize, 17*repository.BlockSize)
}

// format makes what is at the path a repository of its own.
func format(t testing.TB, path string, l repository.Layout) {
	t.Helper()
	c := config(0, 1)
	founder := repository.Founder{Node: c.Node, Incarnation: 1, Boot: c.Boot, Sign: c.Sign}
	if err := Format(path, false, header(l), founder, repositorytest.First(), repository.OpID(repositorytest.First())); err != nil {
		t.Fatal(err)
	}
}

// newFile is a repository in a new file.
func newFile(t testing.TB, l repository.Layout) string {
	t.Helper()
	return newFileIn(t, t.TempDir(), l)
}

// memory is a folder whose files no disk keeps waiting, if there is one: for
// tests with deadlines that are shorter than a busy disk's.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "belfry") //nolint:usetesting // what t.TempDir gives is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newFileIn(t testing.TB, dir string, l repository.Layout) string {
	t.Helper()
	path := filepath.Join(dir, "test"+Suffix)
	if err := Create(path, l.Size()); err != nil {
		t.Fatal(err)
	}
	format(t, path, l)
	return path
}

// patient is a deadline that a busy disk keeps.
const patient = 20 * time.Second

func hostConfig(path string, host, incarnation int) HostConfig {
	return HostConfig{Repository: config(host, incarnation), Paths: []string{path}, Deadline: patient}
}

// impatient is host 0 where nothing gets better by waiting.
func impatient(path string) HostConfig {
	cfg := hostConfig(path, 0, 2)
	cfg.Patience = 30 * time.Millisecond
	return cfg
}

// newHost has the slot of that number until the test ends.
func newHost(t testing.TB, cfg HostConfig) *Host {
	t.Helper()
	h, err := OpenHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// add makes one update on what is there.
func add(t testing.TB, h *Host, op repository.OpID) repository.Version {
	t.Helper()
	base, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	v, err := h.CAS(base.Version, append(base.Document, op[:]...), op)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
