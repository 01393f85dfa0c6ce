package disk

import (
	"errors"
	"os"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// While an agent has a slot, whichever it is, nothing is repaired or wiped.
func TestWhatIsInUseIsNeitherRepairedNorWiped(t *testing.T) {
	t.Parallel()
	for _, host := range []int{0, small().Hosts - 1} {
		path := newFile(t, small())
		h := newHost(t, hostConfig(path, host, 2))
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, work := range map[string]func() error{
			"repair": func() error { _, err := Repair(path, nil); return err },
			"wipe":   func() error { return Wipe(path) },
		} {
			err := work()
			if !errors.Is(err, errInUse) || !errors.Is(err, belfry.ErrExist) {
				t.Errorf("%s while host %d works: %v, want %v", name, host, err, errInUse)
			}
			wantHelpful(t, err, path)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != string(was) {
			t.Errorf("it was written to (%v)", err)
		}
		if _, err := h.Load(); err != nil {
			t.Error(err)
		}
	}
}

// Examining takes no lock, so that an agent may start meanwhile, and needs no
// right to write.
func TestExaminingIsReadOnly(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	h := newHost(t, hostConfig(path, 0, 2))
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	s, err := Examine(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Newest < 0 || string(s.Raw) != string(repositorytest.First()) {
		t.Errorf("newest is %d, document %x", s.Newest, s.Raw)
	}
	if doc, err := Document(path, s.Records[s.Newest].Record.Payload); err != nil || string(doc) != string(repositorytest.First()) {
		t.Errorf("document %x, %v", doc, err)
	}
	if doc, err := Document(path, repository.Digest{1}); err != nil || doc != nil {
		t.Errorf("a document that is not there: %x, %v", doc, err)
	}
	if _, err := h.Load(); err != nil {
		t.Error(err)
	}
}

// The error has the operation and the path, whatever step found it.
func TestWhatIsNoRepositoryIsNamedOnce(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	if err := Wipe(path); err != nil {
		t.Fatal(err)
	}
	_, err := Examine(path)
	if !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("got %v, want %v", err, belfry.ErrNotFound)
	}
	want := "repository.disk.examine: " + path + ": not found: no boot record; name a device that `belfry init` has formatted"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
