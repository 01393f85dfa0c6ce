package process

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A session is one call of Run: the watches and the processes they hold.
type session struct {
	poll    *poller
	send    producer.Send
	targets map[event.WatchID]*target
	tokens  map[uint64]*target // of held processes, as the poller knows them
	last    uint64             // token
	hints   hints

	connect   func() (*connector, error)
	connector *connector       // nil: there is none, or nobody needs it
	attending map[*target]bool // who needs it
	ways      *ways

	units    Units
	mains    Mains          // nil: no service is followed
	followed map[string]int // services, and by how many targets
	news     chan struct{}  // capacity 1: mains have changed
}

// A target is one watch.
type target struct {
	watch   event.Watch
	subject subject
	held    *held         // nil: nothing of that name is there
	search  time.Time     // when to look next; zero: not
	closely time.Time     // look closely until then
	hint    time.Duration // after a hint: until the next search; zero: none
	had     bool          // it held one before, and is not refused any more
	doubt   bool          // one may have come and gone unseen: the next count is a lower bound
	next    turn          // byUnit: that was found last
	over    turn          // byUnit: that has ended

	opened   int  // byExe: inotify's number of the file; 0: none
	executed bool // byExe: the file may have been executed since the last search
}

// held is the process that a target names now.
type held struct {
	pid    int
	start  uint64 // ticks after boot; with pid it names one process for good
	pidfd  int
	token  uint64
	turn   turn // of what is held byUnit
	file   file // that it runs
	exe    string
	cmd    string
	uid    uint32
	reaped time.Time // it is dead, and unknown then if nobody has said how; zero: it lives
	died   time.Time // when that was seen
}

func (h *held) instance() string { return stat{pid: h.pid, start: h.start}.instance() }

func newSession(poll *poller, p *Producer, send producer.Send) *session {
	return &session{
		poll: poll, send: send, targets: map[event.WatchID]*target{}, tokens: map[uint64]*target{},
		hints:   hints{fd: -1, who: map[*target]bool{}},
		connect: p.connect, attending: map[*target]bool{}, ways: &p.ways,
		units: p.units, followed: map[string]int{}, news: make(chan struct{}, 1),
	}
}

func (s *session) close() {
	for _, t := range s.targets {
		s.forget(t)
	}
}

// watch begins a watch. One that is there already may have changed in Wait
// only, which matters for the first search alone.
func (s *session) watch(now time.Time, w event.Watch) error {
	if t := s.targets[w.ID]; t != nil {
		t.watch = w
		return nil
	}
	if w.Entry == 0 {
		return s.send(event.End{Watch: w.ID, Err: fmt.Errorf("%w: process.exit takes no patterns; %s", belfry.ErrUnsupported, forms)})
	}
	sub, err := parse(w.Subject)
	if err != nil {
		return s.send(event.End{Entry: w.Entry, Err: err})
	}
	t := &target{watch: w, subject: sub}
	s.targets[w.ID] = t
	s.follow(t)
	s.attend(t) // before the search, so that nothing comes in between
	if err := s.locate(now, t, new(shared)); err != nil {
		return err
	}
	t.again(now, s.connector != nil)
	return nil
}

func (s *session) unwatch(id event.WatchID) {
	if t := s.targets[id]; t != nil {
		s.forget(t)
	}
}

func (s *session) forget(t *target) {
	s.drop(t)
	s.unlisten(t)
	s.unfollow(t)
	s.unattend(t)
	delete(s.targets, t.watch.ID)
}

// nextTimeout is when advance has something to do; zero: never.
func (s *session) nextTimeout() (next time.Time) {
	for _, t := range s.targets {
		for _, due := range []time.Time{t.search, t.reaped()} {
			if !due.IsZero() && (next.IsZero() || due.Before(next)) {
				next = due
			}
		}
	}
	return next
}

func (t *target) reaped() time.Time {
	if t.held == nil {
		return time.Time{}
	}
	return t.held.reaped
}

// advance does what is due: searches, and deaths that nobody explained.
func (s *session) advance(now time.Time) error {
	var once shared
	for _, id := range slices.Sorted(maps.Keys(s.targets)) {
		t := s.targets[id]
		if due := t.reaped(); !due.IsZero() && !due.After(now) {
			if err := s.post(now, t, unknown); err != nil {
				return err
			}
			continue
		}
		if t.search.IsZero() || t.search.After(now) {
			continue
		}
		if err := s.locate(now, t, &once); err != nil {
			return err
		}
		t.again(now, s.connector != nil)
	}
	return nil
}

// again says when to look next: closely after an exit, else each second where
// something may come or change without a process that ends.
func (t *target) again(now time.Time, told bool) {
	switch {
	case t.subject.kind == byUnit:
		t.search = time.Time{} // systemd tells
	case told && t.subject.kind == byExe, told && t.subject.kind == byCmdline && t.held == nil:
		t.search = now.Add(t.beside())
	case t.held == nil && t.hint > 0:
		t.search = now.Add(t.hint)
		if t.hint *= 2; t.hint > lastHint {
			t.hint = 0
		}
	case t.held == nil && now.Before(t.closely):
		t.search = now.Add(closely)
	case t.held == nil, t.subject.kind == byExe, t.subject.kind == byPidfile:
		t.search = now.Add(searchEvery)
	default:
		t.search = time.Time{}
	}
}

