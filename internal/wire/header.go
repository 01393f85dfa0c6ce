package wire

import (
	"encoding/binary"

	"github.com/belfry-ha/belfry"
)

// Sizes of whole datagrams in bytes.
const (
	// MaxSize is the most that is sent: it fits every path without fragments.
	MaxSize = 1200
	// MaxReceive is the most that is looked at. A read buffer of one byte more
	// tells a datagram that is too large from one that just fits.
	MaxReceive = 1400

	shortSize    = 8
	longSize     = 24
	announceSize = 8 // the head only
	tagSize      = 12
)

// The forms, in the high nibble of the first byte.
const (
	formShort    = 1
	formLong     = 2
	formAnnounce = 3
)

// A header stands in clear before the sealed body, which authenticates it
// (cluster.md 3).
type header struct {
	form        byte
	epoch       byte // mod 16
	cluster     byte // first byte of SHA-256 of the cluster UUID
	number      belfry.NodeNumber
	incarnation byte   // low byte
	counter     uint32 // short form: low 24 bits

	// Long form only.
	fullIncarnation belfry.Incarnation
	boot            belfry.Boot // of the sender; never zero
	peerBoot        belfry.Boot // what the sender knows as the receiver's; zero: nothing
}

func (h *header) size() int {
	if h.form == formLong {
		return longSize
	}
	return shortSize
}

func (h *header) append(dst []byte) []byte {
	dst = append(dst, h.form<<4|h.epoch, h.cluster)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(h.number))
	dst = append24(append(dst, h.incarnation), h.counter)
	if h.form != formLong {
		return dst
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.fullIncarnation))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.boot))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.peerBoot))
	return binary.LittleEndian.AppendUint32(dst, h.counter)
}

// parseHeader reads the header of a datagram of the given cluster. It looks
// at nothing that it would have to decrypt.
func parseHeader(data []byte, cluster byte) (h header, _ Reason) {
	if len(data) < shortSize+tagSize || len(data) > MaxReceive {
		return h, RejectLength
	}
	h = header{
		form: data[0] >> 4, epoch: data[0] & 0x0f, cluster: data[1],
		number:      belfry.NodeNumber(binary.LittleEndian.Uint16(data[2:])),
		incarnation: data[4],
		counter:     uint24(data[5:]),
	}
	switch {
	case h.form != formShort && h.form != formLong && h.form != formAnnounce:
		return h, RejectForm
	case h.form == formLong && len(data) < longSize+tagSize:
		return h, RejectLength
	case h.cluster != cluster:
		return h, RejectCluster
	case h.form == formAnnounce:
		return h, RejectNotEnrolled
	case h.form == formShort:
		return h, Accepted
	}
	h.fullIncarnation = belfry.Incarnation(binary.LittleEndian.Uint32(data[8:]))
	h.boot = belfry.Boot(binary.LittleEndian.Uint32(data[12:]))
	h.peerBoot = belfry.Boot(binary.LittleEndian.Uint32(data[16:]))
	low := h.counter
	h.counter = binary.LittleEndian.Uint32(data[20:])
	if h.boot == 0 || byte(h.fullIncarnation) != h.incarnation || h.counter&max24 != low {
		return h, RejectForm // the two halves contradict each other
	}
	return h, Accepted
}
