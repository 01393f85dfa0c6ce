package wire

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// proofAge is how long a proof that the peer knows my boot is relied on:
	// the short form can not be opened by a peer that has started anew.
	proofAge = 60 * time.Second
	// duplicateAfter leaves time to what was under way when a boot was replaced.
	duplicateAfter = 2 * time.Second
	// wishEvery bounds what an authentic but unproven datagram makes me send.
	wishEvery = 100 * time.Millisecond
	// maxShelved bounds the candidates that are remembered beside the newest one.
	maxShelved = 4
	// maxRetired bounds the boots of one incarnation, of which there is one for
	// each resume from a snapshot. Beyond it the peer must start anew.
	maxRetired = 1024
)

// A session is one start of a peer: what its datagrams are opened with, and
// which of them were accepted.
type session struct {
	incarnation belfry.Incarnation
	boot        belfry.Boot

	// at is the last proof of a present session (zero: none since this node's
	// own boot), the last datagram of a candidate, and the end of a replaced one.
	at time.Time

	long, short         window
	longKeys, shortKeys keys
}

// A peer is one other member.
type peer struct {
	id     belfry.NodeID
	number belfry.NodeNumber
	member bool // those that left the table keep their windows, in case they return

	// present has shown that it knows my present boot. candidate has not yet;
	// while pending, what I send shows its boot and not that of present.
	// previous is the one that present replaced. Each may be nil.
	present, candidate, previous *session

	// shelved are former candidates, oldest first. Their windows must stay:
	// else recordings of two boots, taken in turn, would be accepted for ever.
	shelved []*session

	pending bool
	retired []belfry.Boot // those of present's incarnation that were replaced; at most maxRetired

	longCounter, shortCounter uint32 // the last ones sent; short counts per boot of the peer
	longKeys, shortKeys       keys   // for sending

	wished time.Time // when the last wish to show it my boot was noted
	wanted bool      // the wish was not taken yet
}

// sessions are all that are kept, the likeliest first.
func (p *peer) sessions(yield func(*session) bool) {
	for _, s := range [...]*session{p.present, p.candidate, p.previous} {
		if s != nil && !yield(s) {
			return
		}
	}
	for _, s := range p.shelved {
		if !yield(s) {
			return
		}
	}
}

// session finds the one of a long datagram, nil if it is unknown.
func (p *peer) session(incarnation belfry.Incarnation, boot belfry.Boot) *session {
	for s := range p.sessions {
		if s.incarnation == incarnation && s.boot == boot {
			return s
		}
	}
	return nil
}

// outdated tells whether an unknown session is one that can not come any more:
// incarnations never fall, and a boot once replaced never returns.
func (p *peer) outdated(incarnation belfry.Incarnation, boot belfry.Boot) bool {
	if p.present == nil || incarnation > p.present.incarnation {
		return false
	}
	return incarnation < p.present.incarnation || len(p.retired) == maxRetired || slices.Contains(p.retired, boot)
}

// propose makes s the candidate. A candidate of a newer incarnation is kept
// as long as it is heard.
func (p *peer) propose(now time.Time, s *session) bool {
	if c := p.candidate; c != nil && c != s {
		if s.incarnation < c.incarnation && now.Sub(c.at) <= proofAge {
			return false
		}
		p.takeDown(s)
		if p.shelved = append(p.shelved, c); len(p.shelved) > maxShelved {
			p.shelved = slices.Delete(p.shelved, 0, 1)
		}
	}
	s.at, p.candidate, p.pending = now, s, true
	return true
}

// takeDown removes a session from the shelf, if it is there.
func (p *peer) takeDown(s *session) {
	p.shelved = slices.DeleteFunc(p.shelved, func(other *session) bool { return other == s })
}

// adopt makes s, which has proved that it knows my present boot, the present
// session.
func (p *peer) adopt(now time.Time, s *session) {
	if old := p.present; old != nil {
		old.at = now
		p.previous = old
		if s.incarnation > old.incarnation {
			p.retired = nil
		} else {
			p.retired = append(p.retired, old.boot)
		}
	}
	s.at, p.present = now, s
	if c := p.candidate; c != nil && (c == s || c.incarnation < s.incarnation) {
		p.candidate, p.pending = nil, false
	}
	p.takeDown(s)
	p.shelved = slices.DeleteFunc(p.shelved, func(other *session) bool { return other.incarnation < s.incarnation })
	// The key of the short form holds the peer's boot: the counter starts anew
	// with it, since the peer's window does.
	p.shortCounter, p.shortKeys = 0, keys{}
	p.prove(now)
}

// prove notes that the present session has shown my present boot. It ends the
// wait for a candidate of the same incarnation, which may have been a
// recording. A newer incarnation is always the younger one.
func (p *peer) prove(now time.Time) {
	p.present.at = now
	if p.candidate != nil && p.candidate.incarnation <= p.present.incarnation {
		p.pending = false
	}
}

// sendsShort tells whether the peer is sure to know my boot and I its.
func (p *peer) sendsShort(now time.Time) bool {
	s := p.present
	return s != nil && !p.pending && !s.at.IsZero() && now.Sub(s.at) <= proofAge
}

// shown is the boot that I show the peer as its own; zero: none.
func (p *peer) shown() belfry.Boot {
	switch {
	case p.pending:
		return p.candidate.boot
	case p.present != nil:
		return p.present.boot
	}
	return 0
}

// forgetKeys drops the ciphers, of a node that is no member any more or of a
// secret that counts no more. The windows stay: with them nothing recorded
// before is taken should either return.
func (p *peer) forgetKeys() {
	p.longKeys, p.shortKeys = keys{}, keys{}
	for s := range p.sessions {
		s.longKeys, s.shortKeys = keys{}, keys{}
	}
}

// reboot forgets what hung on my boot.
func (p *peer) reboot() {
	p.longCounter, p.longKeys = 0, keys{}
	p.shortCounter, p.shortKeys = 0, keys{}
	for s := range p.sessions {
		s.short, s.shortKeys = window{}, keys{}
	}
	if p.present != nil {
		p.present.at = time.Time{}
	}
}
