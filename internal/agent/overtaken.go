package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// Two agents with one identity, because a state directory was copied or a machine
// restored, are told apart by their incarnation: whoever has the newer one is
// heard, and the older is refused by all who have seen the newer. The refused one
// asks (stillmember.go), says so while the other runs, and takes a newer
// incarnation when nobody has a stream to the other any longer: there is no other
// way back, since nobody forgets an incarnation (docs/adr/0018-overtaken.md).

const (
	// askAgain is when a node that is free to go above asks once more: a stream
	// that is missing at one moment is no end of an agent.
	askAgain = 3 * time.Second
	// maxBehind is how far ahead another agent can be believed to have come. The
	// numbers are finite, and a member that lies must not use them up.
	maxBehind = 1 << 20
)

// otherNews is what members say of another agent with this node's identity.
type otherNews struct {
	by     []string           // who have seen a newer incarnation, or have a stream to one; by name
	newest belfry.Incarnation // that they have seen
	used   bool               // one of them has a stream to it
}

// add takes one member's answer.
func (o *otherNews) add(member string, answer *belfryv1.GetMembershipResponse, own belfry.Incarnation) {
	newest := belfry.Incarnation(answer.GetIncarnation())
	if newest <= own && !answer.GetUsed() {
		return
	}
	o.by, o.newest, o.used = append(o.by, member), max(o.newest, newest), o.used || answer.GetUsed()
}

// seen is what this member tells an agent of a node with that identity: the
// newest incarnation that was shown here, and whether another agent runs with it.
func (a *Agent) seen(id belfry.NodeID, incarnation belfry.Incarnation, boot belfry.Boot) (newest belfry.Incarnation, used bool) {
	newest, connected := a.streams.Seen(id)
	a.cluster.call(func(m *cluster.Machine) { newest = max(newest, m.Proven(id)) })
	used = connected.Boot != 0 && boot != 0 && connected.Boot != boot && connected.Incarnation >= incarnation
	if used {
		a.duplicate(id)
	}
	return newest, used
}

// overtaken is what one agent makes of such news. It belongs to watchMembership.
type overtaken struct {
	agent *Agent
	free  bool   // the last news said that nobody uses the identity
	told  string // of what keeps this agent from going above
}

// judge returns whether the members are to be asked again soon.
func (o *overtaken) judge(news otherNews) (soon bool) {
	a := o.agent
	was := o.free
	o.free = len(news.by) > 0 && !news.used
	switch {
	case news.used:
		a.duplicate(a.id.node.ID)
		return false
	case !o.free:
		return false
	case !was:
		a.log.Warn("members have seen a newer incarnation of this node, and refuse this one; it takes a newer one if no other agent uses its identity",
			"incarnation", a.id.incarnation, "seen", news.newest, "by", news.by)
		return true
	}
	if err := a.goAbove(news); err != nil && err.Error() != o.told {
		o.told = err.Error()
		a.log.Error("this node is refused, and can not take a newer incarnation; it asks again", "seen", news.newest, "by", news.by, "err", err)
	}
	return false
}

// goAbove ends this agent, so that the next one takes the incarnation after the
// newest that was seen.
func (a *Agent) goAbove(news otherNews) error {
	if news.newest-a.id.incarnation > maxBehind {
		return &belfry.Error{Op: "agent", Subject: incarnationFile(a.opts.Config.State), Err: fmt.Errorf(
			"%w: %s say that incarnation %d was seen, this is %d; if it is so, write %d into the file and start the agent again",
			belfry.ErrLimit, strings.Join(slices.Sorted(slices.Values(news.by)), " "), news.newest, a.id.incarnation, news.newest)}
	}
	if err := keepIncarnation(a.opts.Config.State, news.newest); err != nil {
		return err
	}
	a.log.Warn("another agent had the identity of this node; nobody has now, and this node takes it back", "incarnation", news.newest+1, "by", news.by)
	a.group.Go(func() error { return errAgain }) // which ends the agent
	return nil
}

// errAgain ends an agent that another one follows: no failure.
var errAgain = errors.New("to be started again")
