package disk

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A session is one call of Run: what there is, and who watches it.
type session struct {
	*producer.Following[disk]
	sys   string
	disks map[string]*disk  // that are there, by name
	seqs  map[string]uint64 // of the last look at each, also of those without a medium
	probe time.Time         // when to look at those that are watched; zero: nothing is
}

func newSession(sys string, send producer.Send) *session {
	s := &session{sys: sys, disks: map[string]*disk{}, seqs: map[string]uint64{}}
	s.Following = producer.NewFollowing(source{s}, producer.FollowingOptions{Send: send, EndAfter: endAfter})
	return s
}

// uevent looks at the disk that it is about. One that had come and is gone, or is
// another one, when it is looked at was never seen: the next count says so.
func (s *session) uevent(now time.Time, datagram []byte) error {
	u, ok := parseUevent(datagram)
	if !ok {
		return nil
	}
	before := s.seqs[u.disk]
	if err := s.look(now, u.disk); err != nil {
		return err
	}
	if before < u.seq && u.seq < s.seqs[u.disk] {
		s.DoubtAt(u.disk)
	}
	return nil
}

// scan looks at all disks that there are and were.
func (s *session) scan(now time.Time) error {
	all, err := names(s.sys)
	if err != nil {
		return err
	}
	for name := range s.seqs {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	for _, name := range all {
		if err := s.look(now, name); err != nil {
			return err
		}
	}
	return nil
}

// look makes what is known of a disk equal to what sysfs says. A disk without a
// medium is not there.
func (s *session) look(now time.Time, name string) error {
	d, err := read(s.sys, name)
	switch {
	case errors.Is(err, errNone):
		delete(s.seqs, name)
	case err != nil:
		return err
	default:
		s.seqs[name] = d.seq
		if d.size == 0 {
			d = nil
		}
	}
	old := s.disks[name]
	if old != nil && (d == nil || d.instance() != old.instance()) {
		if err := s.gone(now, old); err != nil {
			return err
		}
		old = nil
	}
	switch {
	case d == nil:
		return nil
	case old == nil:
		d.since = now
		return s.came(now, d)
	}
	return s.changed(now, old, d)
}

func (s *session) came(now time.Time, d *disk) error {
	s.disks[d.name] = d
	s.plan(now)
	if err := s.Discover(d.name); err != nil {
		return err
	}
	for _, t := range s.At(d.name) {
		if err := s.Hold(t, d); err != nil {
			return err
		}
		if err := s.Post(t, d.occurrence(now, absent, d.state, added)); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) gone(now time.Time, d *disk) error {
	delete(s.disks, d.name)
	for _, t := range s.At(d.name) {
		if err := s.Post(t, d.occurrence(now, d.state, absent, removed)); err != nil {
			return err
		}
		if err := s.Release(now, t); err != nil {
			return err
		}
	}
	return nil
}

// changed takes a new state. Between two looks there may have been others.
func (s *session) changed(now time.Time, d, to *disk) error {
	from := d.state
	d.size, d.uid, d.word = to.size, to.uid, to.word
	if from == to.state {
		return nil
	}
	d.state, d.since = to.state, now
	o := d.occurrence(now, from, d.state, d.word)
	o.LowerBound = true
	for _, t := range s.At(d.name) {
		if err := s.Post(t, o); err != nil {
			return err
		}
	}
	return nil
}

// plan makes sure that there is a next probe.
func (s *session) plan(now time.Time) {
	if s.probe.IsZero() && !s.Idle() {
		s.probe = now.Add(probeEvery)
	}
}

// nextTimeout is when advance has something to do; zero: never.
func (s *session) nextTimeout() time.Time {
	next := s.NextTimeout()
	if next.IsZero() || !s.probe.IsZero() && s.probe.Before(next) {
		return s.probe
	}
	return next
}

// advance probes: it looks at each disk that is watched and whose driver keeps a
// state.
func (s *session) advance(now time.Time) error {
	if err := s.Advance(now); err != nil {
		return err
	}
	if s.probe.IsZero() || now.Before(s.probe) {
		return nil
	}
	s.probe = time.Time{}
	for _, name := range slices.Sorted(maps.Keys(s.disks)) {
		if len(s.At(name)) == 0 || s.disks[name].word == "" {
			continue
		}
		s.probe = now.Add(probeEvery)
		if err := s.look(now, name); err != nil {
			return err
		}
	}
	return nil
}

// Why a disk comes or goes.
const (
	added   = "added"
	removed = "removed"
)

// occurrence is one of disk.state, or with from nothing a state.
func (d *disk) occurrence(at time.Time, from, to state, reason string) belfry.Occurrence {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(&belfryv1.DiskState{
		Disk: d.name, Device: d.device, Diskseq: d.seq, SizeBytes: d.size, Uid: d.uid,
		From: from.String(), To: to.String(), Reason: reason,
	})
	if err != nil { // text that is not UTF-8, which there is none of
		data = nil
	}
	return belfry.Occurrence{Time: at, Code: int32(to), Edge: to.edge(), Data: data}
}

// A source answers for a session what its Following asks.
type source struct{ s *session }

func (source) Kind(string) string            { return "" }
func (src source) Subjects(string) []string  { return slices.Sorted(maps.Keys(src.s.disks)) }
func (src source) Find(subject string) *disk { return src.s.disks[subject] }
func (source) Instance(d *disk) string       { return d.instance() }
func (source) State(_ belfry.Class, _ string, d *disk) *belfry.Occurrence {
	state := d.occurrence(d.since, nothing, d.state, d.word)
	return &state
}

// Absent says what there is instead.
func (src source) Absent(subject string) error {
	if _, known := src.s.seqs[subject]; known {
		return fmt.Errorf("%w: %s has no medium; insert or attach one, or wait for it (--wait)", belfry.ErrNoEvent, subject)
	}
	if whole := wholeOf(src.s.sys, subject); whole != "" {
		return fmt.Errorf("%w: %s is a partition; write %s:%s", belfry.ErrNoEvent, subject, Class, whole)
	}
	there := src.Subjects("")
	const most = 8
	if len(there) > most {
		there = append(there[:most:most], "…")
	}
	if len(there) == 0 {
		return fmt.Errorf("%w: no disk %s; attach it, or wait for it (--wait)", belfry.ErrNoEvent, subject)
	}
	return fmt.Errorf("%w: no disk %s; there are %s: name one, or wait for it (--wait)", belfry.ErrNoEvent, subject, strings.Join(there, ", "))
}
