package wire

import "strconv"

// A Reason says at which step of its arrival a datagram was dropped. Its
// String is the label `reason` of belfry_datagrams_rejected_total.
type Reason uint8

// The reasons, in the order of work (cluster.md 3).
const (
	Accepted          Reason = iota // it was not dropped
	RejectLength                    // too short for its form, or over 1,400 bytes
	RejectForm                      // no form of this protocol
	RejectCluster                   // of another cluster
	RejectNotEnrolled               // an announce, and this agent holds no join token
	RejectSender                    // the number is no member's, or this node's own
	RejectEpoch                     // sealed under an epoch that is not open
	RejectSource                    // the source address is not bound to that sender
	RejectRate                      // the source's token bucket is empty
	RejectOpen                      // it does not authenticate
	RejectReplay                    // its counter was accepted before, or is too old to know
	RejectBoot                      // of a boot or incarnation that was replaced, or that is not known yet
	RejectDuplicate                 // authentic and fresh from a replaced boot: two agents run as one node
	RejectKind                      // a body of unknown kind
	RejectDecode                    // the body is malformed
	reasons                         // their number
)

var reasonNames = [reasons]string{
	"accepted", "length", "form", "cluster", "not_enrolled", "sender", "epoch", "source", "rate",
	"open", "replay", "boot", "duplicate", "kind", "decode",
}

// Reasons lists all reasons for a drop, in the order of work; metrics start
// with a zero for each.
func Reasons() []Reason {
	all := make([]Reason, 0, reasons-1)
	for r := RejectLength; r < reasons; r++ {
		all = append(all, r)
	}
	return all
}

// String is the word that metrics and logs use.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "unknown-" + strconv.Itoa(int(r))
}
