package agent

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	// newcomer is how long a member that was admitted while this agent ran, and that
	// it has never heard, counts neither way in a majority: its agent is about to
	// start.
	newcomer = 15 * time.Minute
	// quorumTimeout bounds the wait for more than half of the members to answer:
	// longer than their streams and verdicts take after a start.
	quorumTimeout = 2 * time.Second
	quorumRetry   = 50 * time.Millisecond
)

// majority is what a change takes: two halves of a cut cluster must not both
// make generations, of which one would be lost. Of an even number the half with
// the lowest number counts. Members that are stopped on purpose do not.
//
// Where the document lies on shared storage, that decides, and no count does.
func (a *Agent) majority() error {
	if a.storage != nil {
		return nil
	}
	verdicts := a.verdicts()
	return a.moreThanHalf(verdicts, "are up, and more than half must be", func(id belfry.NodeID) bool { return verdicts[id] == belfry.VerdictUp })
}

// moreThanHalf counts the members that are there, of those that count.
func (a *Agent) moreThanHalf(verdicts map[belfry.NodeID]belfry.Verdict, how string, there func(belfry.NodeID) bool) error {
	a.config.mu.Lock()
	admitted := maps.Clone(a.config.admitted)
	a.config.mu.Unlock()
	present, of, lowest := 0, 0, Node{}
	for _, n := range a.members.Table().Nodes {
		isThere := there(n.ID)
		starting := verdicts[n.ID] == belfry.VerdictJoining && time.Since(admitted[n.ID]) < newcomer
		if !isThere && (starting || n.Stopped) {
			continue
		}
		of++
		if isThere {
			present++
		}
		if lowest.ID.IsZero() || n.Number < lowest.Number {
			lowest = n
		}
	}
	if 2*present > of || 2*present == of && there(lowest.ID) {
		return nil
	}
	return fmt.Errorf("%w: %d of %d members %s; bring one back, or take out one that is gone for good: belfry node remove NAME --force", belfry.ErrRestricted, present, of, how)
}

// quorum is nil once more than half of the members follow this node, by their
// own word of now. Verdicts come only some time after a cut, and until then
// each side would take itself for the whole; and two nodes that both take
// themselves for the leader can not both have it.
func (a *Agent) quorum() error {
	ctx, cancel := context.WithTimeout(a.ended, quorumTimeout)
	call := rollCall{asked: map[belfry.NodeID]bool{}, follows: map[belfry.NodeID]bool{a.id.node.ID: true}, news: make(chan struct{}, 1)}
	defer call.group.Wait()
	defer cancel()
	retry := time.NewTicker(quorumRetry)
	defer retry.Stop()
	for {
		err := a.moreThanHalf(a.verdicts(), "follow "+a.id.node.Name+", and more than half must", call.isFollower)
		if err == nil || ctx.Err() != nil {
			return err
		}
		for _, n := range a.members.Table().Nodes {
			if a.streams.Connected(n.ID) {
				call.ask(n.ID, func() error {
					return a.ask(ctx, n.ID, belfryv1.MemberPeerService_Follow_FullMethodName, &belfryv1.FollowRequest{}, new(belfryv1.FollowResponse))
				})
			}
		}
		select {
		case <-call.news:
		case <-retry.C:
		case <-ctx.Done():
		}
	}
}

// A rollCall asks members until they follow, each once at a time.
type rollCall struct {
	group sync.WaitGroup
	news  chan struct{} // somebody follows

	mu             sync.Mutex
	asked, follows map[belfry.NodeID]bool
}

func (c *rollCall) isFollower(id belfry.NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.follows[id]
}

func (c *rollCall) ask(id belfry.NodeID, ask func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked[id] || c.follows[id] {
		return
	}
	c.asked[id] = true
	c.group.Go(func() {
		err := ask()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked[id], c.follows[id] = false, err == nil
		if err == nil {
			select {
			case c.news <- struct{}{}:
			default:
			}
		}
	})
}

// follow answers a member that is about to make a change.
func (a *Agent) follow(_ context.Context, from belfry.NodeID, _ *belfryv1.FollowRequest) (*belfryv1.FollowResponse, error) {
	if a.leader().ID != from {
		return nil, notLeader(a.nameOf(from))
	}
	return &belfryv1.FollowResponse{}, nil
}
