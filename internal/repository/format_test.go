package repository

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var testKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func testSign(m []byte) []byte { return ed25519.Sign(testKey, m) }

func testVerify() Verify { return VerifyKey(testKey.Public().(ed25519.PublicKey)) }

func testHeader() Header {
	return Header{
		Repository: UUID{1}, Cluster: belfry.ClusterID{2}, Epoch: 3, Sequence: 4, Index: 1, Disks: []UUID{{5}, {6}},
		Layout: DefaultLayout(64, 1<<20), Created: time.Unix(1_700_000_000, 0).UTC(), Label: "Köln", CA: Digest{8},
	}
}

func testRecord() Record {
	return Record{
		Repository: UUID{1}, Disk: UUID{5}, Epoch: 3, Host: 9, Copy: 1, Chosen: true, Writer: belfry.NodeID{10}, Incarnation: 11,
		Sequence: 12, Promised: 14 << 16, Accepted: 13 << 16, Generation: 15, Slot: 1, Length: 17, Payload: Digest{18},
		Previous: Digest{19}, Op: OpID{20}, Boot: UUID{21},
	}
}

var testPlace = place{repository: UUID{1}, disk: UUID{5}, epoch: 3, host: 9, copy: 1, slotSize: BlockSize}

func encodeHeader(t testing.TB, h Header) []byte {
	t.Helper()
	block, err := EncodeHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

func encodeRecord(t testing.TB, r Record) []byte {
	t.Helper()
	block, err := EncodeRecord(r, testSign)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// golden is the block as the file says it, zeros left out.
func golden(block []byte) string {
	var out strings.Builder
	for off := 0; off < len(block); off += 16 {
		if line := block[off : off+16]; !allZero(line) {
			out.WriteString(hex.EncodeToString([]byte{byte(off >> 8), byte(off)}) + ": " + hex.EncodeToString(line) + "\n")
		}
	}
	return out.String()
}

// The format is a promise: these files are never rewritten.
func TestBytesOnDiskStayAsTheyAre(t *testing.T) {
	t.Parallel()
	for name, block := range map[string][]byte{"header": encodeHeader(t, testHeader()), "record": encodeRecord(t, testRecord())} {
		want, err := os.ReadFile(filepath.Join("testdata", name+".golden"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), golden(block)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestHeaderSaysWhatWasWritten(t *testing.T) {
	t.Parallel()
	want := testHeader()
	got, err := DecodeHeader(encodeHeader(t, want), want.Layout.Size())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := DecodeHeader(encodeHeader(t, want), want.Layout.Size()-BlockSize); err == nil {
		t.Error("a header whose areas end after the device was taken")
	}
}

func TestRecordSaysWhatWasWritten(t *testing.T) {
	t.Parallel()
	block := encodeRecord(t, testRecord())
	got, err := decodeRecord(block, testPlace)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testRecord(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !verified(block, testVerify()) {
		t.Error("the signature does not verify")
	}
}

// A valid record at another place was misdirected, or is a copy of a disk.
func TestRecordIsOfItsPlaceOnly(t *testing.T) {
	t.Parallel()
	block := encodeRecord(t, testRecord())
	for name, move := range map[string]func(*place){
		"repository": func(p *place) { p.repository = UUID{99} },
		"disk":       func(p *place) { p.disk = UUID{99} },
		"epoch":      func(p *place) { p.epoch = 4 },
		"host":       func(p *place) { p.host = 8 },
		"copy":       func(p *place) { p.copy = 0 },
		"slot size":  func(p *place) { p.slotSize = 16 },
	} {
		at := testPlace
		move(&at)
		if _, err := decodeRecord(block, at); !errors.Is(err, errBlock) {
			t.Errorf("another %s: got %v, want %v", name, err, errBlock)
		}
	}
}

func TestEveryFlippedBitOfABlockIsRefused(t *testing.T) {
	t.Parallel()
	header, record := encodeHeader(t, testHeader()), encodeRecord(t, testRecord())
	for bit := range BlockSize * 8 {
		header[bit/8] ^= 1 << (bit % 8)
		if _, err := DecodeHeader(header, -1); err == nil {
			t.Errorf("header with bit %d flipped was taken", bit)
		}
		header[bit/8] ^= 1 << (bit % 8)
		record[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeRecord(record, testPlace); !errors.Is(err, errBlock) {
			t.Errorf("record with bit %d flipped: %v", bit, err)
		}
		record[bit/8] ^= 1 << (bit % 8)
	}
}

// The checksum can be made to fit; what it covers is checked all the same.
func TestBytesThatNoFieldUsesAreZero(t *testing.T) {
	t.Parallel()
	for _, off := range []int{122, 127, 224, 2000, signatureOffset - 1} {
		block := encodeRecord(t, testRecord())
		block[off] = 1
		putCRC(block)
		if _, err := decodeRecord(block, testPlace); !errors.Is(err, errBlock) {
			t.Errorf("record with byte %d set: %v", off, err)
		}
	}
	for _, off := range []int{288, 2000, crcOffset - 1} {
		block := encodeHeader(t, testHeader())
		block[off] = 1
		putCRC(block)
		if _, err := DecodeHeader(block, -1); !errors.Is(err, errBlock) {
			t.Errorf("header with byte %d set: %v", off, err)
		}
	}
}

// With a checksum that fits, only the signature tells.
func TestSignatureCoversTheRecord(t *testing.T) {
	t.Parallel()
	block := encodeRecord(t, testRecord())
	for off := range crcOffset {
		block[off] ^= 0x80
		if verified(block, testVerify()) {
			t.Errorf("changed at byte %d, the signature verifies", off)
		}
		block[off] ^= 0x80
	}
}

func TestNewerFormatsAreToldApart(t *testing.T) {
	t.Parallel()
	h := testHeader()
	h.Incompat = 1
	if _, err := DecodeHeader(encodeHeader(t, h), -1); !errors.Is(err, belfry.ErrUnsupported) {
		t.Errorf("incompatible feature: %v, want %v", err, belfry.ErrUnsupported)
	}
	h = testHeader()
	h.ReadOnlyCompat = 1
	got, err := DecodeHeader(encodeHeader(t, h), -1)
	if err != nil || got.Writable() {
		t.Errorf("feature that only readers may ignore: %v, writable %v", err, got.Writable())
	}
	block := encodeHeader(t, testHeader())
	block[8] = 2
	putCRC(block)
	if _, err := DecodeHeader(block, -1); !errors.Is(err, belfry.ErrUnsupported) {
		t.Errorf("major version 2: %v, want %v", err, belfry.ErrUnsupported)
	}
}

func TestForeignSignaturesAreNamed(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for _, m := range append(marks,
		mark{size - 8192, "\xfc\x4e\x2b\xa9", "an md member"},
		mark{size - 64<<10, "\xfc\x4e\x2b\xa9", "an md member"},
		mark{128 << 10, "\x0c\xb1\xba\x00\x00\x00\x00\x00", "a ZFS pool"},
		mark{size - 100<<10, "\x00\x00\x00\x00\x00\xba\xb1\x0c", "a ZFS pool"}) {
		device := make([]byte, size)
		off := m.off
		if off < 0 {
			off += size
		}
		copy(device[off:], m.text)
		if got := Foreign(device[:ForeignSpan], device[size-ForeignSpan:], size); got != m.name {
			t.Errorf("%q at %d: got %q, want %q", m.text, m.off, got, m.name)
		}
	}
	empty := make([]byte, ForeignSpan)
	if got := Foreign(empty, empty, size); got != "" {
		t.Errorf("an empty device holds %s", got)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(encodeHeader(f, testHeader()))
	f.Fuzz(func(t *testing.T, block []byte) {
		if len(block) == BlockSize {
			putCRC(block) // else nothing gets past the checksum
		}
		h, err := DecodeHeader(block, -1)
		if err != nil {
			return
		}
		again, err := EncodeHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(block, again) && (block[10] == 0 && block[11] == 0) { // the minor version is ours
			t.Errorf("decoded and encoded again:\n%s", cmp.Diff(golden(block), golden(again)))
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(encodeRecord(f, testRecord()))
	f.Fuzz(func(t *testing.T, block []byte) {
		if len(block) == BlockSize {
			putCRC(block)
		}
		r, err := decodeRecord(block, testPlace)
		if err != nil {
			return
		}
		again, err := EncodeRecord(r, func([]byte) []byte { return block[signatureOffset:crcOffset] })
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(block, again) {
			t.Errorf("decoded and encoded again:\n%s", cmp.Diff(golden(block), golden(again)))
		}
	})
}

func TestDigestIsOfTheDocument(t *testing.T) {
	t.Parallel()
	want := "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // FIPS 180-4, of "hello"
	if got := Digest(sha256.Sum256([]byte("hello"))).String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
