package event

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// An answer waits for what may still turn it into a refusal or say more. Each
// reason has a time of its own; none holds up what the registration gets.
type awaited uint8

const (
	// awaitStart: without Wait the event must be there. A producer that was
	// told that nobody waits says so; else nothing for startWait means absent.
	awaitStart awaited = 1 << iota
	// awaitWord: a producer refuses at once what it can not serve.
	awaitWord
	// awaitPeers: other nodes say whether the interest is in force there.
	awaitPeers
)

// How long an answer may be held back.
const (
	startWait = time.Second
	wordWait  = 100 * time.Millisecond
	coverWait = 500 * time.Millisecond
)

// lateAnswers are answers held back for one reason, in the order of their
// deadlines, because every reason has one duration.
type lateAnswers struct {
	reason awaited
	wait   time.Duration
	queue  []lateAnswer
}

type lateAnswer struct {
	reg      *registration
	deadline time.Time
}

func newLateAnswers() [3]lateAnswers {
	return [3]lateAnswers{
		{reason: awaitStart, wait: startWait},
		{reason: awaitWord, wait: wordWait},
		{reason: awaitPeers, wait: coverWait},
	}
}

func (l *lateAnswers) open(a lateAnswer) bool {
	return !a.reg.removed && a.reg.request != 0 && a.reg.awaits&l.reason != 0
}

// trim lets go of what has been answered.
func (l *lateAnswers) trim() {
	n := 0
	for n < len(l.queue) && !l.open(l.queue[n]) {
		n++
	}
	clear(l.queue[:n])
	l.queue = l.queue[n:]
}

// await holds the answer of a registration back.
func (m *Machine) await(now time.Time, r *registration, reason awaited) {
	r.awaits |= reason
	for i := range m.late {
		if l := &m.late[i]; l.reason == reason {
			l.queue = append(l.queue, lateAnswer{r, now.Add(l.wait)})
		}
	}
}

// heard says that a reason to wait is gone; the last one lets the answer go.
func (m *Machine) heard(r *registration, reason awaited) {
	r.awaits &^= reason
	if r.awaits == 0 && !r.removed {
		m.answer(r, nil)
	}
}

// answersDue gives the answers whose time is over.
func (m *Machine) answersDue(now time.Time) {
	for i := range m.late {
		l := &m.late[i]
		for l.trim(); len(l.queue) > 0 && !l.queue[0].deadline.After(now); l.trim() {
			r := l.queue[0].reg
			if l.reason == awaitStart {
				m.reject(now, r, noEvent(r.home.class, r.home.subject))
				continue
			}
			m.heard(r, l.reason)
		}
	}
}

// decide answers a registration that has been put in force, or says what its
// answer waits for.
func (m *Machine) decide(now time.Time, r *registration) {
	if r.request == 0 {
		return
	}
	if e := r.home; e != nil && !e.ever {
		switch {
		case r.waits():
			m.await(now, r, awaitWord)
		case !e.wait:
			r.awaits |= awaitStart // its producer has to say
		case now.UnixNano()-e.since >= int64(startWait):
			m.reject(now, r, noEvent(e.class, e.subject))
			return
		default:
			// Others wait for the event, so its producer will not say that it is
			// absent. If it is there, it says so at once after the start.
			m.await(now, r, awaitStart)
		}
		own := e.own()
		own.starting = append(own.starting, r)
	}
	for _, p := range r.patterns {
		if !p.answered && r.awaits&awaitWord == 0 {
			m.await(now, r, awaitWord)
		}
	}
	if r.want != nil && r.want.pending > 0 {
		m.await(now, r, awaitPeers)
	}
	if r.awaits == 0 {
		m.answer(r, nil)
	}
}

// answer says the outcome, once.
func (m *Machine) answer(r *registration, err error) {
	if r.request == 0 {
		return
	}
	a := Answer{Request: r.request, Consumer: r.consumer.id, Number: r.number, Err: err}
	if err == nil && r.want != nil {
		a.Coverage = m.coverageOf(r)
	}
	m.out.Answers = append(m.out.Answers, a)
	r.request = 0
}

// reject answers with an error and leaves nothing behind.
func (m *Machine) reject(now time.Time, r *registration, err error) {
	m.answer(r, err)
	m.remove(now, r)
}

// startedAll answers the registrations that waited for the producer.
func (m *Machine) startedAll(e *entry) {
	for _, r := range e.starting {
		m.heard(r, awaitStart|awaitWord)
	}
	if len(e.starting) > 0 {
		e.starting = nil
	}
}

// rejectStarting refuses those who asked for an event that must be there. It
// tells whether nothing is left to end: the entry is gone, or others wait for
// the event.
func (m *Machine) rejectStarting(now time.Time, e *entry, err error) bool {
	if err == nil {
		err = noEvent(e.class, e.subject)
	}
	absent := belfry.Code(err) == belfry.Code(belfry.ErrNoEvent)
	e.holds++ // so that it does not go before all are answered
	starting, own := e.starting, e.own()
	own.starting = nil
	for _, r := range starting {
		switch {
		case r.removed || r.request == 0:
		case absent && r.waits():
			own.starting = append(own.starting, r)
		default:
			m.reject(now, r, err)
		}
	}
	e.holds--
	if e.holds == 0 {
		m.release(now, e)
		return true
	}
	if e.state == belfry.EntryStarting && e.wait && absent {
		// The producer said so before it heard that somebody waits.
		e.setState(now, belfry.EntryBlocked)
		m.out.Watch = append(m.out.Watch, e.asWatch())
		return true
	}
	return false
}
