package process

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// The kernel opens a file before it executes it, and inotify tells. So while
// an exe= is waited for, its file is watched, and a process that lives far
// shorter than the time between two searches is found. The program shows in
// /proc a little later, so a hint is followed by several searches.
const (
	firstHint = time.Millisecond // doubles
	lastHint  = 64 * time.Millisecond
)

// errHidden is why an exe= may have a process that is not found: one of that name
// runs something that we may not see.
var errHidden = fmt.Errorf("%w", belfry.ErrPermission)

// hintToken stands for the inotify instance in the poller; those of processes begin at 1.
const hintToken = 0

// hints is one inotify instance, open while somebody waits for an exe=.
type hints struct {
	fd  int // -1: closed
	who map[*target]bool
}

// listen asks for a hint. That is a help only: where it fails, a search each
// second goes on.
func (s *session) listen(t *target) {
	if t.subject.kind != byExe {
		return
	}
	opened := s.openings(t)
	t.executed = t.executed || opened == 0 || opened != t.opened
	t.opened = opened
}

// openings is inotify's number for the file of t; 0: it does not tell.
func (s *session) openings(t *target) int {
	if s.connector != nil {
		return 0
	}
	h := &s.hints
	if h.fd < 0 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return 0
		}
		if err := s.poll.add(fd, hintToken); err != nil {
			unix.Close(fd)
			return 0
		}
		h.fd = fd
	}
	h.who[t] = true
	number, err := unix.InotifyAddWatch(h.fd, t.subject.path, unix.IN_OPEN) // again each time: the file may be another one now
	if err != nil {
		return 0
	}
	return number
}

// anotherOf tells whether why is a process of the same name that runs another
// file: nobody has opened the one that is meant since it was searched for last.
func (t *target) anotherOf(why error) bool {
	return errors.Is(why, errHidden) && (!t.executed || t.hint > 0)
}

// unlisten ends what listen began.
func (s *session) unlisten(t *target) {
	h := &s.hints
	delete(h.who, t)
	if len(h.who) == 0 && h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
	}
}

// hinted searches now, and soon after, for everybody who listens: which file
// it was does not matter.
func (s *session) hinted(now time.Time) error {
	h := &s.hints
	if h.fd < 0 {
		return nil
	}
	var buffer [4096]byte
	for {
		if _, err := unix.Read(h.fd, buffer[:]); err != nil && !errors.Is(err, unix.EINTR) {
			break // EAGAIN: that was all
		}
	}
	for t := range h.who {
		t.search, t.hint, t.executed = now, firstHint, true
	}
	if err := s.poll.again(h.fd, hintToken); err != nil {
		return err
	}
	return s.advance(now)
}
