package repository_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// slotsConfig is a host of three; a document that begins with "3" gives the
// third slot.
func slotsConfig(host byte) repository.Config {
	cfg := config(int(host), host)
	cfg.Admit = func(signer belfry.NodeID, _ []byte) (repository.Verify, error) {
		return member(signer, signer[:])
	}
	cfg.Slots = func(doc []byte) int {
		if strings.HasPrefix(string(doc), "3") {
			return 3
		}
		return 2
	}
	return cfg
}

// A host may have its slot from a document that the claimer has not read yet,
// and write just before the claimer looks.
func TestClaimSeesHostsThatAreNewToIt(t *testing.T) {
	t.Parallel()
	h := header(0)
	h.Layout = repository.CompactLayout(3, repository.BlockSize, (1+2*3)*repository.BlockSize)
	d := format(t, h, 0)
	var then func()
	a := open(t, slotsConfig(0), repositorytest.Before(d, func() {
		if call := then; call != nil {
			call()
		}
	}))
	b := open(t, slotsConfig(1), d.Open())
	base := load(t, a) // two slots
	cas(t, b, base.Version, "3 slots", 2)
	calls := 0
	then = func() {
		if calls++; calls == 2 { // the claim has read, and is about to write
			c := open(t, slotsConfig(2), d.Open())
			cas(t, c, load(t, c).Version, "3 of the new host", 3)
		}
	}
	if found, err := a.Claim(); !errors.Is(err, repository.Preempted) {
		t.Errorf("claimed on %q: %v, want %v", found.Document, err, repository.Preempted)
	}
	then = nil
	if got := load(t, a); string(got.Document) != "3 of the new host" {
		t.Errorf("got %q", got.Document)
	}
}

// A commit costs the records that can have a writer, not all of them.
func TestCommitReadsTheSlotsThatWereGiven(t *testing.T) {
	t.Parallel()
	h := header(0)
	h.Layout = repository.CompactLayout(64, repository.BlockSize, 129*repository.BlockSize)
	reads := &counter{Device: format(t, h, 0).Open()}
	a := open(t, slotsConfig(0), reads)
	base := load(t, a)
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	reads.bytes = 0
	cas(t, a, base.Version, "3 slots", 2)
	const header, document = 1, 1
	if want := (header + 2*2 + document) * repository.BlockSize; reads.bytes != want {
		t.Errorf("a commit after a claim reads %d bytes, want %d", reads.bytes, want)
	}
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	reads.bytes = 0
	if _, err := a.Poll(); err != nil {
		t.Fatal(err)
	}
	if want := (header + 2*64 + document) * repository.BlockSize; reads.bytes != want {
		t.Errorf("a poll reads %d bytes, want %d: any host may have written", reads.bytes, want)
	}
}

// counter counts what is read of a device.
type counter struct {
	repository.Device
	bytes int
}

func (c *counter) ReadAt(p []byte, off int64) error {
	c.bytes += len(p)
	return c.Device.ReadAt(p, off)
}
