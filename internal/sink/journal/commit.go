package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// commit writes a batch, and stop if it is not nil.
func (j *Journal) commit(batch []belfry.Notification, stop *belfryv1.JournalStop) error {
	for retried := false; ; {
		s, err := j.writable()
		if err == nil {
			if err = j.encode(s, batch, stop); err == nil && len(j.staged) == 0 {
				return nil
			}
		}
		if err == nil {
			if err = j.write(s); err == nil {
				return nil
			}
		}
		j.unstage()
		j.fail(s, err)
		full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
		if full && j.makeRoom() {
			continue
		}
		if full || retried {
			return fmt.Errorf("journal: %w", err)
		}
		retried = true
	}
}

// writable is the segment for the next commit.
func (j *Journal) writable() (*segment, error) {
	if s := j.current; s != nil && (s.size >= j.opts.Segment || j.old(s)) {
		j.seal()
		j.retain()
	}
	if j.current != nil {
		return j.current, nil
	}
	f := &file{header: header{
		magic: magicSegment, base: j.next, node: j.opts.Node, incarnation: j.opts.Incarnation,
		made: j.opts.Now().UnixNano(), seed: rand.Uint32(),
	}}
	j.table.prune(j.oldest(), j.opts.Node, j.opts.Incarnation)
	s := &segment{file: f, index: newIndex()}
	if err := s.index.setHead(j.table.durable(), &f.header); err != nil {
		return nil, err
	}
	var err error
	if s.out, err = j.fs.Create(f.segmentName()); err != nil {
		return nil, err
	}
	j.current = s
	return s, nil
}

// encode makes the bytes of a commit in the buffer, and stages its records.
func (j *Journal) encode(s *segment, batch []belfry.Notification, stop *belfryv1.JournalStop) (err error) {
	j.staged, j.buffer = j.staged[:0], j.buffer[:0]
	if s.records == 0 {
		j.buffer = append(s.append(j.buffer), s.index.head...)
	}
	if !j.started {
		start := &belfryv1.JournalStart{Time: j.opts.Now().UnixNano()}
		err = j.stageRecord(s, &belfryv1.JournalRecord{Kind: &belfryv1.JournalRecord_Start{Start: start}})
	}
	begin := true
	for i := range batch {
		if err == nil && recorded(&batch[i]) {
			j.scratch = batch[i]
			j.stage(s, &j.scratch, &begin)
		}
	}
	if err == nil && stop != nil {
		err = j.stageRecord(s, &belfryv1.JournalRecord{Kind: &belfryv1.JournalRecord_Stop{Stop: stop}})
	}
	return err
}

func (j *Journal) stageRecord(s *segment, r *belfryv1.JournalRecord) (err error) {
	position := j.next + uint64(len(j.staged))
	j.buffer, err = appendRecord(j.buffer, s.seed, position, r)
	j.staged = append(j.staged, staged{position: position})
	return err
}

// stage encodes one notification, unless it is known already.
func (j *Journal) stage(s *segment, n *belfry.Notification, begin *bool) {
	var e *event
	var id uint32
	introduce := false
	if n.Event.Class != "" {
		e = j.table.touch(KeyOf(n))
		e.nodeName, e.class, e.subject = n.NodeName, n.Event.Class, n.Event.Subject
		had := max(e.last, e.staged)
		if e.at == 0 && e.staged == 0 {
			e.base = before(n)
			had = e.base
		}
		if n.Last > 0 && !trim(n, had) {
			return
		}
		if e.id == 0 || e.instance != n.Event.Instance {
			s.ids++
			e.id, e.instance, introduce = s.ids, n.Event.Instance, true
		}
		id = e.id
		e.staged = max(had, n.Last)
	}
	start, position := len(j.buffer), j.next+uint64(len(j.staged))
	frame := append(j.buffer, make([]byte, frameSize)...)
	j.buffer = appendNotification(frame, n, id, introduce, *begin)
	if len(j.buffer)-len(frame) > maxBody {
		n.Data = nil
		j.buffer = appendNotification(frame, n, id, introduce, *begin)
	}
	*begin = false
	closeFrame(j.buffer, start, s.seed, position)
	st := staged{position: position, event: e}
	if e != nil {
		st.last = e.staged
	}
	j.staged = append(j.staged, st)
}

