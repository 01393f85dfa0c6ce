package filesystem

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// inodePrefix makes a subject mean inodes instead of space.
const inodePrefix = "inodes:"

// A session is one call of Run.
type session struct {
	send     producer.Send
	mounts   []mount
	targets  map[event.WatchID]*target
	patterns map[event.WatchID]*pattern
}

// A target is the watch of one mount point.
type target struct {
	watch  event.Watch
	path   string // clean
	inodes bool
	held   *mount // nil: nothing is mounted there
	found  bool   // a pattern found it: it ends when it is gone
	old    sample // the last but one
	last   sample
	due    time.Time
}

// A pattern is the watch of all mount points that match.
type pattern struct {
	watch event.Watch
	found map[string]bool // subjects
}

func newSession(send producer.Send) *session {
	return &session{send: send, targets: map[event.WatchID]*target{}, patterns: map[event.WatchID]*pattern{}}
}

// watch begins a watch, or changes its thresholds: then a sample follows at once.
func (s *session) watch(now time.Time, w event.Watch) error {
	if t := s.targets[w.ID]; t != nil {
		t.watch = w
		if t.held == nil {
			return nil
		}
		return s.sample(now, t, true)
	}
	if s.patterns[w.ID] != nil {
		return nil
	}
	if s.mounts == nil {
		if err := s.read(); err != nil {
			return err
		}
	}
	path, inodes := strings.CutPrefix(w.Subject, inodePrefix)
	if w.Entry == 0 {
		p := &pattern{watch: w, found: map[string]bool{}}
		s.patterns[w.ID] = p
		return s.find(p)
	}
	if err := checkSubject(w.Subject); err != nil {
		return s.send(event.End{Entry: w.Entry, Err: err})
	}
	t := &target{watch: w, path: filepath.Clean(path), inodes: inodes}
	for _, p := range s.patterns {
		t.found = t.found || p.found[w.Subject]
	}
	s.targets[w.ID] = t
	return s.reconcile(now, t, true)
}

func (s *session) unwatch(id event.WatchID) {
	delete(s.targets, id)
	delete(s.patterns, id)
}

func (s *session) read() (err error) {
	s.mounts, err = readMounts()
	return err
}

// mounted takes a change of the mount table.
func (s *session) mounted(now time.Time) error {
	if err := s.read(); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(s.targets)) {
		if err := s.reconcile(now, s.targets[id], false); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.patterns)) {
		if err := s.find(s.patterns[id]); err != nil {
			return err
		}
	}
	return nil
}

// find tells the mount points that match, each once as long as it is there.
func (s *session) find(p *pattern) error {
	there := map[string]bool{}
	for _, m := range s.mounts {
		subject := m.point
		if strings.HasPrefix(p.watch.Subject, inodePrefix) {
			subject = inodePrefix + m.point
		}
		if !producer.Match(p.watch.Subject, subject) || counts(m, subject != m.point) != nil {
			continue
		}
		there[subject] = true
		if p.found[subject] {
			continue
		}
		if err := s.send(event.Found{Watch: p.watch.ID, Subject: subject}); err != nil {
			return err
		}
	}
	p.found = there
	return nil
}

// counts refuses what has no usage, or would make everything wait.
func counts(m mount, inodes bool) error {
	if remote[m.kind] {
		return fmt.Errorf("%w: %s is a %s of another machine; watch it there", belfry.ErrUnsupported, m.point, m.kind)
	}
	u, err := measure(m.point)
	if err != nil {
		return fmt.Errorf("%w: %w; let the agent reach it", belfry.ErrPermission, err)
	}
	if _, ok := u.percent(inodes); ok {
		return nil
	}
	if inodes {
		return fmt.Errorf("%w: %s (%s) does not count inodes; watch %s:%s", belfry.ErrUnsupported, m.point, m.kind, Class, m.point)
	}
	return fmt.Errorf("%w: %s (%s) holds no data; watch a disk or a tmpfs", belfry.ErrUnsupported, m.point, m.kind)
}

