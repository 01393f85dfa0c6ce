package file

import (
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// A what is a kind of change.
type what uint8

const (
	nothing what = iota
	wrote
	unmounted
	removed
	renamed
	truncated
	covered
	replaced
	created
	lost // some changes before this were not told

	aclChanged
	ownerChanged
	modeChanged

	entryCreated
	entryRemoved
	selfRemoved
	renamedFrom
	renamedTo
)

// changes gives each its code, its name, and whether its number is exact.
// Codes up to 1099 are those of AHAFS (events.md 8). Those of files and of
// attributes are lower bounds: the kernel merges equal ones that nobody has
// read yet, and what is at a path is looked up after the fact.
var changes = [...]struct {
	code  int32
	name  string
	exact bool
}{
	wrote:     {1000, "write", false},
	unmounted: {1001, "unmount", true},
	removed:   {1003, "remove", false},
	renamed:   {1004, "rename", false},
	truncated: {1006, "truncate", false},
	covered:   {1007, "overmount", false},
	replaced:  {1100, "replace", false},
	created:   {1101, "create", false},
	lost:      {1109, "overflow", false},

	aclChanged:   {1008, "acl", false},
	ownerChanged: {1009, "owner", false},
	modeChanged:  {1010, "mode", false},

	entryCreated: {1000, "create", true},
	entryRemoved: {1002, "remove", true},
	selfRemoved:  {1003, "remove-self", false},
	renamedFrom:  {1102, "rename-from", true},
	renamedTo:    {1103, "rename-to", true},
}

// gone is what became of something held, now that m (if there is anything) is
// in its place.
func gone(t *target, reason what, m meta, something bool) what {
	switch {
	case reason == unmounted:
		return reason
	case something && reason == nothing && (m.major != t.held.major || m.minor != t.held.minor):
		return covered
	case t.class == DirClass:
		return selfRemoved
	case reason != nothing && (reason != replaced || something):
		return reason
	case something:
		return replaced
	}
	return removed
}

// handle takes one record of inotify.
func (s *session) handle(now time.Time, e rawEvent) error {
	if e.mask&unix.IN_Q_OVERFLOW != 0 {
		return s.overflow(now)
	}
	w := s.in.watches[e.wd]
	switch {
	case w == nil:
		return nil // of a watch that has ended
	case e.name != "" && e.mask&unix.IN_ATTRIB != 0:
		return nil // of an entry of a directory whose own attributes are watched
	case e.mask&unix.IN_IGNORED != 0:
		return s.ignored(now, w)
	case e.mask&unix.IN_UNMOUNT != 0:
		return s.selves(now, w, unmounted)
	case e.name == "" && e.mask&unix.IN_MODIFY != 0:
		return s.each(w, FileClass, func(t *target) error { return s.modified(now, t) })
	case e.name == "" && e.mask&unix.IN_ATTRIB != 0:
		return s.each(w, AttributeClass, func(t *target) error { return s.altered(now, t) })
	case e.name == "":
		return s.selves(now, w, nothing)
	}
	return s.named(now, w, e)
}

// each calls do for the targets of a class that are what w watches.
func (*session) each(w *watched, class belfry.Class, do func(*target) error) error {
	for _, t := range sorted(w.self) {
		if t.class != class {
			continue
		}
		if err := do(t); err != nil {
			return err
		}
	}
	return nil
}

// selves looks at what is watched itself again: it was removed, renamed or unmounted.
func (s *session) selves(now time.Time, w *watched, reason what) error {
	for _, t := range sorted(w.self) {
		if reason == unmounted {
			if err := s.end(now, t, unmounted); err != nil {
				return err
			}
		}
		if err := s.reconcile(now, t, reason); err != nil {
			return err
		}
	}
	for _, t := range sortedNames(w) { // their directory moved: another may have its place
		s.leave(t)
		s.attend(now, t)
		if err := s.reconcile(now, t, nothing); err != nil {
			return err
		}
	}
	return nil
}

// ignored says that the kernel has taken a watch away.
func (s *session) ignored(now time.Time, w *watched) error {
	delete(s.in.watches, w.wd)
	for p, dir := range w.walks {
		p.leave(s.in, dir)
		s.due(now.Add(searchEvery)) // if it was the root, it may come back
	}
	return s.selves(now, w, nothing)
}

// named tells of an entry of a watched directory.
func (s *session) named(now time.Time, w *watched, e rawEvent) error {
	if err := s.each(w, DirClass, func(t *target) error { return s.entry(now, t, e) }); err != nil {
		return err
	}
	reason := nothing
	switch {
	case e.mask&unix.IN_DELETE != 0:
		reason = removed
	case e.mask&unix.IN_MOVED_FROM != 0:
		reason = renamed
	case e.mask&unix.IN_MOVED_TO != 0:
		reason = replaced
	}
	for _, t := range sorted(w.names[e.name]) {
		if err := s.reconcile(now, t, reason); err != nil {
			return err
		}
	}
	for _, p := range sortedWalks(w) {
		if err := s.step(p, w, e); err != nil {
			return err
		}
	}
	return nil
}

// entry posts a change in a directory.
func (s *session) entry(now time.Time, t *target, e rawEvent) error {
	isDir := e.mask&unix.IN_ISDIR != 0
	told := t.held.listed[e.name]
	delete(t.held.listed, e.name)
	switch {
	case e.mask&unix.IN_CREATE != 0 && told:
		return nil // the listing was faster
	case e.mask&unix.IN_CREATE != 0:
		return s.post(now, t, entryCreated, e.name, isDir)
	case e.mask&unix.IN_DELETE != 0:
		return s.post(now, t, entryRemoved, e.name, isDir)
	case e.mask&unix.IN_MOVED_FROM != 0:
		return s.post(now, t, renamedFrom, e.name, isDir)
	case e.mask&unix.IN_MOVED_TO != 0:
		return s.post(now, t, renamedTo, e.name, isDir)
	}
	return nil
}

// list tells what a directory that has just come to be already holds.
func (s *session) list(now time.Time, t *target) error {
	entries, err := os.ReadDir(t.path)
	if err != nil {
		return nil // gone again: its removal is on the way
	}
	t.held.listed, t.held.doubt = map[string]bool{}, true
	for _, e := range entries {
		t.held.listed[e.Name()] = true
		if err := s.post(now, t, entryCreated, e.Name(), e.IsDir()); err != nil {
			return err
		}
	}
	return nil
}

// modified posts a write. A smaller size than before was a truncation.
func (s *session) modified(now time.Time, t *target) error {
	reason := wrote
	if m, err := look(t.path, t.class); err == nil && m.identity == t.held.identity {
		if m.size < t.held.size {
			reason = truncated
		}
		t.held.size, t.held.changed = m.size, m.changed
	}
	return s.post(now, t, reason, "", false)
}

// overflow says that the kernel dropped an unknown number of records. Each
// target that may have lost some is told, and everything is looked at anew.
func (s *session) overflow(now time.Time) error {
	for _, t := range s.targets {
		if t.held != nil {
			t.held.doubt = true
		}
	}
	if err := s.verifyAll(now, true); err != nil {
		return err
	}
	for _, t := range sortedTargets(s.targets) {
		if t.held == nil || !t.held.doubt {
			continue // gone or new since, and told so
		}
		if t.class == AttributeClass { // what it is now tells more than that records were lost
			if err := s.altered(now, t); err != nil {
				return err
			}
			continue
		}
		m, err := look(t.path, t.class)
		if err != nil || m.identity != t.held.identity || t.class == FileClass && m.changed == t.held.changed {
			continue
		}
		t.held.size, t.held.changed = m.size, m.changed
		if err := s.post(now, t, lost, "", t.class == DirClass); err != nil {
			return err
		}
	}
	return nil
}

// post sends one occurrence of what is held.
func (s *session) post(now time.Time, t *target, reason what, name string, isDir bool) error {
	path, says := limit(t.path, 3<<10), changes[reason].name
	var data proto.Message
	switch t.class {
	case FileClass:
		data = &belfryv1.FileModify{What: says, Path: path, SizeBytes: t.held.size}
	case AttributeClass:
		data = attributeData(says, path, t.held.attributes, t.held.attributes)
	case DirClass:
		data = &belfryv1.DirModify{What: says, Path: path, Name: limit(name, 512), IsDir: isDir}
	}
	return s.occurred(t, t.occurrence(now, reason), data)
}

// occurrence is one of what is held, without data.
func (t *target) occurrence(now time.Time, reason what) belfry.Occurrence {
	return belfry.Occurrence{
		Event:      belfry.EventID{Instance: t.held.instance()},
		Time:       now,
		Code:       changes[reason].code,
		LowerBound: !changes[reason].exact || t.held.doubt,
	}
}

// occurred sends an occurrence with its data.
func (s *session) occurred(t *target, o belfry.Occurrence, data proto.Message) (err error) {
	t.held.doubt = false
	if o.Data, err = (proto.MarshalOptions{Deterministic: true}).Marshal(data); err != nil {
		return err
	}
	return s.send(event.Post{Entry: t.watch.Entry, Occurrence: o})
}

// limit cuts a path to n bytes of UTF-8; the kernel allows any bytes.
func limit(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "?") }

func byWatch(a, b *target) int { return int(a.watch.ID) - int(b.watch.ID) }

// sorted is a set in the order of the watches: the order can be seen.
func sorted(set map[*target]bool) []*target {
	all := make([]*target, 0, len(set))
	for t := range set {
		all = append(all, t)
	}
	slices.SortFunc(all, byWatch)
	return all
}

func sortedNames(w *watched) []*target {
	var all []*target
	for _, set := range w.names {
		for t := range set {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, byWatch)
	return all
}

func sortedTargets[K comparable](set map[K]*target) []*target {
	all := make([]*target, 0, len(set))
	for _, t := range set {
		all = append(all, t)
	}
	slices.SortFunc(all, byWatch)
	return all
}

func sortedWalks(w *watched) []*pattern {
	all := make([]*pattern, 0, len(w.walks))
	for p := range w.walks {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pattern) int { return int(a.watch.ID) - int(b.watch.ID) })
	return all
}