// trim takes off what was recorded before; false: nothing is left. Of a
// notification whose numbers are not contiguous nobody can say which part is
// new: it stays whole.
func trim(n *belfry.Notification, had uint64) bool {
	if n.Last <= had {
		return false
	}
	if n.First <= had {
		whole := n.Last - n.First + 1
		switch {
		case n.Gap != nil && n.Gap.Total == whole:
			gap := *n.Gap
			gap.Total, n.Gap, n.First, n.Skipped = n.Last-had, &gap, had+1, 0
		case n.Gap == nil && n.Count == whole:
			n.Count, n.First, n.Skipped = n.Last-had, had+1, 0
		}
	}
	return true
}

// write makes the commit durable, and only then lets it count.
func (j *Journal) write(s *segment) error {
	if _, err := s.out.Write(j.buffer); err != nil {
		return err
	}
	if err := s.out.Sync(); err != nil {
		return err
	}
	if s.records == 0 {
		if err := j.fs.Sync(); err != nil {
			return err
		}
	}
	j.mu.Lock()
	if s.records == 0 {
		j.files = append(j.files, s.file)
	}
	s.size, s.ended = s.size+int64(len(j.buffer)), j.opts.Now().UnixNano()
	j.mu.Unlock()
	for _, st := range j.staged {
		var id uint32
		if e := st.event; e != nil {
			id = s.index.introduce(e)
			e.last, e.at = max(e.last, st.last), st.position
			e.staged, e.id = 0, 0
		}
		s.index.note(st.position-s.base, id, st.last)
	}
	s.records += len(j.staged)
	j.next += uint64(len(j.staged))
	j.started, j.staged = true, j.staged[:0]
	j.durable.Store(j.next - 1)
	return nil
}

// unstage forgets a commit that failed.
func (j *Journal) unstage() {
	for _, st := range j.staged {
		if st.event != nil {
			st.event.staged, st.event.id = 0, 0
		}
	}
	j.staged = j.staged[:0]
}

// fail leaves a segment. It is never written again: after a failed sync its
// end may be there, or only seem to be, and the base of the next one says how
// much of it counts.
func (j *Journal) fail(s *segment, err error) {
	j.opts.Trouble(err)
	if s == nil {
		return
	}
	_ = s.out.Close()
	j.current = nil
	if s.records == 0 {
		_ = j.fs.Remove(s.segmentName())
		return
	}
	_ = j.fs.Truncate(s.segmentName(), s.size)
	j.writeIndex(s.file, s.index)
}

// seal ends the segment that is being written.
func (j *Journal) seal() {
	s := j.current
	if s == nil {
		return
	}
	j.current = nil
	_ = s.out.Close()
	if s.records == 0 {
		_ = j.fs.Remove(s.segmentName())
		return
	}
	j.writeIndex(s.file, s.index)
}

// writeIndex does without an index that can not be written: it is missed only
// by who comes with a cursor into a segment that is gone.
func (j *Journal) writeIndex(f *file, x *index) {
	b, err := x.file(f.header)
	if err == nil {
		var out File
		if out, err = j.fs.Create(f.indexName()); err == nil {
			_, err = out.Write(b)
			err = errors.Join(err, out.Sync(), out.Close(), j.fs.Sync())
		}
	}
	if err != nil {
		_ = j.fs.Remove(f.indexName())
		j.opts.Trouble(fmt.Errorf("%s: %w", f.indexName(), err))
		return
	}
	j.mu.Lock()
	f.indexed = int64(len(b))
	j.mu.Unlock()
}
