package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

// A node that was removed while it did not run, or was cut off, or whose admission
// was lost in a cut, is refused by all members, and can not tell that from any
// other fault. So one that has streams to too few members asks the others whether
// it still is one, and believes more than half of all others, by its own table:
// nobody else can end it, and no member alone. They say as well whether another
// agent has its identity (overtaken.go).

const (
	// askFirst is when the streams of a start are there.
	askFirst = 2 * time.Second
	// askEvery is how often it asks while members can not be reached. It varies by
	// a tenth.
	askEvery = 10 * time.Second
	// askRarely is how rarely it gets, by doubling, while a member refuses to tell:
	// each refusal is in that member's audit log.
	askRarely = 5 * time.Minute
	// askDeaf is how many are asked of those that may heed another agent.
	askDeaf = 3
	// askAtOnce is how many are asked at the same time.
	askAtOnce = 8
	// askTimeout bounds what one address of a member can take.
	askTimeout = 2 * time.Second
)

// watchMembership asks until ctx ends, or this node hears that it was removed.
func (a *Agent) watchMembership(ctx context.Context) error {
	wait, told := askFirst, ""
	other := overtaken{agent: a}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait + rand.N(wait/10)):
		}
		table := a.members.Table()
		news := a.askMembership(ctx, table)
		if news.majority {
			if err := a.takeRemoval(table, news); err != nil {
				a.log.Error("this node was removed, which it can not keep; it asks again", "by", news.by, "err", err)
			}
		} else if by := strings.Join(news.by, " "); by != told {
			told = by
			if by != "" {
				a.log.Warn("members say that this node was removed; it ends when more than half of the others do", "by", by, "others", len(table.Nodes)-1)
			}
		}
		switch {
		case other.judge(news.other):
			wait = askAgain
		case news.refused:
			wait = max(askEvery, min(2*wait, askRarely))
		default:
			wait = askEvery
		}
	}
}

// membershipNews is what members say of this node.
type membershipNews struct {
	by         []string // who say that it was removed, by name
	generation uint64   // the lowest of their tables that say so
	majority   bool     // more than half of the other members do
	refused    bool     // one did not tell
	other      otherNews
}

// askMembership asks those without a stream, while their answers can decide it: a
// stream is a member's word that this node is one. A few that are up and whose
// datagrams do not come in are asked in any case, whether there is a stream or
// not: they may heed another agent with this identity. If one says so, all are.
func (a *Agent) askMembership(ctx context.Context, table *Table) (news membershipNews) {
	silent, deaf := a.doubtful(table)
	others := len(table.Nodes) - 1
	few := deaf[:min(len(deaf), askDeaf)]
	if 2*len(silent) > others { // they decide it, if all of them say so
		few = append(slices.Clone(silent), without(few, silent)...)
	}
	a.askMembers(ctx, table, few, &news)
	if len(news.other.by) > 0 && !news.majority {
		a.askMembers(ctx, table, without(append(slices.Clone(silent), without(deaf, silent)...), few), &news)
	}
	return news
}

// without are those of list that are not among others.
func without(list, others []Node) (left []Node) {
	for _, n := range list {
		if !slices.ContainsFunc(others, func(o Node) bool { return o.ID == n.ID }) {
			left = append(left, n)
		}
	}
	return left
}

// askMembers asks members, some at once: one that does not answer takes its time.
// It ends when more than half of all others say that this node was removed.
func (a *Agent) askMembers(ctx context.Context, table *Table, members []Node, news *membershipNews) {
	for some := range slices.Chunk(members, askAtOnce) {
		answers, errs := make([]memberAnswer, len(some)), make([]error, len(some))
		var group sync.WaitGroup
		for i, n := range some {
			group.Go(func() { answers[i], errs[i] = a.membershipAt(ctx, n) })
		}
		group.Wait()
		for i, n := range some {
			if err := errs[i]; err != nil {
				news.refused = news.refused || errors.Is(err, belfry.ErrPermission)
				a.log.Debug("member does not tell whether this node is one", "peer", n.Name, "err", err)
				continue
			}
			a.weigh(table, n, answers[i], news)
		}
		if news.majority {
			return
		}
	}
}

