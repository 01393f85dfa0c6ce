package repository_test

import (
	"errors"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

func TestMoveKeepsTheValueWhoeverCompletes(t *testing.T) {
	t.Parallel()
	for disks := 1; disks <= 3; disks++ {
		var images repositorytest.Images
		if err := repositorytest.CrashMove(uint64(disks), disks, &images); err != nil {
			t.Errorf("%d disks, image %d: %v", disks, images.Count, err)
		}
		if images.Count < 100 {
			t.Errorf("%d disks: only %d images", disks, images.Count)
		}
	}
}

func TestNothingFollowsTheDocumentThatMoves(t *testing.T) {
	t.Parallel()
	cfg := config(0, 0)
	cfg.Moving = func(doc []byte) bool { return string(doc) == "moving" }
	a := open(t, cfg, format(t, header(0), 0).Open())
	v := cas(t, a, load(t, a).Version, "moving", 2)
	if _, err := a.CAS(v, []byte("more"), repository.OpID{3}); !errors.Is(err, repository.Moved) {
		t.Errorf("got %v, want %v", err, repository.Moved)
	}
	if got := load(t, a); string(got.Document) != "moving" {
		t.Errorf("got %q; the last value can be loaded still", got.Document)
	}
}

// areas are places on one device that do not overlap.
func areas(number int64) repository.Layout {
	l := header(0).Layout
	step := number * (l.Used - repository.BlockSize)
	l.RecordOffset, l.PayloadOffset, l.Used = l.RecordOffset+step, l.PayloadOffset+step, l.Used+step
	return l
}

// settled is a host whose agent has run for long enough.
func settled(host int) repository.Config {
	cfg := config(host, byte(host))
	cfg.Settled = true
	return cfg
}

// inPlace is a device with room for three epochs, and the moves to the later ones.
func inPlace(t *testing.T) (*repositorytest.Disk, [2]repository.Move) {
	t.Helper()
	h := header(0)
	d := repositorytest.NewDisk(make([]byte, areas(2).Size()))
	c := config(0, 0)
	founder := repository.Founder{Node: c.Node, Incarnation: 1, Boot: c.Boot, Sign: c.Sign}
	if err := repository.Format(d.Open(), h, founder, []byte("one"), repository.OpID{1}); err != nil {
		t.Fatal(err)
	}
	var moves [2]repository.Move
	for i, doc := range []string{"two", "three"} {
		h.Epoch, h.Sequence, h.Disks, h.Layout = uint64(2+i), uint64(2+i), []repository.UUID{{byte(4 + i)}}, areas(int64(1+i))
		moves[i] = repository.Move{Headers: []repository.Header{h}, Document: []byte(doc), Generation: uint64(3 + 2*i)}
	}
	return d, moves
}

func complete(t *testing.T, cfg repository.Config, m repository.Move, d repository.Device) {
	t.Helper()
	if _, err := repository.Complete(cfg, m, d); err != nil {
		t.Fatal(err)
	}
}

func wantThree(t *testing.T, d repository.Device) {
	t.Helper()
	if got := load(t, open(t, config(0, 0), d)); string(got.Document) != "three" || got.Epoch != 3 || got.Generation != 5 {
		t.Errorf("got %q, epoch %d, generation %d", got.Document, got.Epoch, got.Generation)
	}
}

// One who has slept through two moves does not take the repository back.
func TestLateCompletionChangesNothing(t *testing.T) {
	t.Parallel()
	d, moves := inPlace(t)
	complete(t, settled(0), moves[0], d.Open())
	complete(t, settled(1), moves[1], d.Open())
	if _, err := repository.Complete(settled(0), moves[0], d.Open()); !errors.Is(err, repository.Moved) {
		t.Errorf("got %v, want %v", err, repository.Moved)
	}
	wantThree(t, d.Open())
}

// Also one who falls asleep before any of its calls, the next move being
// completed meanwhile.
func TestCompletionThatSleepsChangesNothing(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		d, moves := inPlace(t)
		calls := 0
		port := repositorytest.Before(d, func() {
			if calls++; calls != n {
				return
			}
			complete(t, settled(1), moves[0], d.Open())
			complete(t, settled(1), moves[1], d.Open())
		})
		_, err := repository.Complete(settled(0), moves[0], port)
		if calls < n {
			if err != nil || n < 15 {
				t.Errorf("%d calls without a sleep: %v", calls, err)
			}
			break
		}
		wantThree(t, d.Open())
	}
}

