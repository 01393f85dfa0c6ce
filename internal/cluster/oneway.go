package cluster

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// Of a link that works in one direction, the end that hears nothing has to be
// told that it is heard: on another link of the pair (row.peerState), or, where
// none works, by a third node that hears both ends (cluster.md 10). The word goes
// one way only, from who hears to its peers, and from them to who is heard; what
// it can do is to show that link as one-way-out and not as down. Nobody lives or
// dies by it.

const (
	// viewAge is how old the word of a link may be that this node is heard there:
	// this many of the longest intervals that the peer announced, and more.
	viewAge, viewMore = 3, 10 * time.Second
	// oneWaysMost is how many a heartbeat carries: each peer and more.
	oneWaysMost = 16
)

// A oneWayWord is a member's own word that it hears another one and is not heard.
type oneWayWord struct {
	of    belfry.NodeNumber
	links uint16    // by its index of each
	at    time.Time // when it came
}

// A hearsay is the word of a third node that a peer hears this node.
type hearsay struct {
	by    *member
	links uint16    // by the peer's index of each
	at    time.Time // when it came
	said  time.Time // when the peer had said so
}

// wordAge is how old a word of p's links may be.
func (p *member) wordAge() time.Duration {
	longest := time.Duration(0)
	for _, r := range p.rows {
		longest = max(longest, r.announced, r.interval)
	}
	return viewAge*longest + viewMore
}

// heardHere is the links on which p is heard and does not hear this node; none
// while another one works, on which it is told.
func (p *member) heardHere() (links uint16) {
	for _, r := range p.rows {
		switch {
		case r.usable():
			return 0
		case r.state == belfry.LinkOneWayIn:
			links |= 1 << r.id.Index
		}
	}
	return links
}

// oneWays is what a heartbeat says to a peer: of links to third nodes that hear
// nothing of this one, and, by the word of third nodes, of its own links.
func (m *Machine) oneWays(now time.Time, to *member) (words []belfry.OneWay) {
	for _, p := range m.watched {
		if p == to {
			continue
		}
		if links := p.heardHere(); links != 0 {
			words = append(words, belfry.OneWay{Hearer: m.self.Number, Heard: p.Number, Links: links})
		}
		for _, w := range p.oneWays {
			if age := now.Sub(w.at); w.of == to.Number && age <= p.wordAge() {
				words = append(words, belfry.OneWay{Hearer: p.Number, Heard: to.Number, Links: w.links, Age: age})
			}
		}
	}
	return words[:min(len(words), oneWaysMost)]
}

// heardOneWays takes what a watched peer says: of itself, to be passed on, and
// of peers that hear this node. All else is nobody's word.
func (m *Machine) heardOneWays(now, at time.Time, from *member, hb *Heartbeat) {
	if hb.Probe || hb.Answer || len(from.rows) == 0 {
		return
	}
	from.oneWays = from.oneWays[:0]
	for _, w := range hb.OneWays[:min(len(hb.OneWays), oneWaysMost)] {
		switch {
		case w.Hearer == from.Number:
			from.oneWays = append(from.oneWays, oneWayWord{of: w.Heard, links: w.Links, at: at})
		case w.Heard == m.self.Number:
			m.heardHearsay(now, w.Hearer, hearsay{by: from, links: w.Links, at: at, said: at.Add(-w.Age)})
		}
	}
}

// heardHearsay takes the word of a third node, if its subject is watched.
func (m *Machine) heardHearsay(now time.Time, hearer belfry.NodeNumber, h hearsay) {
	i := slices.IndexFunc(m.watched, func(p *member) bool { return p.Number == hearer })
	if i < 0 {
		return
	}
	p := m.watched[i]
	p.hears(h)
	for _, r := range p.rows {
		m.show(now, p, r)
	}
}

// hears keeps the word of one node, in the place of an older one. It ends by its
// age and is not taken back: else one who lies could change a state with each
// heartbeat.
func (p *member) hears(h hearsay) {
	p.hearsay = slices.DeleteFunc(p.hearsay, func(o hearsay) bool { return h.at.Sub(o.at) > p.wordAge() })
	if i := slices.IndexFunc(p.hearsay, func(o hearsay) bool { return o.by == h.by }); i >= 0 {
		if h.said.After(p.hearsay[i].said) {
			p.hearsay[i] = h
		}
		return
	}
	p.hearsay = append(p.hearsay, h)
}

// heardThere tells whether this node is heard on a link on which it hears
// nothing, and who says so since it is down: the peer on another link of the
// pair, or third nodes.
func (r *row) heardThere(now time.Time, p *member) (reason string, ok bool) {
	age := p.wordAge()
	if r.peerState == belfry.LinkOneWayIn && r.peerAt.After(r.since) && now.Sub(r.peerAt) <= age {
		return "the peer hears this node, as it says on another link", true
	}
	if !p.inRing() {
		return "", false // who is down hears nobody
	}
	for _, h := range p.hearsay {
		if h.links>>r.theirs&1 == 1 && h.said.After(r.since) && now.Sub(h.at) <= age {
			return "the peer hears this node, as " + h.by.Name + " says", true
		}
	}
	return "", false
}
