package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/belfry-ha/belfry"
)

// A file is a header and then frames, all numbers little-endian:
//
//	header  magic 4 | version u16 | zero u16 | base u64 | node 16 | incarnation u32 | made i64 | seed u32 | zero 12 | crc32c u32
//	frame   length u32 | crc32c u32 | position u64 | body
//
// The checksum of a header is over what stands before it. That of a frame is
// over position and body, and begins with the file's seed: what was a frame in
// another file, or in the data of an event, is none here.
const (
	headerSize = 64
	frameSize  = 16
	version    = 1
	maxBody    = 256 << 10 // bytes; the largest notification takes 13 KiB
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The magics of the two kinds of file.
var (
	magicSegment = [4]byte{'B', 'L', 'F', 'J'}
	magicIndex   = [4]byte{'B', 'L', 'F', 'I'}
)

// A header is what a file says of itself.
type header struct {
	magic       [4]byte
	base        uint64 // position of the first record
	node        belfry.NodeID
	incarnation belfry.Incarnation
	made        int64 // unix ns
	seed        uint32
}

func (h *header) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, h.magic[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, version)
	dst = binary.LittleEndian.AppendUint16(dst, 0)
	dst = binary.LittleEndian.AppendUint64(dst, h.base)
	dst = append(dst, h.node[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.incarnation))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.made))
	dst = binary.LittleEndian.AppendUint32(dst, h.seed)
	dst = append(dst, make([]byte, 12)...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

var errHeader = errors.New("no header of a journal file")

func parseHeader(b []byte, magic [4]byte) (h header, err error) {
	switch {
	case len(b) < headerSize || [4]byte(b) != magic:
		return h, errHeader
	case crc32.Checksum(b[:headerSize-4], castagnoli) != binary.LittleEndian.Uint32(b[headerSize-4:]):
		return h, fmt.Errorf("%w: its checksum is wrong", errHeader)
	case binary.LittleEndian.Uint16(b[4:]) != version:
		return h, fmt.Errorf("%w: version %d, this agent knows %d", errHeader, binary.LittleEndian.Uint16(b[4:]), version)
	}
	return header{
		magic: magic, base: binary.LittleEndian.Uint64(b[8:]), node: belfry.NodeID(b[16:32]),
		incarnation: belfry.Incarnation(binary.LittleEndian.Uint32(b[32:])),
		made:        int64(binary.LittleEndian.Uint64(b[36:])), seed: binary.LittleEndian.Uint32(b[44:]),
	}, nil
}

// closeFrame fills in the frame that begins at start, now that its body is
// there.
func closeFrame(dst []byte, start int, seed uint32, position uint64) {
	f := dst[start:]
	binary.LittleEndian.PutUint32(f, uint32(len(f)-frameSize))
	binary.LittleEndian.PutUint64(f[8:], position)
	binary.LittleEndian.PutUint32(f[4:], crc32.Update(seed, castagnoli, f[8:]))
}

// A frame is one record as it stands in a file. The body is valid until the
// next one is read.
type frame struct {
	position uint64
	body     []byte
}

// frames reads the frames of a file in order. Where bytes are damaged it looks
// for the next frame behind them.
type frames struct {
	file io.ReaderAt
	size int64
	seed uint32

	buf []byte
	at  int64 // of buf in the file
	pos int   // in buf

	least   uint64 // position that the next frame has at least
	valid   int64  // where the last frame ended
	damaged bool   // bytes before the last frame were none
}

// readFrames begins after the header. base is the position of the first record.
func readFrames(file io.ReaderAt, size int64, h *header) *frames {
	return &frames{file: file, size: size, seed: h.seed, at: headerSize, least: h.base, valid: headerSize}
}

const readAhead = 128 << 10

// peek is the next n bytes; fewer at the end of the file.
func (f *frames) peek(n int) ([]byte, error) {
	if have := len(f.buf) - f.pos; have < n {
		rest := f.size - f.at - int64(len(f.buf))
		want := int(min(int64(max(n, readAhead)-have), rest))
		buf := append(make([]byte, 0, have+want), f.buf[f.pos:]...)
		f.at += int64(f.pos)
		f.buf, f.pos = buf[:have+want], 0
		got, err := f.file.ReadAt(f.buf[have:], f.at+int64(have))
		f.buf = f.buf[:have+got]
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if got < want { // the file has become shorter
			f.size = f.at + int64(len(f.buf))
		}
	}
	return f.buf[f.pos:min(len(f.buf), f.pos+n)], nil
}

// next is io.EOF where nothing that follows is a frame.
func (f *frames) next() (frame, error) {
	f.damaged = false
	for {
		b, err := f.peek(frameSize)
		switch {
		case err != nil:
			return frame{}, err
		case len(b) == 0:
			return frame{}, io.EOF
		}
		if length, ok := f.plausible(b); ok {
			if b, err = f.peek(frameSize + length); err != nil {
				return frame{}, err
			}
			if len(b) == frameSize+length && crc32.Update(f.seed, castagnoli, b[8:]) == binary.LittleEndian.Uint32(b[4:]) {
				f.pos += len(b)
				f.valid = f.at + int64(f.pos)
				f.least = binary.LittleEndian.Uint64(b[8:])
				return frame{f.least, b[frameSize:]}, nil
			}
		}
		f.pos++
		f.damaged = true
	}
}

// plausible tells whether a frame may begin here, before its checksum is
// worked out: what stands in a damaged stretch is looked at byte by byte.
func (f *frames) plausible(b []byte) (length int, ok bool) {
	if len(b) < frameSize {
		return 0, false
	}
	n, position := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[8:])
	at := f.at + int64(f.pos)
	return int(n), n <= maxBody && at+frameSize+int64(n) <= f.size &&
		position >= f.least && position-f.least <= uint64(f.size)
}
