package event

import (
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// send posts events that users name. The sender does not know who listens, so
// it names the event; an entry is made on the spot if only patterns match. A
// registration that has its answer can therefore not miss a later send.
func (m *Machine) send(now time.Time, msg Send) {
	sent := slices.Grow(msg.Room[:0], len(msg.Events))
	for i := range msg.Events {
		matched, err := m.sendNamed(now, &msg.Events[i])
		sent = append(sent, Sent{Matched: matched, Err: err})
	}
	if msg.Request != 0 {
		m.out.Answers = append(m.out.Answers, Answer{Request: msg.Request, Sent: sent})
	}
}

func (m *Machine) sendNamed(now time.Time, msg *Named) (matched int, err error) {
	switch {
	case msg.Repeat > maxRepeat:
		return 0, refusal(belfry.ErrLimit, "repeat %d; at most %d times are possible", msg.Repeat, maxRepeat)
	case len(msg.Data) > maxData:
		return 0, refusal(belfry.ErrLimit, "%d bytes of data; at most %d are possible", len(msg.Data), maxData)
	}
	k := key{msg.Class, msg.Subject}
	e := m.index.find(k)
	if e == nil {
		if e, err = m.makeForSend(now, k); e == nil {
			return 0, err
		}
	}
	switch {
	case e.info == nil:
		return 0, m.classes.unknown(string(msg.Class))
	case !e.info.Custom:
		return 0, notCustom(msg.Class)
	}
	at := stamp(now, msg.Time)
	e.happened(now, &belfry.Occurrence{Time: msg.Time, Data: msg.Data}, at, at, max(msg.Repeat, 1), ofPost)
	return e.wanted(), nil
}

func notCustom(class belfry.Class) error {
	return refusal(belfry.ErrUsage, "%s comes from this system; only classes that users name can be sent, user.NAME", class)
}

// makeForSend makes the entry of an event that only patterns match; nil if
// none does: then nothing happened that anybody wants to know. An entry that
// exists has a class and a subject that were found in order.
func (m *Machine) makeForSend(now time.Time, k key) (*entry, error) {
	info := m.classes.find(k.class)
	switch {
	case info == nil:
		return nil, m.classes.unknown(string(k.class))
	case !info.Custom:
		return nil, notCustom(k.class)
	}
	if err := checkSubject(k.subject); err != nil {
		return nil, err
	}
	if !m.anybodyFor(k) {
		return nil, nil
	}
	if !m.roomForOne(now) {
		err := refusal(belfry.ErrLimit, "%s: %d events are waiting to be taken; let their consumers catch up", label(k.class, k.subject), maxFound)
		m.refuse(0, belfry.NodeID{}, err)
		return nil, err
	}
	// What it is named by may be cut out of a whole request, which need not stay.
	k = key{belfry.Class(strings.Clone(string(k.class))), strings.Clone(k.subject)}
	e := m.entryFor(now, info, k, true)
	m.adopt(e)
	m.joinOpen(now, e)
	m.release(now, e)
	if e.state == belfry.EntryEnded {
		return nil, nil
	}
	return e, nil
}

// anybodyFor tells whether a pattern of a consumer or a peer fits.
func (m *Machine) anybodyFor(k key) bool {
	for _, r := range m.globs {
		if r.matchesLocal(k.class, k.subject) {
			return true
		}
	}
	for _, p := range m.peers {
		for _, i := range p.globs {
			if i.matches(k) {
				return true
			}
		}
		if len(p.exact[k]) > 0 {
			return true
		}
	}
	return false
}
