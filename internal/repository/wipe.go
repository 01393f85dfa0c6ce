package repository

// wipeStep is how much is looked at and zeroed at a time.
const wipeStep = 1 << 20

// Wipe makes a disk of a repository one that holds nothing of it. The boot
// records go first, each of them durably, so that a crash leaves a whole
// repository or none; then records and documents, since these tell of the
// cluster. What is zero already is not written: a sparse file stays one.
// ErrNotFound: it is no repository.
func Wipe(d Device) error {
	h, err := ReadHeader(d)
	if err != nil {
		return err
	}
	last := d.Size()/BlockSize*BlockSize - BlockSize
	for _, off := range []int64{0, last} {
		if err := rewrite(d, make([]byte, BlockSize), off); err != nil {
			return fail("wipe", h.Disk().String(), err)
		}
	}
	for off := h.Layout.RecordOffset; off < h.Layout.Used; off += wipeStep {
		p := make([]byte, min(wipeStep, h.Layout.Used-off))
		err := d.ReadAt(p, off)
		if err == nil && !allZero(p) {
			clear(p)
			err = d.WriteAt(p, off)
		}
		if err != nil {
			return fail("wipe", h.Disk().String(), err)
		}
	}
	if err := d.Flush(); err != nil {
		return fail("wipe", h.Disk().String(), err)
	}
	return nil
}
