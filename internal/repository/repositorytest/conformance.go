package repositorytest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// First is the document that a repository under test begins with.
func First() []byte { return first() }

// Holds is for the backend's configuration: whether a document of these tests
// has that operation.
func Holds(doc []byte, op repository.OpID) bool { return holds(doc, op) }

// New makes a repository with [First] as generation 1, and returns what opens
// it as one of two hosts, 0 and 1. Each call of that is one backend, and stands
// for a node of its own.
type New func(t *testing.T) (open func(host int) repository.Backend)

// Run holds a backend against what all of them promise.
func Run(t *testing.T, fresh New) {
	t.Helper()
	for _, c := range []struct {
		name string
		why  string // printed on failure
		test func(t *testing.T, a, b repository.Backend)
	}{
		{"BeginsWithGenerationOne", "both hosts load what was founded", beginsWithOne},
		{"LoadSeesWhatWasAcknowledged", "Load is linearizable, on whichever host", loadSees},
		{"StaleBaseIsAConflict", "of two updates on one base only one happens", staleBase},
		{"StaleBaseThatBothHaveReadIsAConflict", "a host must not write on what it remembers", staleKnown},
		{"SameUpdateTwiceHappensOnce", "a retry must not undo or repeat", sameTwice},
		{"SameUpdateAfterOthersHappensOnce", "a retry may come late", sameLate},
		{"TooLongIsRefused", "ErrLimit before anything is written", tooLong},
		{"DocumentsBelongToTheCaller", "what a caller does with its copy is not seen", ownCopy},
		{"HostsTakeTurns", "each generation follows the one before", takeTurns},
		{"PollNeverGoesBack", "Poll may lag, and shows committed values only", pollLags},
		{"HintsNameWhatWasCommitted", "a backend that gives hints wakes the other host without a poll", hintsWake},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Log("why: " + c.why)
				}
			})
			open := fresh(t)
			backends := [2]repository.Backend{open(0), open(1)}
			c.test(t, backends[0], backends[1])
			for _, b := range backends {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func mustLoad(t *testing.T, b repository.Backend) repository.Snapshot {
	t.Helper()
	found, err := b.Load()
	if err != nil {
		t.Fatal(err)
	}
	if found.Digest != sha256.Sum256(found.Document) {
		t.Fatalf("generation %d: the digest is not that of the document", found.Generation)
	}
	return found
}

func mustCAS(t *testing.T, b repository.Backend, base repository.Snapshot, op repository.OpID) []byte {
	t.Helper()
	doc := appendOp(base.Document, op)
	v, err := b.CAS(base.Version, doc, op)
	if err != nil {
		t.Fatal(err)
	}
	if v.Generation != base.Generation+1 || v.Digest != sha256.Sum256(doc) {
		t.Fatalf("acknowledged is generation %d, %v; want %d and the digest of the document", v.Generation, v.Digest, base.Generation+1)
	}
	return doc
}

func wantDocument(t *testing.T, b repository.Backend, want []byte) repository.Snapshot {
	t.Helper()
	got := mustLoad(t, b)
	if diff := cmp.Diff(want, got.Document); diff != "" {
		t.Fatalf("document (-want +got):\n%s", diff)
	}
	return got
}

func beginsWithOne(t *testing.T, a, b repository.Backend) {
	for _, backend := range []repository.Backend{a, b} {
		if got := wantDocument(t, backend, first()); got.Generation != 1 || got.Previous != (repository.Digest{}) {
			t.Errorf("generation %d after %v, want 1 after nothing", got.Generation, got.Previous)
		}
	}
}

func loadSees(t *testing.T, a, b repository.Backend) {
	base := mustLoad(t, a)
	doc := mustCAS(t, a, base, opID(1, 1))
	got := wantDocument(t, b, doc)
	if got.Previous != base.Digest || got.Op != opID(1, 1) {
		t.Errorf("follows %v by %x, want %v by %x", got.Previous, got.Op, base.Digest, opID(1, 1))
	}
	wantDocument(t, a, doc)
}

func staleBase(t *testing.T, a, b repository.Backend) {
	base := mustLoad(t, a)
	doc := mustCAS(t, a, base, opID(1, 1))
	if _, err := b.CAS(base.Version, appendOp(base.Document, opID(2, 1)), opID(2, 1)); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("second update of one base: %v, want %v", err, belfry.ErrConflict)
	}
	wantDocument(t, a, doc)
}

