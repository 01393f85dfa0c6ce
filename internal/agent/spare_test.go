package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/repository"
)

// TestAFirstChangeFindsTheRepositoryUnderAnotherPath: it is not refused because what
// was open has strayed.
func TestAFirstChangeFindsTheRepositoryUnderAnotherPath(t *testing.T) { // C2
	t.Parallel()
	m := machines(t, 2)
	path := formedOnFile(t, m)
	m[0].waitMode(t, repository.Ready)
	if err := os.Rename(path, filepath.Join(filepath.Dir(path), "again.belfry")); err != nil {
		t.Fatal(err)
	}
	if _, err := m[0].dial(t).SetConfig(t.Context(), "tunables.node_timeout", "7s", false); err != nil {
		t.Fatal(err)
	}
}

// TestADiskThatAMemberReadsIsNotReplaced: the path to it is broken at one node only.
func TestADiskThatAMemberReadsIsNotReplaced(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	path := formedOnFile(t, m)
	for _, one := range m {
		one.waitMode(t, repository.Ready)
	}
	a := m[0].agent
	spare := filepath.Join(filepath.Dir(path), "spare.belfry")
	done, err := a.Relocate(t.Context(), api.Relocation{Mode: api.RelocateSpare, To: []string{spare}}, "test")
	if err != nil || len(done.Disks) != 1 || done.Disks[0].Path != spare {
		t.Fatalf("spares %v (%v); want %s", done.Disks, err, spare)
	}
	held := a.storage.held()
	r := &relocator{Agent: a, held: held}
	_, err = r.chooseSpare(t.Context(), held.Document.Repository.Areas.Disks[0])
	if !errors.Is(err, belfry.ErrRestricted) || !strings.Contains(err.Error(), "reads disk") {
		t.Errorf("a disk that all members read is replaced: %v", err)
	}
}
