package repository_test

import (
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// remembering verifies each signature once.
func remembering() func(belfry.NodeID, []byte) (repository.Verify, error) {
	known := map[string]bool{}
	return func(signer belfry.NodeID, doc []byte) (repository.Verify, error) {
		verify, err := member(signer, doc)
		return func(m, signature []byte) bool {
			id := string(signer[:]) + string(m) + string(signature)
			ok, found := known[id]
			if !found {
				ok = verify(m, signature)
				known[id] = ok
			}
			return ok
		}, err
	}
}

// free are the payload slots that no record points at: what they hold is no value.
func free(d *repositorytest.Disk, l repository.Layout) func(bit int64) bool {
	return func(bit int64) bool {
		for host := range l.Hosts {
			for slot := range 2 {
				if off := l.Payload(host, slot); bit/8 >= off && bit/8 < off+l.SlotSize {
					return d.Content()[l.Record(host, 0)+112] != byte(slot)
				}
			}
		}
		return false
	}
}

// Every bit of what is in use of an image: 40 KiB, the records and documents of two hosts.
func TestEveryFlippedBitOfAnImageIsDetected(t *testing.T) {
	t.Parallel()
	h := header(0)
	h.Layout = repository.CompactLayout(hosts, 2*repository.BlockSize, (1+2*hosts)*repository.BlockSize)
	d := format(t, h, 0)
	a, b := open(t, config(0, 0), d.Open()), open(t, config(1, 1), d.Open())
	var v repository.Version
	for i, s := range []*repository.Store{a, b, b, a, a} {
		v = cas(t, s, load(t, s).Version, strings.Repeat("x", int(h.Layout.SlotSize)-i), byte(i+2))
		if err := s.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	if problems := repository.Check(d.Open()); len(problems) > 0 {
		t.Fatalf("before any bit is flipped: %v", problems)
	}
	cfg := config(-1, 5)
	cfg.Admit = remembering()
	isFree := free(d, h.Layout)
	flipped, step := 0, int64(flipStep)
	if testing.Short() {
		step = 61
	}
	for bit := int64(0); bit < int64(len(d.Content()))*8; bit += step {
		if isFree(bit) {
			continue
		}
		flipped++
		d.Flip(bit)
		if s, err := repository.Open(cfg, d.Open()); err == nil {
			found, err := s.Poll()
			if err == nil && found.Version != v && !found.Before(v) {
				t.Fatalf("bit %d: %+v was taken for a value", bit, found.Version)
			}
		}
		if len(repository.Check(d.Open())) == 0 {
			t.Fatalf("bit %d is not detected", bit)
		}
		d.Flip(bit)
	}
	if want := int64(36 << 13); int64(flipped)*step < want {
		t.Errorf("%d bits, want %d", int64(flipped)*step, want)
	}
}
