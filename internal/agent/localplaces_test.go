package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/belfry-ha/belfry/internal/repository"
)

// keepGenerations writes so many local copies, and returns what each was of.
func keepGenerations(t *testing.T, state string, n int) (all []repository.Version) {
	t.Helper()
	d := documentOf(t, documentTable())
	for range n {
		if len(all) > 0 {
			d = edited(t, d, documentTime, func(t *Table) { t.LastNumber++ })
		}
		data, err := repository.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		v := repository.Version{Repository: repository.UUID{0xd0}, Epoch: 1, Ballot: 7 << 16, Generation: d.Generation(), Digest: digestOf(data)}
		if err := writeCopy(state, v, data); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// A loss of power leaves of the file that people look at what the kernel had
// written by then; what is durable is in a place.
func TestTheNewestCopyOutlivesALossOfPower(t *testing.T) {
	t.Parallel()
	for _, left := range []string{"", "torn", "older"} {
		for n := 1; n <= 4; n++ {
			state := t.TempDir()
			all := keepGenerations(t, state, n)
			text := []byte(left)
			if left == "older" {
				var err error
				if text, err = os.ReadFile(copyOfGeneration(state, all[0].Generation)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(copyOf(state), text, 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := openDocument(state)
			if err != nil {
				t.Fatalf("%d generations, current is %q: %v", n, left, err)
			}
			if got := m.held.Load().Version; got != all[n-1] {
				t.Errorf("%d generations, current is %q: generation %d, want %d", n, left, got.Generation, all[n-1].Generation)
			}
		}
	}
}

// A place is written over. Wherever that ends, the generation before is whole in
// the other one, and the next is not written over that.
func TestAPlaceThatIsTornCostsNoGeneration(t *testing.T) {
	t.Parallel()
	for cut := 0; ; cut += placeBlock / 8 {
		state := t.TempDir()
		all := keepGenerations(t, state, 4)
		dir := filepath.Join(state, copyDir)
		newest := filepath.Join(dir, placeNames[1])
		if stalePlace(dir) == newest {
			newest = filepath.Join(dir, placeNames[0])
		}
		text, err := os.ReadFile(newest)
		if err != nil {
			t.Fatal(err)
		}
		if cut >= len(bytes.TrimRight(text, "\x00")) {
			break // all of it is written
		}
		for i := range text[cut:] { // another generation has lain there
			text[cut+i] ^= 1
		}
		if err := os.WriteFile(newest, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copyOf(state), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := openDocument(state)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if got := m.held.Load().Version; got != all[2] {
			t.Errorf("cut at %d: generation %d, want %d", cut, got.Generation, all[2].Generation)
		}
		if stalePlace(dir) != newest {
			t.Errorf("cut at %d: the next generation is written over the only whole one", cut)
		}
	}
}

// A document that has outgrown its places is kept as any other.
func TestADocumentOutgrowsItsPlaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var turns repository.Ballot
	for _, size := range []int{100, placeLeast - 1, 3 * placeLeast, 10 * placeLeast, 50} {
		for turn := range byte(3) {
			document := bytes.Repeat([]byte{'a' + turn}, size)
			turns++
			v := repository.Version{Repository: repository.UUID{1}, Epoch: 1, Ballot: turns, Generation: uint64(turns), Digest: digestOf(document)}
			path := stalePlace(dir)
			if err := keepInPlace(dir, copyText(v, document)); err != nil {
				t.Fatal(err)
			}
			got, text, err := checkCopy(path)
			if err != nil || got != v || !bytes.Equal(text, document) {
				t.Errorf("%d bytes: read %v, %d bytes, %v", size, got, len(text), err)
			}
		}
	}
}
