package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// PairKind is what of a pair an expectation is about.
type PairKind uint8

// The kinds: none for one about a node.
const (
	PairNone PairKind = iota
	PairLink
	PairContact
)

// linkNews is one change of a link or a contact that a node told.
type linkNews struct {
	kind     PairKind
	at       time.Duration
	observer int
	peer     int
	network  string // of a link
	state    string
}

// link keeps a change of a link, where the scenario asks for one.
func (c *checker) link(s *simulation, h *host, change cluster.LinkChange) {
	c.keep(s, linkNews{
		kind: PairLink, observer: int(h.n), peer: numberOf(change.Peer), network: change.Network, state: change.To.String(),
	})
}

// contact keeps a change of a contact, where the scenario asks for one.
func (c *checker) contact(s *simulation, h *host, change cluster.ContactChange) {
	state := "down"
	if change.Up {
		state = "up"
	}
	c.keep(s, linkNews{kind: PairContact, observer: int(h.n), peer: numberOf(change.Peer), state: state})
}

func (c *checker) keep(s *simulation, n linkNews) {
	n.at = time.Duration(s.now)
	if slices.ContainsFunc(s.scenario.Expects, n.answers) {
		c.news = append(c.news, n)
	}
}

// answers tells whether the change is what an expectation asks for.
func (n linkNews) answers(e Expect) bool {
	return n.kind == e.Pair && n.observer == e.Node && n.peer == e.Peer && n.network == e.Network && n.state == e.State
}

// expectPair looks for what one line wants of a link or a contact. A time
// counts from the last cause before the change.
func (s *simulation) expectPair(e Expect) bool {
	causes, seen := s.scenario.pairCauses(e), "never"
	for _, n := range s.check.news {
		if !n.answers(e) {
			continue
		}
		after := n.at
		for _, cause := range causes {
			if cause <= n.at {
				after = n.at - cause
			}
		}
		if e.Never {
			s.fail(e.Node, fmt.Sprintf("line %d: %s: at %.3fs", e.Line, e.formatPair(), n.at.Seconds()))
			return false
		}
		if e.Within == 0 || after <= e.Within {
			return true
		}
		seen = fmt.Sprintf("%v after the cause", after)
	}
	if !e.Never {
		s.fail(e.Node, fmt.Sprintf("line %d: %s: %s", e.Line, e.formatPair(), seen))
	}
	return e.Never
}

// pairCauses are the times at which something began or ended that concerns
// either end, in order.
func (s *Scenario) pairCauses(e Expect) []time.Duration {
	at := append(s.causes(e.Node), s.causes(e.Peer)...)
	for _, st := range s.Steps {
		if st.condition() && st.Until > 0 && (names(st.From, e.Node) || names(st.To, e.Node) || names(st.From, e.Peer) || names(st.To, e.Peer)) {
			at = append(at, st.Until)
		}
	}
	slices.Sort(at)
	return at
}

func (e *Expect) formatPair() string {
	text := "expect "
	if e.Never {
		text += "never "
	}
	kind, on := "contact ", ""
	if e.Pair == PairLink {
		kind, on = "link ", "@"+e.Network
	}
	text += kind + Name(e.Node) + ">" + Name(e.Peer) + on + " " + e.State
	if e.Within != 0 {
		text += " within " + e.Within.String()
	}
	return text
}

// pairExpectation reads what is expected of a link or a contact; false: the
// line is about something else.
func (p *parser) pairExpectation(e *Expect) (bool, error) {
	switch {
	case p.skip("link"):
		e.Pair = PairLink
	case p.skip("contact"):
		e.Pair = PairContact
	default:
		return false, nil
	}
	var s Step
	if err := p.pairs(&s); err != nil {
		return true, err
	}
	if s.Both || len(s.From) != 1 || len(s.To) != 1 || s.From[0] == s.To[0] || (s.Network != "") != (e.Pair == PairLink) {
		return true, p.fault("that is not what one node holds of another; link n1>n2@%s or contact n1>n2", p.s.Networks[0])
	}
	e.Node, e.Peer, e.Network, e.State = s.From[0], s.To[0], s.Network, p.next()
	if _, err := belfry.ParseLinkState(e.State); e.Pair == PairLink && err != nil {
		return true, p.fault("%q is no state of a link; one like up, down, degraded or one-way-in", e.State)
	}
	if e.Pair == PairContact && !slices.Contains(strings.Fields("up down"), e.State) {
		return true, p.fault("%q is no general state; up or down", e.State)
	}
	if !e.Never && p.skip("within") {
		var err error
		if e.Within, err = p.duration(0, maxRun); err != nil {
			return true, err
		}
	}
	p.s.Expects = append(p.s.Expects, *e)
	return true, nil
}

// carrier reads the rest of a line about one: net2 lost.
func (p *parser) carrier(s *Step) error {
	if s.Network = p.next(); !slices.Contains(p.s.Networks, s.Network) {
		return p.fault("%q is no network; one of %s", s.Network, strings.Join(p.s.Networks, ", "))
	}
	switch word := p.next(); word {
	case "lost":
		s.Lost = true
	case "back":
	default:
		return p.fault("%q is nothing that a carrier can be; lost or back", word)
	}
	return nil
}
