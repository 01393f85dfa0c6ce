package cluster

import "math/bits"

// lossOne is a loss ratio of one in the fixed point of the estimate.
const lossOne = 1 << 16

// reorderWindow is how late a datagram may come and still take its loss back.
const reorderWindow = 64

// seqCount is how many sequence numbers there are: 0 is kept for unwatched
// pairs, so the number after 65,535 is 1.
const seqCount = 1<<16 - 1

// sequence counts the receptions of one link. Loss comes from gaps in the
// numbers and from nothing else: estimators that read it from the time between
// arrivals mix it with delay (cluster.md 4).
type sequence struct {
	started bool
	highest uint16 // never falls
	window  uint64 // bit i: highest − i was received
	span    int    // numbers that the window covers, 0 to 64
	ratio   uint32 // EWMA of the loss, 1/65,536
	outage  bool   // the next gap is an outage: it says nothing about loss

	received, lost, reordered, duplicate uint64
}

// newSequence assumes prior (1/255) until the numbers tell.
func newSequence(prior uint8) sequence {
	return sequence{ratio: uint32(prior) * lossOne / 255}
}

// restart forgets the numbers but not the loss: a peer's new start numbers
// anew over the same path.
func (s *sequence) restart() { s.started, s.window, s.span = false, 0, 0 }

// interrupted says that the link was down: what was lost meanwhile is counted,
// but does not make the estimate worse. Else a cut that healed would make all
// evidence on its network cheap.
func (s *sequence) interrupted() { s.outage = true }

// take records one reception. fresh is false for a duplicate, newest tells
// that no later one was received before.
func (s *sequence) take(seq uint16) (fresh, newest bool) {
	if !s.started {
		s.started, s.highest, s.window, s.span = true, seq, 1, 1
		s.arrived()
		return true, true
	}
	switch ahead := seqDistance(s.highest, seq); {
	case ahead > 0:
		if ahead > 1 || s.outage {
			s.missed(ahead - 1)
		}
		s.window = s.window<<min(ahead, 64) | 1
		s.highest, s.span = seq, min(s.span+ahead, 64)
		s.arrived()
		return true, true
	case ahead > -reorderWindow && s.window>>(-ahead)&1 == 0:
		s.window |= 1 << (-ahead)
		s.reordered++
		s.lost -= min(s.lost, 1)
		s.ratio -= min(s.ratio, lossOne/64)
		s.arrived()
		return true, false
	}
	s.duplicate++
	return false, false
}

func (s *sequence) arrived() {
	s.received++
	s.ratio -= s.ratio / 64
}

func (s *sequence) missed(n int) {
	s.lost += uint64(n)
	if s.outage {
		s.outage = false
		return
	}
	for range min(n, 256) { // beyond this the estimate is one
		s.ratio += (lossOne - s.ratio) / 64
	}
}

// loss is the estimate in 1/255.
func (s *sequence) loss() uint8 { return uint8((s.ratio*255 + lossOne/2) / lossOne) }

// recent is what was lost of the newest 64 numbers, in 1/255: for people, who
// are not served by a prior.
func (s *sequence) recent() uint8 {
	if s.span == 0 {
		return 0
	}
	return uint8((s.span - bits.OnesCount64(s.window)) * 255 / s.span)
}

// seqDistance is how far b is ahead of a, negative when behind.
func seqDistance(a, b uint16) int {
	d := (int(b) - int(a) + seqCount) % seqCount
	if d > seqCount/2 {
		d -= seqCount
	}
	return d
}

// nextSeq is the number after seq.
func nextSeq(seq uint16) uint16 {
	if seq == seqCount {
		return 1
	}
	return seq + 1
}