func staleKnown(t *testing.T, a, b repository.Backend) {
	base := mustLoad(t, a)
	wantDocument(t, b, first())
	doc := mustCAS(t, a, base, opID(1, 1))
	if _, err := b.CAS(base.Version, appendOp(base.Document, opID(2, 1)), opID(2, 1)); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("second update of one base: %v, want %v", err, belfry.ErrConflict)
	}
	wantDocument(t, a, doc)
	wantDocument(t, b, doc)
}

func sameTwice(t *testing.T, a, b repository.Backend) {
	base := mustLoad(t, a)
	doc := mustCAS(t, a, base, opID(1, 1))
	if _, err := a.CAS(base.Version, doc, opID(1, 1)); err != nil {
		t.Errorf("the same update again: %v", err)
	}
	if got := wantDocument(t, b, doc); got.Generation != 2 {
		t.Errorf("generation %d, want 2", got.Generation)
	}
}

func sameLate(t *testing.T, a, b repository.Backend) {
	base := mustLoad(t, a)
	doc := mustCAS(t, a, base, opID(1, 1))
	later := mustCAS(t, b, mustLoad(t, b), opID(2, 1))
	if _, err := a.CAS(base.Version, doc, opID(1, 1)); err != nil {
		t.Errorf("the same update after another one: %v", err)
	}
	wantDocument(t, b, later)
}

func tooLong(t *testing.T, a, _ repository.Backend) {
	base := mustLoad(t, a)
	doc := make([]byte, repository.MaxSlotSize+1)
	if _, err := a.CAS(base.Version, doc, opID(1, 1)); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("a document of %d bytes: %v, want %v", len(doc), err, belfry.ErrLimit)
	}
	wantDocument(t, a, first())
}

func ownCopy(t *testing.T, a, b repository.Backend) {
	got := mustLoad(t, a)
	clear(got.Document)
	base := wantDocument(t, a, first())
	doc := appendOp(base.Document, opID(1, 1))
	want := slices.Clone(doc)
	if _, err := a.CAS(base.Version, doc, opID(1, 1)); err != nil {
		t.Fatal(err)
	}
	clear(doc)
	wantDocument(t, a, want)
	wantDocument(t, b, want)
}

func takeTurns(t *testing.T, a, b repository.Backend) {
	want := first()
	for i := range 20 {
		backend := []repository.Backend{a, b}[i%2]
		base := wantDocument(t, backend, want)
		want = mustCAS(t, backend, base, opID(1+i%2, i))
	}
	wantDocument(t, a, want)
}

// hintLimit is how long a hint may take while members of the backend fail.
const hintLimit = 30 * time.Second

func hintsWake(t *testing.T, a, b repository.Backend) {
	if b.Hints() == nil {
		return // it may have none
	}
	base := mustLoad(t, a)
	doc := mustCAS(t, a, base, opID(1, 1))
	limit := time.After(hintLimit)
	for {
		select {
		case hint := <-b.Hints():
			if hint.Generation == base.Generation+1 && hint.Digest == sha256.Sum256(doc) {
				return
			}
		case <-limit:
			t.Fatalf("no hint of generation %d within %s", base.Generation+1, hintLimit)
		}
	}
}

func pollLags(t *testing.T, a, b repository.Backend) {
	final := first()
	length := 0
	var polled [][]byte
	for i := range 10 {
		final = mustCAS(t, a, mustLoad(t, a), opID(1, i+1))
		got, err := b.Poll()
		if errors.Is(err, repository.Undecided) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Document) < length {
			t.Errorf("polled generation %d after a later one", got.Generation)
		}
		length = len(got.Document)
		polled = append(polled, got.Document)
	}
	for _, doc := range polled {
		if !bytes.HasPrefix(final, doc) {
			t.Errorf("polled %d bytes that are not on the way to the final %d", len(doc), len(final))
		}
	}
}
