package agent

import (
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// streamLate is how long a stream to a node that is up may be missing.
const streamLate = 10 * time.Second

// streams judges the streams to the nodes that are up, over which all but
// heartbeats goes, and whether an identity is used twice.
func (d doctor) streams() findings {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	var found findings
	up := 0
	for _, n := range status.GetNodes() {
		switch {
		case n.GetDuplicate() == nil:
		case n.GetSelf():
			found.add(LevelFailure, "another agent runs with the identity of this node, and the others heed that one: the state was copied, or restored from a backup. If this is the original, stop the other agent, and this one is a member again by itself within half a minute; if this is the copy, stop this agent, remove its state directory and let it join with a token of its own")
		default:
			found.add(LevelFailure, "a second agent runs with the identity of %s: its state was copied, or restored from a backup; stop the copy, remove its state directory and let it join with a token of its own", n.GetName())
		}
		stream := n.GetStream()
		switch {
		case strings.Contains(stream.GetError(), "copied or restored"):
			found.add(LevelFailure, "%s", d.noStream(n))
		case n.GetSelf() || stream == nil || n.GetVerdict() != belfry.VerdictUp.String():
		case stream.GetUp():
			up++
		case d.now.Sub(stream.GetSince().AsTime()) > streamLate:
			found.add(LevelFailure, "%s", d.noStream(n))
		}
	}
	return found.orElse("to %d other nodes that are up", up)
}

// noStream says why there is none, as far as it is known here, and what to do.
func (d doctor) noStream(n *belfryv1.Node) string {
	stream := n.GetStream()
	text := "no stream to " + n.GetName() + " for " + d.now.Sub(stream.GetSince().AsTime()).Round(time.Second).String()
	if n.GetVerdict() == belfry.VerdictUp.String() {
		text += ", though it is heard"
	}
	reason := readable(stream.GetError())
	switch {
	case reason == "" && stream.GetPeerDials():
		return text + "; that node opens it: run belfry doctor streams there"
	case reason == "":
		return text + "; see the log of the agent"
	case outOfTime(reason):
		return text + ": " + reason + "; the clock of one of the two machines is wrong, or its certificate has ended: compare date on both, and run belfry doctor certificate there"
	case strings.Contains(reason, "no answer") || strings.Contains(reason, "timeout") || strings.Contains(reason, "timed out") || strings.Contains(reason, "deadline"):
		return text + ": " + reason + "; its TCP port is blocked on the way, or the way carries only small packets: compare the MTU of the interfaces and of what is between them (ping -M do -s 1472)"
	}
	return text + ": " + reason
}

// outOfTime tells whether a handshake failed because a certificate is not
// valid at the time of one of the two clocks.
func outOfTime(reason string) bool {
	return strings.Contains(reason, "expired") || strings.Contains(reason, "not yet valid") || strings.Contains(reason, "certificate valid from")
}

// readable is the reason without what the libraries put around it.
func readable(reason string) string {
	if inner, ok := strings.CutPrefix(reason, `connection error: desc = "`); ok {
		reason = strings.TrimSuffix(inner, `"`)
	}
	for _, around := range []string{"transport: ", "authentication handshake failed: ", "handshake: ", "permission denied: "} {
		reason = strings.TrimPrefix(reason, around)
	}
	return reason
}