// The last of those who complete may come when others work on already.
func TestCompletionKeepsWhatCameAfterTheMove(t *testing.T) {
	t.Parallel()
	d, moves := inPlace(t)
	complete(t, settled(0), moves[0], d.Open())
	a := open(t, config(0, 0), d.Open())
	cas(t, a, load(t, a).Version, "after", 9)
	complete(t, settled(1), moves[0], d.Open())
	if got := load(t, a); string(got.Document) != "after" || got.Generation != 4 {
		t.Errorf("got %q, generation %d", got.Document, got.Generation)
	}
}

func TestMoveOntoTheOldAreasIsRefused(t *testing.T) {
	t.Parallel()
	d, moves := inPlace(t)
	h := moves[0].Headers[0]
	h.Layout = areas(0)
	moves[0].Headers[0] = h
	if _, err := repository.Complete(settled(0), moves[0], d.Open()); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("got %v, want %v", err, belfry.ErrUsage)
	}
	if got := load(t, open(t, config(0, 0), d.Open())); string(got.Document) != "one" {
		t.Errorf("got %q", got.Document)
	}
}

func TestCompletionSettlesAsWell(t *testing.T) {
	t.Parallel()
	d, moves := inPlace(t)
	if _, err := repository.Complete(config(1, 1), moves[0], d.Open()); !errors.Is(err, repository.Settling) {
		t.Errorf("got %v, want %v", err, repository.Settling)
	}
}

// A disk is written by a move only if it is reserved for it, or is a disk of this
// repository under the same UUID.
func TestAMoveWritesNoOtherDisk(t *testing.T) {
	t.Parallel()
	d, moves := inPlace(t)
	h := moves[0].Headers[0]
	reserve := func(d *repositorytest.Disk, disk repository.UUID) {
		t.Helper()
		if err := repository.Reserve(d.Open(), repository.Reservation(h.Cluster, disk, h.Layout, h.Created)); err != nil {
			t.Fatal(err)
		}
	}
	blank := repositorytest.NewDisk(make([]byte, areas(2).Size()))
	another := repositorytest.NewDisk(make([]byte, areas(2).Size()))
	reserve(another, repository.UUID{99})
	for name, wrong := range map[string]*repositorytest.Disk{
		"a disk of this repository with another UUID": d, "a blank one": blank, "one that is reserved for another move": another,
	} {
		before := string(wrong.Content())
		if _, err := repository.CompleteReserved(settled(0), moves[0], wrong.Open()); err == nil {
			t.Errorf("%s: it is moved to", name)
		}
		if string(wrong.Content()) != before {
			t.Errorf("%s: it is written", name)
		}
	}
	reserve(blank, h.Disk())
	if _, err := repository.CompleteReserved(settled(0), moves[0], blank.Open()); err != nil {
		t.Errorf("reserved: %v", err)
	}
	if got := load(t, open(t, config(0, 0), blank.Open())); string(got.Document) != "two" || got.Epoch != 2 {
		t.Errorf("got %q, epoch %d", got.Document, got.Epoch)
	}
	small := repositorytest.NewDisk(make([]byte, 1<<20))
	if err := repository.Reserve(small.Open(), repository.Reservation(h.Cluster, h.Disk(), repository.DefaultLayout(8, 1<<20), h.Created)); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("too small: %v", err)
	}
}

// A member that was away through a move finds it by itself, with nobody left to tell
// it and before anything else is committed.
func TestACompletedMoveIsFoundByWhoWasAway(t *testing.T) {
	t.Parallel()
	d, moves := inPlace(t)
	complete(t, settled(0), moves[0], d.Open())
	found, err := open(t, config(-1, 0), d.Open()).Poll()
	if err != nil || string(found.Document) != "two" || found.Epoch != 2 {
		t.Errorf("%q, epoch %d (%v)", found.Document, found.Epoch, err)
	}
}
