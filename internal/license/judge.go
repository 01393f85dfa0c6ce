package license

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// A cause is why one license has its state on this node. The greater one is
// the better one: it decides among several files, and within one state it is
// the one that comes closer to a license, so that its reason helps more.
type cause uint8

const (
	nothing    cause = iota // no file of the product
	unproven                // no signature of an issuer of the product
	noMember                // this node is not in the committed generation
	elsewhere               // bound to another cluster or to other nodes
	superseded              // another license has taken its place
	tooEarly                // not_before has not come
	revoked                 // on the issuer's list
	tooNew                  // this release was made after maintenance_until
	ended                   // the days of grace are over
	exhausted               // members that joined before use up the capacity
	ending                  // not_after is over, the days of grace are not
	outOfReach              // good, but the repository has not been read for 72 h
	inForce
)

func (c cause) state() belfry.LicenseState {
	switch {
	case c == inForce:
		return belfry.LicenseUnlocked
	case c >= ending:
		return belfry.LicenseGrace
	case c == exhausted:
		return belfry.LicenseOverCapacity
	case c >= tooNew:
		return belfry.LicenseExpired
	case c == revoked:
		return belfry.LicenseRevoked
	}
	return belfry.LicenseLocked
}

// judge is the state of one license at one instant: what does not hold first
// counts, in this order.
func (in *Input) judge(c *candidate, at time.Time) cause {
	l := &c.license
	switch {
	case c.flaw != nil:
		return unproven
	case !c.member:
		return noMember
	case !c.here:
		return elsewhere
	case c.revoked:
		return revoked
	case c.successor != "" && !at.Before(c.replaced):
		return superseded
	case at.Before(l.NotBefore):
		return tooEarly
	case !l.MaintenanceUntil.IsZero() && !in.Released.Before(l.MaintenanceUntil.Add(time.Second)):
		return tooNew
	case !l.NotAfter.IsZero() && !at.Before(l.graceEnd()):
		return ended
	case !c.covered:
		return exhausted
	case !l.NotAfter.IsZero() && !at.Before(l.end()):
		return ending
	case !in.LastRead.IsZero() && !at.Before(in.LastRead.Add(OutOfReach)):
		return outOfReach
	}
	return inForce
}

// reason is what is so, and what would be right.
func (in *Input) reason(c *candidate, why cause, at time.Time) string {
	if why == nothing {
		return fmt.Sprintf("no license of %s is in the configuration; unlock one with `belfry license unlock FILE`", in.Product)
	}
	l := c.license
	text := ""
	switch why {
	case unproven:
		text = unwrapped(c.flaw)
	case noMember:
		text = fmt.Sprintf("node %s is not a member; join it to the cluster", in.Node)
	case elsewhere:
		text = l.boundTo() + fmt.Sprintf("; ask its issuer for one for cluster %s", in.Cluster)
	case superseded:
		text = fmt.Sprintf("license %s has taken its place; use that one", c.successor)
	case tooEarly:
		text = fmt.Sprintf("begins at %s; wait, or set this node's clock, which says %s", stamp(l.NotBefore), stamp(at))
	case revoked:
		text = "its issuer took it back; ask them for another one"
	case tooNew:
		text = fmt.Sprintf("covers releases up to %s, and this one is of %s; renew it, or run an older release",
			stamp(l.MaintenanceUntil), stamp(in.Released))
	case ended:
		text = fmt.Sprintf("ended at %s, its grace at %s; renew it", stamp(l.NotAfter), stamp(l.graceEnd()))
	case exhausted:
		text = l.exhaustedBy(in.Members)
	case ending:
		text = fmt.Sprintf("ended at %s; renew it before %s", stamp(l.NotAfter), stamp(l.graceEnd()))
	case outOfReach:
		text = fmt.Sprintf("the repository was last read at %s; bring it back", stamp(in.LastRead))
	case inForce:
		text = "has no end"
		if !l.NotAfter.IsZero() {
			text = "is good up to " + stamp(l.NotAfter)
		}
	}
	return fmt.Sprintf("license %s: %s", l.ID, text)
}

// unwrapped is the text of an error without the operation, its subject and the
// word of its sentinel: what is unproven is locked, and nothing was attempted.
func unwrapped(err error) string {
	var e *belfry.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return strings.TrimPrefix(err.Error(), belfry.ErrPermission.Error()+": ")
}

func (l License) boundTo() string {
	if len(l.Binding.Nodes) > 0 {
		return fmt.Sprintf("is bound to %d other nodes", len(l.Binding.Nodes))
	}
	return fmt.Sprintf("is bound to cluster %s", l.Binding.Cluster)
}

// exhaustedBy says what the capacity is and how many members have it.
func (l License) exhaustedBy(members []Member) string {
	text := "covers"
	for _, part := range []struct {
		n    int64
		unit string
	}{{l.Capacity.Nodes, "nodes"}, {l.Capacity.Cores, "cores"}, {l.Capacity.MemoryBytes, "bytes of memory"}} {
		if part.n > 0 {
			text += fmt.Sprintf(" %d %s,", part.n, part.unit)
		}
	}
	return fmt.Sprintf("%s which the first %d members have; extend it, or remove members", text, len(Covered(l, members)))
}
