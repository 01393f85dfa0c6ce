package repository

import (
	"bytes"
	"errors"
	"testing"

	"github.com/belfry-ha/belfry"
)

var testValuePlace = ValuePlace{Repository: UUID{1}, Epoch: 2, Disk: UUID{5}, Limit: 2 * BlockSize}

func admitTester(signer belfry.NodeID, candidate []byte) (Verify, error) {
	if signer == testRecord().Writer || bytes.Contains(candidate, signer[:]) {
		return testVerify(), nil
	}
	return nil, belfry.ErrNotMember
}

func encodeValue(t testing.TB, at ValuePlace, r Record, doc []byte) []byte {
	t.Helper()
	value, err := EncodeValue(at, r, doc, testSign)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestAValueComesBackAsItWas(t *testing.T) {
	t.Parallel()
	r, doc := testRecord(), []byte("the document")
	found, err := DecodeValue(testValuePlace, encodeValue(t, testValuePlace, r, doc), admitTester)
	if err != nil {
		t.Fatal(err)
	}
	if string(found.Document) != string(doc) || found.Generation != r.Generation || found.Ballot != r.Accepted || found.Epoch != testValuePlace.Epoch ||
		found.Repository != testValuePlace.Repository || found.Previous != r.Previous || found.Op != r.Op || found.Writer != r.Writer {
		t.Errorf("got %+v of %+v", found, r)
	}
	for _, doc := range [][]byte{nil, make([]byte, testValuePlace.Limit+1)} {
		if _, err := EncodeValue(testValuePlace, r, doc, testSign); !errors.Is(err, belfry.ErrLimit) {
			t.Errorf("%d bytes: %v, want %v", len(doc), err, belfry.ErrLimit)
		}
	}
}

func TestEveryFlippedBitOfAValueIsRefused(t *testing.T) {
	t.Parallel()
	value := encodeValue(t, testValuePlace, testRecord(), []byte("the document"))
	verified := 0
	admit := func(signer belfry.NodeID, _ []byte) (Verify, error) {
		if signer != testRecord().Writer {
			return nil, belfry.ErrNotMember
		}
		return func(m, s []byte) bool { verified++; return testVerify()(m, s) }, nil
	}
	for bit := range 8 * len(value) {
		value[bit/8] ^= 1 << (bit % 8)
		if _, err := DecodeValue(testValuePlace, value, admit); !errors.Is(err, Damaged) {
			t.Fatalf("bit %d of byte %d: %v, want %v", bit%8, bit/8, err, Damaged)
		}
		value[bit/8] ^= 1 << (bit % 8)
	}
	if verified > 0 {
		t.Errorf("%d signatures were looked at; a checksum is cheaper", verified)
	}
}

// What is whole and signed, and is not a value of this place all the same.
func TestAValueOfAnotherPlaceIsRefused(t *testing.T) {
	t.Parallel()
	r, doc := testRecord(), []byte("the document")
	stranger := r
	stranger.Writer = belfry.NodeID{99}
	empty := Record{Sequence: 1, Promised: 1, Epoch: 2, Repository: UUID{1}, Disk: UUID{5}, Writer: r.Writer}
	forged := func(change func(*Record)) []byte { // by a member whose agent is at fault
		value := encodeValue(t, testValuePlace, r, doc)
		of, err := decodeRecord(value[:BlockSize], place{repository: UUID{1}, disk: UUID{5}, epoch: 2, slotSize: BlockSize})
		if err != nil {
			t.Fatal(err)
		}
		change(&of)
		return append(encodeRecord(t, of), doc...)
	}
	for _, c := range []struct {
		name  string
		value []byte
		want  error
	}{
		{"another repository", encodeValue(t, ValuePlace{UUID{2}, 2, UUID{5}, BlockSize}, r, doc), belfry.ErrUsage},
		{"another store", encodeValue(t, ValuePlace{UUID{1}, 2, UUID{6}, BlockSize}, r, doc), Regressed},
		{"a signer who does not count", encodeValue(t, testValuePlace, stranger, doc), Damaged},
		{"left when it moved here", encodeValue(t, ValuePlace{UUID{1}, 1, UUID{5}, BlockSize}, r, doc), belfry.ErrNotFound},
		{"moved on", encodeValue(t, ValuePlace{UUID{1}, 3, UUID{5}, BlockSize}, r, doc), Moved},
		{"too long", encodeValue(t, ValuePlace{UUID{1}, 2, UUID{5}, 3 * BlockSize}, r, make([]byte, 3*BlockSize)), Damaged},
		{"no document", encodeRecord(t, empty), Damaged},
		{"no value", append(encodeRecord(t, empty), doc...), Damaged},
		{"not committed", forged(func(r *Record) { r.Chosen = false }), Damaged},
		{"a second payload slot", forged(func(r *Record) { r.Slot = 1 }), Damaged},
		{"a host slot", forged(func(r *Record) { r.Host = 1 }), Damaged},
		{"half of it", encodeValue(t, testValuePlace, r, doc)[:100], Damaged},
		{"something after it", append(encodeValue(t, testValuePlace, r, doc), 0), Damaged},
		{"nothing", nil, Damaged},
	} {
		if _, err := DecodeValue(testValuePlace, c.value, admitTester); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// A node that only the document lists has signed it.
func TestAValueMayListItsSigner(t *testing.T) {
	t.Parallel()
	r := testRecord()
	r.Writer = belfry.NodeID{99}
	if _, err := DecodeValue(testValuePlace, encodeValue(t, testValuePlace, r, r.Writer[:]), admitTester); err != nil {
		t.Error(err)
	}
}

func FuzzValue(f *testing.F) {
	f.Add(encodeValue(f, testValuePlace, testRecord(), []byte("the document")))
	f.Fuzz(func(t *testing.T, value []byte) {
		found, err := DecodeValue(testValuePlace, value, func(belfry.NodeID, []byte) (Verify, error) {
			return func([]byte, []byte) bool { return true }, nil
		})
		if err == nil && string(found.Document) != string(value[BlockSize:]) {
			t.Errorf("%d bytes of %d", len(found.Document), len(value))
		}
	})
}
