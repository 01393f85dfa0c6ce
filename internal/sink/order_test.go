package sink

import (
	"fmt"
	"slices"
	"testing"

	"github.com/belfry-ha/belfry"
)

func TestOrderIsSharedFairlyAndMovesOnlyWhatMust(t *testing.T) {
	t.Parallel()
	var nodes []belfry.NodeID
	for i := range byte(5) {
		nodes = append(nodes, belfry.NodeID{i + 1})
	}
	const events = 10_000
	first := map[belfry.NodeID]int{}
	for e := range events {
		k := Event{belfry.NodeID{9}, "user.job", fmt.Sprint(e)}
		order := Order("page", k, nodes)
		first[order[0]]++
		backwards := slices.Clone(nodes)
		slices.Reverse(backwards)
		if !slices.Equal(order, Order("page", k, backwards)) {
			t.Fatalf("event %d: the order depends on the order of nodes", e)
		}
		without := Order("page", k, slices.DeleteFunc(slices.Clone(nodes), func(n belfry.NodeID) bool { return n == nodes[2] }))
		if order[0] != nodes[2] && without[0] != order[0] {
			t.Fatalf("event %d moved from %s to %s, though its node is there", e, order[0], without[0])
		}
	}
	for _, n := range nodes {
		if got := first[n]; got < events/5*8/10 || got > events/5*12/10 {
			t.Errorf("node %s has %d of %d events", n, got, events)
		}
	}
	if fmt.Sprint(Order("page", Event{}, nodes)) == fmt.Sprint(Order("mail", Event{}, nodes)) &&
		fmt.Sprint(Order("page", Event{Subject: "x"}, nodes)) == fmt.Sprint(Order("mail", Event{Subject: "x"}, nodes)) {
		t.Error("the handler does not count")
	}
}