// renewed looks at what names services, whose main processes have changed.
func (s *session) renewed(now time.Time) error {
	for _, id := range slices.Sorted(maps.Keys(s.targets)) {
		if t := s.targets[id]; t.subject.kind == byUnit {
			if err := s.locate(now, t, new(shared)); err != nil {
				return err
			}
		}
	}
	return nil
}

// ended takes what the poller reports.
func (s *session) ended(now time.Time, tokens []uint64) error {
	for _, token := range tokens {
		switch token {
		case hintToken:
			if err := s.hinted(now); err != nil {
				return err
			}
			continue
		case connectorToken:
			if err := s.executed(now); err != nil {
				return err
			}
			continue
		}
		t := s.tokens[token]
		if t == nil {
			continue // unwatched meanwhile
		}
		how, ok := status(t.held)
		if !ok { // dead, and its parent has not asked yet
			if err := s.poll.untilReaped(t.held.pidfd, token); err != nil {
				return err
			}
			if t.held.reaped.IsZero() {
				t.held.died, t.held.reaped = now, now.Add(reapedWithin)
			}
			continue
		}
		if err := s.post(now, t, how); err != nil {
			return err
		}
	}
	return nil
}

// post tells how the process ended, and looks for its successor.
func (s *session) post(now time.Time, t *target, how exit) error {
	h := t.held
	data := &belfryv1.ProcessExit{
		Pid: int32(h.pid), Signal: how.signal, CoreDumped: how.coreDumped,
		Exe: limit(h.exe, 1024), Cmdline: limit(h.cmd, 2048), Uid: h.uid, StatusSource: how.source,
	}
	if how.source != unknown.source && how.signal == "" {
		data.ExitCode = &how.code
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil {
		return err
	}
	at := now
	if !h.died.IsZero() {
		at = h.died
	}
	entry, instance := t.watch.Entry, h.instance()
	doubt := t.doubt
	t.doubt = false
	messages := []event.Message{
		event.Post{Entry: entry, Occurrence: belfry.Occurrence{
			Event: belfry.EventID{Instance: instance}, Time: at, Data: b, LowerBound: doubt,
		}},
		event.Invalidate{Entry: entry, Instance: instance},
	}
	if !t.subject.follows() {
		messages = append(messages, event.End{Entry: entry, Err: fmt.Errorf(
			"%w: %s has ended; a process id names no successor, exe= and pidfile= do", belfry.ErrNoEvent, t.subject.text)})
	}
	if err := s.send(messages...); err != nil { // before anything that can wait
		return err
	}
	if !t.subject.follows() {
		s.forget(t)
		return nil
	}
	s.drop(t)
	t.had, t.closely, t.over = true, now.Add(closelyFor), h.turn
	if err := s.locate(now, t, new(shared)); err != nil {
		return err
	}
	t.again(now, s.connector != nil)
	return nil
}

// drop lets go of the process, if there is one.
func (s *session) drop(t *target) {
	if t.held != nil {
		delete(s.tokens, t.held.token)
		unix.Close(t.held.pidfd) // leaves the epoll set by itself
		t.held = nil
	}
}

// hold takes a process that a search found. It opens the pidfd first and then
// reads the start time again: if that is still the same, the descriptor is of
// the process that was found, whatever happens to the number from now on
// (pidfd_open(2)). It answers false if it was gone already.
func (s *session) hold(t *target, found stat) (bool, error) {
	fd, err := unix.PidfdOpen(found.pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // gone, or the number is a thread's
		return false, nil
	}
	if err != nil {
		return false, refusal(t.subject, err)
	}
	now, err := readStat(found.pid)
	if err != nil || now.start != found.start {
		unix.Close(fd)
		return false, nil
	}
	s.last++
	h := &held{pid: found.pid, start: found.start, pidfd: fd, token: s.last, turn: t.next, cmd: readCmdline(found.pid)}
	h.exe, _ = readExe(found.pid)
	h.file, _ = exeFile(found.pid)
	if uids, ok := readUIDs(found.pid); ok {
		h.uid = uids[0]
	}
	if err := s.poll.add(fd, h.token); err != nil {
		unix.Close(fd)
		return false, refusal(t.subject, err)
	}
	t.held, s.tokens[h.token], t.hint = h, t, 0
	s.unlisten(t)
	return true, nil
}

// refusal names the sentinel for an error of the kernel's.
func refusal(sub subject, err error) error {
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: %s: %w; raise LimitNOFILE", belfry.ErrLimit, sub.text, err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: %s: this kernel has no pidfd_open; Linux 5.3 does", belfry.ErrUnsupported, sub.text)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s: %w", belfry.ErrPermission, sub.text, err)
	}
	return fmt.Errorf("%w: %s: %w", belfry.ErrUnknown, sub.text, err)
}