// weigh adds what one member said.
func (a *Agent) weigh(table *Table, n Node, answer memberAnswer, news *membershipNews) {
	if a.saidClocks.note(n.ID, answer.ahead, time.Now()) {
		a.log.Error("a member's clock and this node's are so far apart that certificates may not count; see that time synchronisation runs on both", "peer", n.Name, "ahead", answer.ahead)
	}
	if !answer.GetRemoved() {
		news.other.add(n.Name, answer.GetMembershipResponse, a.id.incarnation)
		return
	}
	if answer.GetGeneration() <= table.Generation { // who knows less than this node
		return
	}
	if news.by = append(news.by, n.Name); len(news.by) == 1 || answer.GetGeneration() < news.generation {
		news.generation = answer.GetGeneration()
	}
	news.majority = 2*len(news.by) > len(table.Nodes)-1
}

// doubtful are the members without a stream, first those that are up, and those
// that are up and heard on no link.
func (a *Agent) doubtful(table *Table) (silent, deaf []Node) {
	unheard, up := map[belfry.NodeID]bool{}, a.up()
	var off []Node // that are not up, without a stream
	a.cluster.call(func(m *cluster.Machine) {
		for _, c := range m.Contacts() {
			unheard[c.Peer] = c.Known && !c.Up
		}
	})
	for _, n := range table.Nodes {
		switch {
		case n.ID == a.id.node.ID:
		case !a.streams.Connected(n.ID):
			if !up[n.ID] {
				off = append(off, n)
				continue
			}
			silent, deaf = append(silent, n), append(deaf, n)
		case up[n.ID] && unheard[n.ID]:
			deaf = append(deaf, n)
		}
	}
	return append(silent, off...), deaf
}

// A memberAnswer is what a member said, and how far its clock is ahead of this
// node's.
type memberAnswer struct {
	*belfryv1.GetMembershipResponse
	ahead time.Duration
}

// membershipAt asks one member, at each of its addresses until it answers.
func (a *Agent) membershipAt(ctx context.Context, n Node) (answer memberAnswer, err error) {
	for _, address := range streamAddresses(n) {
		answer, err = askWhetherMember(ctx, address.String(), a.keys.now(), n, a.id)
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return answer, err
}

// askWhetherMember asks one member whether the node with these keys is one still,
// and whether others than this agent have them.
func askWhetherMember(ctx context.Context, address string, keys *security.Keys, n Node, self identity) (answer memberAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	door, err := transport.OpenDoor(ctx, address, netip.Addr{}, security.MembershipClientConfig(keys.Cluster, n.ID, n.Key.ed25519()))
	if err != nil {
		return answer, err
	}
	defer door.Close()
	proof, err := keys.Prove(door.State())
	if err != nil {
		return answer, err
	}
	begin := time.Now()
	answer.GetMembershipResponse, err = door.Membership(ctx, &belfryv1.GetMembershipRequest{
		NodeId: keys.Node.String(), Proof: proof, Incarnation: uint32(self.incarnation), Boot: uint32(self.boot),
		Certificate: keys.Certificate.Leaf.Raw,
	})
	half := time.Since(begin) / 2
	answer.ahead = answer.GetTime().AsTime().Sub(begin.Add(half)).Round(time.Millisecond)
	return answer, err
}

// takeRemoval keeps that this node was removed, so that its agent does not start
// again and its machine can join anew, and ends it. Unless another table came
// meanwhile: by that one the members have to be asked again.
func (a *Agent) takeRemoval(asked *Table, news membershipNews) error {
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	if a.members.Table() != asked {
		return nil
	}
	next := asked.clone()
	next.remove(a.id.node.ID)
	// Without origin it is given to nobody (greetTable), and the cluster's own of
	// this generation, whose rest is not known here, replaces it wherever they meet.
	next.Generation, next.Origin = news.generation, belfry.NodeID{}
	if a.storage != nil {
		if err := keepRemoved(a.opts.Config.State, news.generation); err != nil {
			return err
		}
		a.removed(next, news.by...)
		return nil
	}
	document, err := next.encode()
	if err != nil {
		return err
	}
	if _, err := a.members.Take(document); err != nil {
		return err
	}
	a.removed(next, news.by...)
	return nil
}
