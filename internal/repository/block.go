package repository

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// crcOffset is where a header or record has the CRC32C of all before it.
const crcOffset = BlockSize - 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What a block is not. These stay inside: they are counted, or become a Fault.
var (
	errEmpty = errors.New("block is empty")
	errBlock = errors.New("block is not valid")
)

func blockError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errBlock, fmt.Sprintf(format, args...))
}

// A field copies one field from or to its place in a block.
type field struct {
	block []byte
	write bool
	used  int // end of the fields so far
	dirty bool
}

func (f *field) at(off, size int) []byte {
	if !f.write && !allZero(f.block[f.used:off]) {
		f.dirty = true // bytes between fields must be zero
	}
	f.used = off + size
	return f.block[off : off+size]
}

func (f *field) bytes(off int, p []byte) {
	if f.write {
		copy(f.at(off, len(p)), p)
	} else {
		copy(p, f.at(off, len(p)))
	}
}

func integer[T ~uint8 | ~uint16 | ~uint32 | ~uint64](f *field, off int, v *T) {
	var b [8]byte
	size := binary.Size(*v)
	if f.write {
		binary.LittleEndian.PutUint64(b[:], uint64(*v))
		copy(f.at(off, size), b[:size])
		return
	}
	copy(b[:size], f.at(off, size))
	*v = T(binary.LittleEndian.Uint64(b[:]))
}

// end checks that nothing but zeros follow up to off.
func (f *field) end(off int) error {
	f.at(off, 0)
	if f.dirty {
		return blockError("bytes that no field uses are not zero")
	}
	return nil
}

func allZero(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

func putCRC(block []byte) {
	binary.LittleEndian.PutUint32(block[crcOffset:], crc32.Checksum(block[:crcOffset], castagnoli))
}

func crcFits(block []byte) bool {
	return binary.LittleEndian.Uint32(block[crcOffset:]) == crc32.Checksum(block[:crcOffset], castagnoli)
}
