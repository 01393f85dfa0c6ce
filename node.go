package belfry

import (
	"fmt"
	"time"
)

// A Verdict is what the cluster holds of a node. Verdicts are ordered as
// claims order them: within one turn the greater one stands (cluster.md 8).
type Verdict uint8

// The verdicts of cluster.md 7.
const (
	VerdictJoining     Verdict = iota // a member with whom no watcher has a two-way link yet
	VerdictUp                         // a two-way link with proven echo, or vouched for by another node
	VerdictStalled                    // its agent does not answer, its kernel does; or it said that it restarts
	VerdictUnreachable                // evidence of silence is complete, the allowance still runs
	VerdictDown                       // its process ended, or the allowance is over
	VerdictLeft                       // it said goodbye, or the configuration says that it is stopped or removed
)

// A Cause says why a verdict stands.
type Cause uint8

// The causes of cluster.md 7.
const (
	CauseNone       Cause = iota
	CauseDirect           // up: this node hears it
	CauseIndirect         // up: another node hears it
	CauseAgent            // stalled: evidence complete, but the kernel accepts connections
	CauseRestarting       // stalled: it said goodbye to restart
	CauseSilent           // unreachable, down: nothing answers
	CauseProcess          // down: its agent's process ended
	CauseStalled          // down: stalled for too long
	CauseLeft             // left: it said goodbye
	CauseStopped          // left: stopped by intent
	CauseRemoved          // left: no longer a member
)

var (
	verdictNames = []string{"joining", "up", "stalled", "unreachable", "down", "left"}
	causeNames   = []string{"-", "direct", "indirect", "agent", "restarting", "silent", "process", "stalled", "left", "stopped", "removed"}
)

// String is the word that listings and events use.
func (v Verdict) String() string { return name(verdictNames, int(v)) }

// ParseVerdict reads the form that String writes.
func ParseVerdict(s string) (Verdict, error) { return parseName[Verdict]("verdict", verdictNames, s) }

// String is the word that listings and events use.
func (c Cause) String() string { return name(causeNames, int(c)) }

// ParseCause reads the form that String writes.
func ParseCause(s string) (Cause, error) { return parseName[Cause]("cause", causeNames, s) }

// A LinkState is what a node holds of one directed link, from its own side
// (cluster.md 10).
type LinkState uint8

// The states of cluster.md 10.
const (
	LinkInit      LinkState = iota // fewer than three receptions, or no proven echo yet
	LinkUp                         // heard, and the echo comes back
	LinkDown                       // the sequence-number deviation passed its maximum
	LinkOneWayIn                   // I hear the peer, it does not hear me
	LinkOneWayOut                  // it hears me, I do not hear it
	LinkDegraded                   // works with loss or delay out of its usual range
	LinkUnknown                    // this node was paused itself, or the row is not watched
	LinkNoCarrier                  // the local interface lost its carrier
	LinkAdminDown                  // the local interface or the link was set down
	LinkFlapping                   // too many changes; counts as down
)

var linkStateNames = []string{"init", "up", "down", "one-way-in", "one-way-out", "degraded", "unknown", "no-carrier", "admin-down", "flapping"}

// String is the word that listings and events use.
func (s LinkState) String() string { return name(linkStateNames, int(s)) }

// ParseLinkState reads the form that String writes.
func ParseLinkState(s string) (LinkState, error) {
	return parseName[LinkState]("link state", linkStateNames, s)
}

// MaxLinks is how many links a pair of nodes has at most (cluster.md 2).
const MaxLinks = 4

// A LinkView is what the sender of a heartbeat holds of another link of the
// same pair: else nobody could tell a node that it is not heard on a link.
type LinkView struct {
	Link  uint8     // the sender's index
	State LinkState // the sender's
	Loss  uint8     // that it measures inbound, 1/255
}

// A OneWay is the word of one node that it hears another on some of their links
// and is not heard there. It travels over a third node, which hears both, because
// the two have no link that works (cluster.md 10).
type OneWay struct {
	Hearer, Heard NodeNumber
	Links         uint16        // bit i: the hearer's link of index i
	Age           time.Duration // since the hearer said so; 0 to 655.35 s in steps of 10 ms
}

// A Claim is a verdict as it travels between nodes. Claims on one subject are
// ordered by (Incarnation, Turn, Verdict); every node keeps the greatest.
type Claim struct {
	Subject     NodeNumber
	Incarnation Incarnation
	Turn        uint16 // number of the claim within one incarnation; a refutation raises it
	Verdict     Verdict
	Cause       Cause
	Observers   uint8         // how many nodes saw the evidence
	Age         time.Duration // since the silence began, or since the proof of life; 0 to 655.35 s in steps of 10 ms
	Origin      NodeNumber    // who claims
}

// Freshness is what the sender of a heartbeat knows of one third node.
type Freshness struct {
	Subject NodeNumber // zero: nothing to say
	Verdict Verdict
	Age     time.Duration // since the sender heard it; 0 to 40.95 s in steps of 10 ms
}

// Evidence is one step on the way to a verdict, in the order it came.
type Evidence struct {
	Time time.Time
	By   NodeID // who saw it; zero: this node
	Link string // the network it was seen on; empty: none
	Text string // what was seen, e.g. "stream reset", "dial refused"
}

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown-%d", i)
}

func parseName[T ~uint8](what string, names []string, s string) (T, error) {
	for i, n := range names {
		if n == s {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("%w: unknown %s %q; one of %q", ErrUsage, what, s, names)
}
