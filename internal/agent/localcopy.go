package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

// The local copy of the document: the newest generation, which the agent runs
// from, and the last ones by their numbers (of which the newest may be missing or
// torn after a loss of power; the newest of all is in a place, see below). A copy is one line that says which
// version it is, and then the document's own bytes.
const (
	copyDir      = "config"  // in the state directory
	currentCopy  = "current" // in it
	copiesKept   = 100
	copyMagic    = "belfry-local-copy-1"
	lostCopy     = ".lost"   // behind the number of one that the members did not have when they took over
	removedCopy  = "removed" // in it: members say that this node is none any more
	maxCopyBytes = repository.MaxDocument + 1<<10
)

func copyOf(state string) string { return filepath.Join(state, copyDir, currentCopy) }

func copyOfGeneration(state string, g uint64) string {
	return filepath.Join(state, copyDir, strconv.FormatUint(g, 10))
}

// writeCopy keeps a generation, whole or not at all, and forgets the oldest. It
// is on the disk when this returns.
func writeCopy(state string, v repository.Version, document []byte) error {
	dir := filepath.Join(state, copyDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("local copy: %w", err)
	}
	data := copyText(v, document)
	// These are for people, and for a rollback: the kernel writes them when it likes.
	if err := replaceUnsynced(copyOf(state), data); err != nil {
		return fmt.Errorf("local copy: %w", err)
	}
	numbered := copyOfGeneration(state, v.Generation)
	if was, err := readCopy(numbered); err == nil && was.Epoch < v.Epoch { // it was lost, and another one has its number
		if err := os.Rename(numbered, numbered+lostCopy); err != nil {
			return fmt.Errorf("local copy: %w", err)
		}
	}
	if err := os.Remove(numbered); err != nil && !errors.Is(err, os.ErrNotExist) { // of a try that was cut off
		return fmt.Errorf("local copy: %w", err)
	}
	if err := os.Link(copyOf(state), numbered); err != nil {
		return fmt.Errorf("local copy: %w", err)
	}
	pruneCopies(dir)
	if err := keepInPlace(dir, data); err != nil {
		return fmt.Errorf("local copy: %w", err)
	}
	return nil
}

// copyText is what a copy holds.
func copyText(v repository.Version, document []byte) []byte {
	return append(fmt.Appendf(nil, "%s %s %d %d %d %s\n", copyMagic, v.Repository, v.Epoch, uint64(v.Ballot), v.Generation, v.Digest), document...)
}

// replaceUnsynced makes a file hold data for all that read it while this machine
// runs. After a loss of power it may hold what it had, or be torn.
func replaceUnsynced(name string, data []byte) error {
	temp := name + ".new" // one process writes here
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		_ = os.Remove(temp) // the first error tells
	}
	return err
}

// pruneCopies leaves the newest; what can not be removed is removed later.
func pruneCopies(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var generations []uint64
	for _, e := range entries {
		if g, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
			generations = append(generations, g)
		}
	}
	slices.Sort(generations)
	for _, g := range generations[:max(0, len(generations)-copiesKept)] {
		_ = os.Remove(filepath.Join(dir, strconv.FormatUint(g, 10)))
	}
}

// readCopy reads the copy of one generation. ErrNotExist of the file stays
// visible.
func readCopy(path string) (repository.Held, error) {
	v, document, err := checkCopy(path)
	if err != nil {
		return repository.Held{}, err
	}
	return repository.HeldOf(v, document)
}

func parseVersion(line string) (v repository.Version, err error) {
	fields := strings.Fields(line)
	if len(fields) != 6 || fields[0] != copyMagic {
		return v, fmt.Errorf("want %s, repository, epoch, ballot, generation and SHA-256", copyMagic)
	}
	var numbers [3]uint64
	for i := range numbers {
		if numbers[i], err = strconv.ParseUint(fields[2+i], 10, 64); err != nil {
			return v, err
		}
	}
	v.Epoch, v.Ballot, v.Generation = numbers[0], repository.Ballot(numbers[1]), numbers[2]
	if err := v.Repository.UnmarshalText([]byte(fields[1])); err != nil {
		return v, err
	}
	digest, err := hex.DecodeString(fields[5])
	if err != nil || len(digest) != len(v.Digest) {
		return v, fmt.Errorf("SHA-256 %q", fields[5])
	}
	copy(v.Digest[:], digest)
	return v, nil
}

// keepRemoved keeps the word of the members that this node is none any more, for
// a node that can not read the generation that says so.
func keepRemoved(state string, generation uint64) error {
	return security.ReplaceFile(filepath.Join(state, copyDir, removedCopy), []byte(strconv.FormatUint(generation, 10)+"\n"))
}

// keptRemoved is the generation of that word; 0: there is none.
func keptRemoved(state string) uint64 {
	data, err := os.ReadFile(filepath.Join(state, copyDir, removedCopy))
	if err != nil {
		return 0
	}
	g, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0
	}
	return g
}
