package repository

import (
	"fmt"

	"github.com/belfry-ha/belfry"
)

// Recover finds out which disk of a repository a device was whose boot records
// are both gone, and writes them again. mirror is the boot record of another
// disk: it says where the records lie, and these say which disk it is. No agent
// may be using it. ErrNotFound: no record of any disk of that epoch is there;
// ErrExist: it has a boot record.
func Recover(d Device, mirror Header) (Header, error) {
	if now, err := ReadHeader(d); err == nil {
		return Header{}, fail("recover", now.Disk().String(), fmt.Errorf("%w: a boot record counts; repair the other copy", belfry.ErrExist))
	}
	if err := mirror.Layout.check(d.Size()); err != nil {
		return Header{}, fail("recover", "", fmt.Errorf("%w: not a disk of repository %s: %w", belfry.ErrNotFound, mirror.Repository, err))
	}
	for i := range mirror.Disks {
		h := mirror
		h.Index = uint8(i)
		store := &Store{header: h, fresh: true}
		r := &replica{dev: d, uuid: h.Disk()}
		if err := store.readAll(r, h.Layout.Hosts); err != nil {
			return Header{}, fail("recover", h.Disk().String(), err)
		}
		for c := range r.cells {
			if r.cells[c].err == nil {
				return h, recoverAs(d, h)
			}
		}
	}
	return Header{}, fail("recover", "", fmt.Errorf("%w: no record of repository %s, epoch %d, is there; name another device", belfry.ErrNotFound, mirror.Repository, mirror.Epoch))
}

// recoverAs writes B, then A, as formatting does.
func recoverAs(d Device, h Header) error {
	block, err := EncodeHeader(h)
	if err != nil {
		return fail("recover", h.Disk().String(), err)
	}
	for _, off := range []int64{d.Size()/BlockSize*BlockSize - BlockSize, 0} {
		if err := rewrite(d, block, off); err != nil {
			return fail("recover", h.Disk().String(), err)
		}
	}
	return nil
}
