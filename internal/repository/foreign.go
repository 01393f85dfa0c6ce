package repository

import (
	"bytes"
	"encoding/binary"
)

// ForeignSpan is how much of either end of a device [Foreign] looks at.
const ForeignSpan = 512 << 10

// A mark is a signature at a fixed place, from the start or (negative) the end.
type mark struct {
	off  int
	text string
	name string
}

// marks are the places of the formats' own descriptions.
var marks = []mark{
	{0, headerMagic, "a Belfry repository"},
	{-BlockSize, headerMagic, "a Belfry repository"},
	{512, "EFI PART", "a GPT partition table"},
	{4096, "EFI PART", "a GPT partition table"},
	{-512, "EFI PART", "a GPT partition table"},
	{-4096, "EFI PART", "a GPT partition table"},
	{510, "\x55\xaa", "a partition table or boot sector"},
	{1024 + 0x38, "\x53\xef", "an ext file system"},
	{0, "XFSB", "an XFS file system"},
	{64<<10 + 0x40, "_BHRfS_M", "a btrfs file system"},
	{1024, "\x10\x20\xf5\xf2", "an f2fs file system"},
	{32769, "CD001", "an ISO 9660 file system"},
	{4096 - 10, "SWAPSPACE2", "a swap area"},
	{4096 - 10, "SWAP-SPACE", "a swap area"},
	{8192 - 10, "SWAPSPACE2", "a swap area"},
	{16384 - 10, "SWAPSPACE2", "a swap area"},
	{65536 - 10, "SWAPSPACE2", "a swap area"},
	{0, "LUKS\xba\xbe", "a LUKS volume"},
	{16384, "SKUL\xba\xbe", "a LUKS volume"},
	{0, "LABELONE", "an LVM physical volume"},
	{512, "LABELONE", "an LVM physical volume"},
	{1024, "LABELONE", "an LVM physical volume"},
	{1536, "LABELONE", "an LVM physical volume"},
	{0, "\xfc\x4e\x2b\xa9", "an md member"},    // 1.1
	{4096, "\xfc\x4e\x2b\xa9", "an md member"}, // 1.2
	{24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache device"},
	{4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache device"},
}

// mdMagic begins the superblock of an md member (md(4)).
const mdMagic = 0xa92b4efc

// zfsMagic begins an uberblock; labels of 256 KiB lie twice at either end, the
// uberblocks in their second half.
const zfsMagic = 0x00bab10c

// Foreign names what a device of that size seems to hold, or is empty. head
// and tail are its first and last bytes, up to ForeignSpan of them.
func Foreign(head, tail []byte, size int64) string {
	for _, m := range marks {
		from, off := head, m.off
		if off < 0 {
			from, off = tail, len(tail)+off
		}
		if off >= 0 && off+len(m.text) <= len(from) && string(from[off:off+len(m.text)]) == m.text {
			return m.name
		}
	}
	if mdAtEnd(tail, size) {
		return "an md member"
	}
	if zfsLabel(head) || zfsLabel(tail) {
		return "a ZFS pool"
	}
	return ""
}

// mdAtEnd looks for the superblocks 1.0 and 0.90, whose place is counted from
// the end in sectors.
func mdAtEnd(tail []byte, size int64) bool {
	sectors := size / 512
	for _, at := range []int64{(sectors - 16) &^ 7 * 512, size&^(64<<10-1) - 64<<10} {
		i := at - (size - int64(len(tail)))
		if at >= 0 && i >= 0 && i+4 <= int64(len(tail)) && binary.LittleEndian.Uint32(tail[i:]) == mdMagic {
			return true
		}
	}
	return false
}

func zfsLabel(p []byte) bool {
	var little, big [8]byte
	binary.LittleEndian.PutUint64(little[:], zfsMagic)
	binary.BigEndian.PutUint64(big[:], zfsMagic)
	for off := 0; off+8 <= len(p); off += 1024 {
		if bytes.Equal(p[off:off+8], little[:]) || bytes.Equal(p[off:off+8], big[:]) {
			return true
		}
	}
	return false
}
