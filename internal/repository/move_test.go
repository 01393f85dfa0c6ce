package repository

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// Every byte of a move follows from the document that begins it.
func TestAMoveFollowsFromItsDocument(t *testing.T) {
	t.Parallel()
	from := testDocument()
	m, err := MoveOf(from)
	if err != nil {
		t.Fatal(err)
	}
	again, err := MoveOf(decodeDocument(t, encodeDocument(t, from)))
	if diff := cmp.Diff(m, again); err != nil || diff != "" {
		t.Errorf("another member does something else: %v %s", err, diff)
	}
	h := m.Headers[0]
	if len(m.Headers) != 1 || h.Epoch != 3 || h.Sequence != 3 || h.Repository != from.Repository.UUID || h.Cluster != from.Cluster.UUID ||
		h.Disk() != from.Moving.Areas.Disks[0] || h.Layout != from.Moving.Areas.Layout() || h.CA != Digest(sha256.Sum256(from.Security.CA[0])) {
		t.Errorf("headers %+v", m.Headers)
	}
	if _, err := EncodeHeader(h); err != nil {
		t.Error(err)
	}
	done, err := Completed(from)
	if err != nil || !bytes.Equal(m.Document, encodeDocument(t, done)) || m.Generation != 9 || m.Previous != digestOf(encodeDocument(t, from)) || m.Op != from.Moving.Op {
		t.Errorf("generation %d after %s: %v", m.Generation, m.Previous, err)
	}
	from.Moving.Kind, from.Moving.Areas, from.Moving.Etcd = KindEtcd, nil, storageInEtcd().Etcd
	if m, err = MoveOf(from); err != nil || len(m.Headers) != 0 || len(m.Document) == 0 {
		t.Errorf("to etcd: %d headers, %d bytes, %v", len(m.Headers), len(m.Document), err)
	}
	if _, err := MoveOf(settled()); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("of a document that stays: %v", err)
	}
	if _, err := MoveTo(testDocument(), KindDisk, nil, nil, OpID{}); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("a second move: %v", err)
	}
}

// The next areas lie beside the present ones, and there is always a way back.
func TestTheNextAreasLieBesideThePresentOnes(t *testing.T) {
	t.Parallel()
	const slot = 64 << 10
	now := DefaultLayout(8, slot)
	size := 3*now.Used + BlockSize
	for move := range 6 {
		next, err := NextLayout(now, size, 4000)
		if err != nil {
			t.Fatalf("move %d: %v", move, err)
		}
		if next.RecordOffset < now.Used && now.RecordOffset < next.Used {
			t.Fatalf("move %d: %+v overlaps %+v", move, next, now)
		}
		if err := next.check(size); err != nil {
			t.Fatalf("move %d: %v", move, err)
		}
		if next.Hosts != now.Hosts || next.SlotSize < 8000 {
			t.Fatalf("move %d: %+v", move, next)
		}
		now = next
	}
	if _, err := NextLayout(now, now.Size(), 4000); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("without room: %v", err)
	}
	if _, err := NextLayout(DefaultLayout(8, slot), DefaultLayout(8, slot).Size()+600<<10, slot/2+1); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("with room for a smaller document only: %v", err)
	}
}
