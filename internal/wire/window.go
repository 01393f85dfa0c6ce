package wire

// windowSize is how far behind the highest counter one may still arrive.
const windowSize = 1024

// A window remembers which counters of one (sender, boot, form) were accepted
// (cluster.md 3, Replay). The zero value has accepted none. Counter 0 is never
// accepted, so that the first one sent is 1.
type window struct {
	highest uint32
	bits    [windowSize / 64]uint64 // bit c mod windowSize, for the last windowSize counters
}

// fresh tells whether counter was not accepted before and is young enough for
// that to be known.
func (w *window) fresh(counter uint32) bool {
	switch {
	case counter > w.highest:
		return true
	case counter == 0 || w.highest-counter >= windowSize:
		return false
	}
	return w.bits[counter%windowSize/64]&(1<<(counter%64)) == 0
}

// mark accepts a fresh counter.
func (w *window) mark(counter uint32) {
	if counter > w.highest {
		if counter-w.highest >= windowSize {
			w.bits = [windowSize / 64]uint64{}
		} else {
			for c := w.highest + 1; c < counter; c++ { // those jumped over may still come
				w.bits[c%windowSize/64] &^= 1 << (c % 64)
			}
		}
		w.highest = counter
	}
	w.bits[counter%windowSize/64] |= 1 << (counter % 64)
}

// expand restores the counter whose low 24 bits are given: the one nearest to
// the next that is due (as RFC 9000 A.3 does for packet numbers).
func (w *window) expand(low uint32) uint32 {
	const span = 1 << 24
	due := uint64(w.highest) + 1
	c := due&^(span-1) | uint64(low)
	switch {
	case c+span/2 <= due && c+span <= max32:
		c += span
	case c > due+span/2 && c >= span:
		c -= span
	}
	return uint32(c)
}
