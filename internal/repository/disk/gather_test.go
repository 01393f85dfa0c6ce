package disk

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/repository"
)

// What is read together is what lies at each place, in the order that was asked
// for, also where a part is large enough for memory of another kind.
func TestSpansAreReadTogether(t *testing.T) {
	t.Parallel()
	l := repository.DefaultLayout(64, 256<<10)
	path := newFileIn(t, memory(t), l)
	d, err := Open(path, Options{Deadline: patient})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	spans := []repository.Span{{Off: l.Payload(7, 1), Len: repository.BlockSize}, {Off: l.Payload(9, 0), Len: 2 * hugeFrom}, {Off: l.Payload(8, 0), Len: hugeFrom / 2}}
	for round := range byte(3) { // the memory of the round before comes again
		for i, s := range spans {
			if err := d.WriteAt(bytes.Repeat([]byte{round, byte(i)}, s.Len/2), s.Off); err != nil {
				t.Fatal(err)
			}
		}
		var seen []int
		err := d.Gather(spans, func(i int, p []byte) {
			seen = append(seen, i)
			if !bytes.Equal(p, bytes.Repeat([]byte{round, byte(i)}, spans[i].Len/2)) {
				t.Errorf("span %d is not what was written in round %d", i, round)
			}
		})
		if err != nil || !slices.Equal(seen, []int{0, 1, 2}) {
			t.Errorf("error %v, spans %v; want each once, in order", err, seen)
		}
	}
}

// Nothing is seen of a reading of which a part has failed.
func TestASpanThatFailsIsAnErrorOfAll(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 3; at++ {
		d, f := newFaulty(t)
		f.fail(at, unix.EIO, false)
		spans := []repository.Span{{Off: 0, Len: repository.BlockSize}, {Off: repository.BlockSize, Len: repository.BlockSize}, {Off: 0, Len: 2 * repository.BlockSize}}
		err := d.Gather(spans, func(int, []byte) { t.Errorf("read %d failed, and something was seen", at) })
		if !errors.Is(err, unix.EIO) || d.Suspect() == nil {
			t.Errorf("read %d failed: error %v, suspect %v", at, err, d.Suspect())
		}
	}
}
