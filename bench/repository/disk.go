package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
)

// benchRepository names the repository of the bench.
var benchRepository = repository.UUID{0xbe}

// layout is that of a block device for 64 nodes, with small payload slots.
func layout() repository.Layout { return repository.DefaultLayout(64, 256<<10) }

// A medium is a file or a device with a repository on it.
type medium struct {
	name string
	path string
	end  func() error
}

// newMedium formats a file, or a loop device over one. A loop device that is
// direct hands each request on to the disk, like a device of its own; else the
// kernel's cache answers what was read before.
func newMedium(ctx context.Context, name string, loop ...string) (m *medium, err error) {
	dir, err := os.MkdirTemp("", "belfry-bench-repository-")
	if err != nil {
		return nil, err
	}
	m = &medium{name: name, path: filepath.Join(dir, "bench"+disk.Suffix), end: func() error { return os.RemoveAll(dir) }}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.end())
		}
	}()
	if err := disk.Create(m.path, layout().Size()); err != nil {
		return nil, err
	}
	if len(loop) > 0 {
		args := append(append([]string{"--find", "--show"}, loop...), m.path)
		device, err := exec.CommandContext(ctx, "losetup", args...).Output()
		if err != nil {
			return nil, fmt.Errorf("losetup %s: %w; run this as root", strings.Join(args, " "), err)
		}
		m.path = strings.TrimSpace(string(device))
		m.end = func() error {
			return errors.Join(exec.Command("losetup", "--detach", m.path).Run(), os.RemoveAll(dir))
		}
	}
	h := repository.Header{
		Repository: benchRepository, Cluster: belfry.ClusterID{1}, Epoch: 1, Sequence: 1,
		Disks: []repository.UUID{{2}}, Layout: layout(), Created: time.Now().UTC().Truncate(time.Second), Label: "bench",
	}
	c := configOf(0)
	founder := repository.Founder{Node: c.Node, Incarnation: c.Incarnation, Boot: c.Boot, Sign: c.Sign}
	return m, disk.Format(m.path, false, h, founder, document(0), operation(0, 0))
}

const documentSize = 4 << 10

// document is number n of them; nothing in it is of Belfry's schema, which a
// store never reads.
func document(n int) []byte {
	doc := fmt.Appendf(nil, "%20d", n)
	return append(doc, bytes.Repeat([]byte{'x'}, documentSize-len(doc))...)
}

func operation(host, n int) (op repository.OpID) {
	copy(op[:], fmt.Appendf(nil, "%d/%d", host, n))
	return op
}

// configOf is host number n of this machine; all are members and sign.
func configOf(n int) repository.Config {
	key := func(n byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n + 1}, ed25519.SeedSize))
	}
	private := key(byte(n))
	return repository.Config{
		Node: belfry.NodeID{0xbe, byte(n)}, Host: n, Incarnation: uint64(os.Getpid()), Boot: repository.UUID{1}, Local: true,
		Sign: func(m []byte) []byte { return ed25519.Sign(private, m) },
		Own:  repository.VerifyKey(private.Public().(ed25519.PublicKey)),
		Admit: func(signer belfry.NodeID, _ []byte) (repository.Verify, error) {
			return repository.VerifyKey(key(signer[1]).Public().(ed25519.PublicKey)), nil
		},
		Holds: func([]byte, repository.OpID) bool { return false }, // no attempt of a quiet disk is unknown
	}
}

// A host is a node's own access to a medium.
type host struct {
	*disk.Host
	number  int
	commits int
	version repository.Version
}

// openHost is host number n, with as many slots given to nodes.
func openHost(path string, n, slots int) (*host, error) {
	cfg := configOf(n)
	cfg.Slots = func([]byte) int { return slots }
	h, err := disk.OpenHost(disk.HostConfig{Repository: cfg, Paths: []string{path}, Deadline: side.EndTimeout, Patience: side.EndTimeout})
	if err != nil {
		return nil, err
	}
	return &host{Host: h, number: n}, nil
}

// load takes the claim.
func (h *host) load() error {
	s, err := h.Load()
	h.version = s.Version
	return err
}

// commit returns how long the next update took until it was acknowledged.
func (h *host) commit() (took time.Duration, err error) {
	h.commits++
	doc := document(h.commits)
	begin := time.Now()
	h.version, err = h.CAS(h.version, doc, operation(h.number, h.commits))
	return time.Since(begin), err
}

// follow commits on what others have committed.
func (h *host) follow() error {
	switch s, err := h.Poll(); {
	case err == nil:
		h.version = s.Version
	case errors.Is(err, repository.Undecided): // a writer died before it could say so
		if err := h.load(); err != nil {
			return err
		}
	default:
		return err
	}
	for {
		base := h.version
		_, err := h.commit() // a conflict brings the version that is there
		if !errors.Is(err, belfry.ErrConflict) || h.version == base {
			return err
		}
	}
}

// sealed returns when the last commit is marked as chosen, which happens after it
// was acknowledged: then the disk is quiet.
func (h *host) sealed() error {
	for {
		s, err := h.Poll()
		if err != nil && !errors.Is(err, repository.Undecided) {
			return err
		}
		if err == nil && s.Version == h.version {
			return nil
		}
	}
}
