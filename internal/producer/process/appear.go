package process

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// How what is not there yet is found: the connector tells, or /proc is searched
// again and again. While there is a connector a search is for what it can not
// tell: a process that writes over its command line, a symbolic link that names
// another file now.
const searchBeside = 10 * time.Second

// beside is when to search next while the connector tells. A command line may be
// written over at any time.
func (t *target) beside() time.Duration {
	if t.subject.kind == byCmdline {
		return searchEvery
	}
	return searchBeside
}

// ways says how a Producer finds processes now.
type ways struct {
	mu   sync.Mutex
	text string
}

func (w *ways) say(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = text
}

// Source is how processes are found that appear later, and why not in the better
// way; empty while nobody asks for such.
func (p *Producer) Source() string {
	p.ways.mu.Lock()
	defer p.ways.mu.Unlock()
	return p.ways.text
}

// appears tells whether the executions of processes matter to a target.
func (t *target) appears() bool { return t.subject.kind == byExe || t.subject.kind == byCmdline }

// attend makes the connector tell, if it can be had. It is asked for once in each
// time that somebody needs it.
func (s *session) attend(t *target) {
	if !t.appears() {
		return
	}
	s.attending[t] = true
	if len(s.attending) > 1 {
		return
	}
	c, err := s.connect()
	if err == nil {
		if err = s.poll.add(c.fd, connectorToken); err != nil {
			c.close()
		}
	}
	if err != nil {
		s.ways.say(fmt.Sprintf("scan of /proc: %v", err))
		return
	}
	s.connector = c
	s.ways.say("process connector")
}

// unattend ends what attend began.
func (s *session) unattend(t *target) {
	if !s.attending[t] {
		return
	}
	delete(s.attending, t)
	if len(s.attending) == 0 {
		s.disconnect()
		s.ways.say("")
	}
}

func (s *session) disconnect() {
	if s.connector != nil {
		s.connector.close()
		s.connector = nil
	}
}

// executed takes what the connector has to tell.
func (s *session) executed(now time.Time) error {
	if s.connector == nil {
		return nil
	}
	pids := map[int]bool{}
	var lost error
	for lost == nil {
		m, err := s.connector.receive()
		if lost = err; err == nil && m == nil {
			break
		}
		if err == nil && m.what == eventExec {
			pids[m.pid] = true
		}
	}
	switch {
	case errors.Is(lost, unix.ENOBUFS):
		return s.overrun(now)
	case lost != nil: // it will tell nothing more
		s.disconnect()
		s.ways.say(fmt.Sprintf("scan of /proc: the process connector has ended: %v", lost))
		return s.overrun(now)
	}
	if err := s.poll.again(s.connector.fd, connectorToken); err != nil {
		return err
	}
	for _, pid := range slices.Sorted(maps.Keys(pids)) {
		if err := s.began(now, pid); err != nil {
			return err
		}
	}
	return nil
}

// began looks at one process that has executed something.
func (s *session) began(now time.Time, pid int) error {
	exe, cmdline := "", ""
	for _, id := range slices.Sorted(maps.Keys(s.targets)) {
		t := s.targets[id]
		switch {
		case !t.appears():
			continue
		case t.held != nil && t.held.pid != pid:
			continue
		case t.held != nil: // it may run something else now
		case t.subject.kind == byExe:
			if exe == "" {
				exe, _ = readExe(pid)
			}
			real, err := filepath.EvalSymlinks(t.subject.path)
			if exe == "" || exe != t.subject.path && (err != nil || exe != real) {
				continue
			}
		default:
			if cmdline == "" {
				cmdline = readCmdline(pid)
			}
			if !t.subject.matches(cmdline) {
				continue
			}
		}
		if err := s.locate(now, t, new(shared)); err != nil {
			return err
		}
		t.again(now, s.connector != nil)
	}
	return nil
}

// overrun is when some executions were not told: what is not there may have come
// and gone, so its next count is a lower bound, and all is searched for.
func (s *session) overrun(now time.Time) error {
	for _, t := range s.targets {
		if t.appears() {
			t.doubt = t.doubt || t.held == nil
			t.search = now
		}
	}
	if s.connector != nil {
		if err := s.poll.again(s.connector.fd, connectorToken); err != nil {
			return err
		}
	}
	return s.advance(now)
}
