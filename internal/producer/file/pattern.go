package file

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A pattern is the watch of all paths that match. It watches each directory
// that can hold one.
type pattern struct {
	watch    event.Watch
	class    belfry.Class
	segments []string // of the pattern between slashes
	root     string   // the deepest directory above the first star
	dirs     map[string]*watched
	found    map[string]bool // matching paths; true: it came to be under our eyes
	scanned  bool            // root was there: what is found from now on is new
}

func (s *session) watchPattern(now time.Time, w event.Watch) error {
	glob := filepath.Clean(w.Subject)
	p := &pattern{
		watch: w, class: w.Class, segments: strings.Split(glob, "/")[1:],
		dirs: map[string]*watched{}, found: map[string]bool{},
	}
	p.watch.Subject, p.root = glob, "/"
	for _, segment := range p.segments[:len(p.segments)-1] {
		if producer.HasStar(segment) {
			break
		}
		p.root = filepath.Join(p.root, producer.Literal(segment))
	}
	s.patterns[w.ID] = p
	return s.rescan(now, p)
}

// rescan walks the tree and tells what it has not told before.
func (s *session) rescan(now time.Time, p *pattern) error {
	err := s.walk(p, p.root, p.scanned)
	switch {
	case err == nil:
		p.scanned = true
	case errors.Is(err, errSend):
		return err
	case errors.Is(err, belfry.ErrNoEvent): // comes to be later, or again
		p.lose(s.in, p.root)
		p.scanned = true
	default:
		s.forgetPattern(p)
		return s.send(event.End{Watch: p.watch.ID, Err: err})
	}
	if p.dirs[p.root] == nil {
		s.due(now.Add(searchEvery))
	}
	return nil
}

// errSend marks an error of send: ctx has ended.
var errSend = errors.New("the event machine takes no more messages")

// walk watches a directory and all below it that can hold a match, and tells
// the matches. A directory that can not be read is passed over, unless it is
// the root of the pattern.
func (s *session) walk(p *pattern, root string, fresh bool) error {
	todo := []string{root}
	for len(todo) > 0 {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		entries, err := s.open(p, dir)
		if err != nil {
			if dir == p.root || errors.Is(err, belfry.ErrLimit) {
				return err
			}
			continue
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if err := s.visit(p, path, e.Type(), fresh); err != nil {
				return err
			}
			if e.IsDir() && p.canHold(path) {
				todo = append(todo, path)
			}
		}
	}
	return nil
}

// open watches a directory and then lists it, so that nothing is missed.
func (s *session) open(p *pattern, dir string) ([]os.DirEntry, error) {
	if err := supported(dir); err != nil {
		return nil, err
	}
	w, err := s.in.add(dir, nameMask|unix.IN_DONT_FOLLOW)
	if err != nil {
		return nil, explain(dir, err)
	}
	if old := p.dirs[dir]; old != nil && old != w { // another directory of that name
		p.leave(s.in, dir)
	}
	p.dirs[dir], w.walks[p] = w, dir
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, explain(dir, err)
	}
	return entries, nil
}

// visit tells a path that matches, once.
func (s *session) visit(p *pattern, path string, kind fs.FileMode, fresh bool) error {
	fits := kind.IsRegular() && p.class != DirClass || kind.IsDir() && p.class != FileClass
	if _, told := p.found[path]; told || !fits || !producer.Match(p.watch.Subject, path) {
		return nil
	}
	p.found[path] = fresh
	if err := s.send(event.Found{Watch: p.watch.ID, Subject: path}); err != nil {
		return errors.Join(errSend, err)
	}
	return nil
}

// step takes what happened to an entry of a directory that the pattern watches.
func (s *session) step(p *pattern, w *watched, e rawEvent) error {
	dir, ok := w.walks[p]
	if !ok {
		return nil // the pattern ended meanwhile
	}
	path := filepath.Join(dir, e.name)
	if e.mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0 {
		p.lose(s.in, path)
		return nil
	}
	if e.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) == 0 {
		return nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil // gone again
	}
	fresh := true
	for t := range w.names[e.name] {
		fresh = fresh && t.class != p.class // its entry is there and tells that it came
	}
	if err := s.visit(p, path, info.Mode().Type(), fresh); err != nil {
		return err
	}
	if !info.IsDir() || !p.canHold(path) {
		return nil
	}
	if err := s.walk(p, path, true); err != nil && !errors.Is(err, belfry.ErrNoEvent) {
		if errors.Is(err, errSend) {
			return err
		}
		s.forgetPattern(p)
		return s.send(event.End{Watch: p.watch.ID, Err: err})
	}
	return nil
}

// canHold tells whether a path that matches can lie below a directory.
func (p *pattern) canHold(dir string) bool {
	for i, part := range strings.Split(dir, "/")[1:] {
		switch {
		case strings.Contains(p.segments[i], "**"):
			return true
		case i == len(p.segments)-1:
			return false
		case !producer.Match(p.segments[i], part):
			return false
		}
	}
	return true
}

// lose forgets a path and all below it.
func (p *pattern) lose(in *inotify, path string) {
	below := path + "/"
	for dir := range p.dirs {
		if dir == path || strings.HasPrefix(dir, below) {
			p.leave(in, dir)
		}
	}
	for other := range p.found {
		if other == path || strings.HasPrefix(other, below) {
			delete(p.found, other)
		}
	}
}

// leave ends the watch of one directory.
func (p *pattern) leave(in *inotify, dir string) {
	if w := p.dirs[dir]; w != nil {
		delete(p.dirs, dir)
		delete(w.walks, p)
		in.drop(w)
	}
}

func (s *session) forgetPattern(p *pattern) {
	for _, dir := range slices.Sorted(maps.Keys(p.dirs)) {
		p.leave(s.in, dir)
	}
	delete(s.patterns, p.watch.ID)
}

// findings tells whether a pattern has found a path, and seen it come to be.
func (s *session) findings(path string, class belfry.Class) (found, fresh bool) {
	for _, p := range s.patterns {
		if came, ok := p.found[path]; ok && p.class == class {
			found, fresh = true, fresh || came
			p.found[path] = false // it is told once
		}
	}
	return found, fresh
}
