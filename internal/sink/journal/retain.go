package journal

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// oldest is the position of the first record that anything is known of.
func (j *Journal) oldest() uint64 {
	if len(j.files) == 0 {
		return j.next
	}
	return j.files[0].base
}

// retain removes segments, and then indexes, beyond what is kept.
func (j *Journal) retain() {
	now := j.opts.Now().UnixNano()
	var size, indexed int64
	for _, f := range j.files {
		size, indexed = size+f.size, indexed+f.indexed
	}
	for _, f := range j.files {
		if j.current != nil && f == j.current.file || size <= j.opts.Size && now-f.ended < int64(j.opts.Age) {
			break
		}
		size -= f.size
		j.removeSegment(f)
	}
	for len(j.files) > 0 && j.files[0].size == 0 && (indexed > j.opts.Size/indexShare || j.files[0].indexed == 0) {
		indexed -= j.files[0].indexed
		j.removeIndex()
	}
}

func (j *Journal) removeSegment(f *file) {
	if f.size == 0 {
		return
	}
	if err := j.fs.Remove(f.segmentName()); err != nil && !errors.Is(err, os.ErrNotExist) {
		j.opts.Trouble(fmt.Errorf("remove: %w", err))
	}
	j.mu.Lock()
	f.size = 0
	j.mu.Unlock()
}

// removeIndex forgets the oldest file altogether.
func (j *Journal) removeIndex() {
	if f := j.files[0]; f.indexed > 0 {
		if err := j.fs.Remove(f.indexName()); err != nil && !errors.Is(err, os.ErrNotExist) {
			j.opts.Trouble(fmt.Errorf("remove: %w", err))
		}
	}
	j.mu.Lock()
	j.files = slices.Delete(j.files, 0, 1)
	j.mu.Unlock()
}

// makeRoom lets the oldest segment go, or else the oldest index; false: there
// is nothing left.
func (j *Journal) makeRoom() bool {
	for _, f := range j.files {
		if f.size > 0 {
			j.removeSegment(f)
			return true
		}
	}
	if len(j.files) > 0 {
		j.removeIndex()
		return true
	}
	return false
}