// reconcile makes what is held equal to what is mounted. Something else on
// the same point is another object; nothing there is waited for once something was.
func (s *session) reconcile(now time.Time, t *target, first bool) error {
	m, ok := under(s.mounts, t.path)
	ok = ok && m.point == t.path
	if t.held != nil {
		if ok && m.instance() == t.held.instance() {
			return nil
		}
		instance := t.held.instance()
		t.held = nil
		if err := s.send(event.Invalidate{Entry: t.watch.Entry, Instance: instance}); err != nil {
			return err
		}
		if t.found && !t.watch.Wait && !ok {
			delete(s.targets, t.watch.ID)
			return s.send(event.End{Entry: t.watch.Entry, Err: fmt.Errorf("%w: %s is not mounted any more", belfry.ErrNoEvent, t.path)})
		}
	}
	if !ok {
		if !first || t.watch.Wait {
			return nil
		}
		delete(s.targets, t.watch.ID)
		return s.send(event.End{Entry: t.watch.Entry, Err: s.noMount(t)})
	}
	if err := counts(m, t.inodes); err != nil {
		if !first {
			return nil // it held something better before
		}
		delete(s.targets, t.watch.ID)
		return s.send(event.End{Entry: t.watch.Entry, Err: err})
	}
	t.held, t.old, t.last = &m, sample{}, sample{}
	if err := s.send(event.Associate{Entry: t.watch.Entry, Instance: m.instance(), Exclusive: false}); err != nil {
		return err
	}
	return s.sample(now, t, true)
}

// noMount names the mount point that the path lies on, symbolic links followed.
func (s *session) noMount(t *target) error {
	prefix := ""
	if t.inodes {
		prefix = inodePrefix
	}
	real, err := filepath.EvalSymlinks(t.path)
	if err != nil {
		return fmt.Errorf("%w: %s does not exist; mount something there, or wait for it (--wait)", belfry.ErrNoEvent, t.path)
	}
	m, ok := under(s.mounts, real)
	if !ok {
		return fmt.Errorf("%w: %s is no mount point; mount something there, or wait for it (--wait)", belfry.ErrNoEvent, t.path)
	}
	return fmt.Errorf("%w: %s is no mount point; it lies on %s, so write %s:%s%s", belfry.ErrNoEvent, t.path, m.point, Class, prefix, m.point)
}

func (s *session) nextTimeout() (next time.Time) {
	for _, t := range s.targets {
		if t.held != nil && (next.IsZero() || t.due.Before(next)) {
			next = t.due
		}
	}
	return next
}

func (s *session) advance(now time.Time) error {
	for _, id := range slices.Sorted(maps.Keys(s.targets)) {
		t := s.targets[id]
		if t.held == nil || t.due.After(now) {
			continue
		}
		if err := s.sample(now, t, false); err != nil {
			return err
		}
	}
	return nil
}

// sample measures, and sends the value if it is new or asked for.
func (s *session) sample(now time.Time, t *target, asked bool) error {
	u, err := measure(t.path)
	if err != nil || !t.held.still() {
		t.due = now.Add(slowest)
		return nil // unmounted this moment: what we measured is below it, and the table's change is on the way
	}
	value, _ := u.percent(t.inodes)
	same := value == t.last.value && !t.last.at.IsZero()
	t.old, t.last = t.last, sample{at: now, value: value}
	if t.old.at.IsZero() {
		t.old = t.last
	}
	t.due = now.Add(pace(t.old, t.last, u.burst(t.inodes), t.watch.Threshold))
	if same && !asked {
		return nil
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(&belfryv1.FilesystemUsage{
		MountPoint: text(t.path), Device: text(t.held.source), Type: text(t.held.kind),
		TotalBytes: u.total, UsedBytes: u.used, FreeBytes: u.available, TotalInodes: u.inodes, UsedInodes: u.usedInodes,
	})
	if err != nil {
		return err
	}
	return s.send(event.Sample{Entry: t.watch.Entry, Time: now, Value: value, Data: data})
}

// burst is the greatest change that is to be expected, in percent a second.
func (u usage) burst(inodes bool) float64 {
	if inodes {
		return 100 * burstInodes / float64(max(u.inodes, 1))
	}
	return 100 * burstBytes / float64(max(u.used+u.available, 1))
}

// text is a path as the data can hold it: cut, and UTF-8.
func text(s string) string { return strings.ToValidUTF8(s[:min(len(s), 1024)], "?") }
