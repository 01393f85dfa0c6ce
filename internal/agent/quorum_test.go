package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// TestNobodyChangesAnythingWithoutFollowers: a node that takes itself for the
// leader, as in the first moments of a cut, asks before it writes.
func TestNobodyChangesAnythingWithoutFollowers(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	second := m[1].agent
	before := second.members.Table().Generation
	edit := func(table *Table) error {
		table.Tunables = map[string]string{"node_down_delay": "1s"}
		return nil
	}
	_, _, err := second.commit(t.Context(), edit)
	if !errors.Is(err, belfry.ErrRestricted) || !strings.Contains(err.Error(), "1 of 3 members follow n2, and more than half must") {
		t.Errorf("changed without followers: %v; want ErrRestricted that counts them", err)
	}
	for _, each := range m {
		if got := each.agent.members.Table().Generation; got != before {
			t.Errorf("%s has generation %d, want %d", each.Name, got, before)
		}
	}
	if _, _, err := m[0].agent.commit(t.Context(), edit); err != nil {
		t.Errorf("not changed with followers: %v", err)
	}
	// Who is told that the others are gone for good does not ask.
	if changed, _, err := second.commitAlone(t.Context(), func(table *Table) error { table.Tunables = nil; return nil }); err != nil || !changed {
		t.Errorf("alone: changed %v, %v", changed, err)
	}
}

// TestAFollowerIsWaitedFor whose answer is only about to come, and asked once at
// a time.
func TestAFollowerIsWaitedFor(t *testing.T) {
	t.Parallel()
	call := rollCall{asked: map[belfry.NodeID]bool{}, follows: map[belfry.NodeID]bool{}, news: make(chan struct{}, 1)}
	peer, asked, answer := belfry.NodeID{1}, make(chan struct{}, 8), make(chan error)
	ask := func() error { asked <- struct{}{}; return <-answer }
	call.ask(peer, ask)
	<-asked
	call.ask(peer, ask) // the first is under way
	answer <- errors.New("not yet")
	call.group.Wait()
	if len(asked) != 0 || call.isFollower(peer) {
		t.Fatalf("asked %d times more, follows %v", len(asked), call.isFollower(peer))
	}
	call.ask(peer, ask)
	<-asked
	answer <- nil
	<-call.news
	call.group.Wait()
	call.ask(peer, ask) // it follows already
	if call.group.Wait(); len(asked) != 0 || !call.isFollower(peer) {
		t.Errorf("asked %d times more, follows %v", len(asked), call.isFollower(peer))
	}
}

// TestANodeWhoseAdmissionWasLostEnds: a leader of the moment had admitted it, and
// another generation won.
func TestANodeWhoseAdmissionWasLostEnds(t *testing.T) {
	t.Parallel()
	m := machines(t, 4)
	formed(t, m[:3])
	if _, err := m[3].join(t.Context(), m[0], m[0].token(t, client.TokenRequest{})); err != nil {
		t.Fatal(err)
	}
	for _, each := range m[:3] {
		each.stop(t)
		each.edit(t, func(table *Table) {
			table.Nodes = slices.DeleteFunc(table.Nodes, func(n Node) bool { return n.Name == "n4" })
			table.Generation += 3
		})
	}
	for _, each := range m[:3] {
		each.start(t)
	}
	m[0].waitHolds(t, "n1", "n2", "n3")
	m[3].start(t)
	m[3].waitEnded(t)
	agent := m[3].agent
	m[3].agent = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testTimeout)
	defer cancel()
	if err := agent.Stop(ctx); !errors.Is(err, belfry.ErrNotMember) || !strings.Contains(err.Error(), "belfry join TOKEN makes it one") {
		t.Errorf("it ended with %v; want ErrNotMember with the remedy", err)
	}
}
