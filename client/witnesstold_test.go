package client

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// W7: what two witnesses say is told once, whichever is the first.
func TestTwoWitnessesMakeOneChange(t *testing.T) {
	t.Parallel()
	const up, down, doubt = belfry.ResourceAvailable, belfry.ResourceUnavailable, belfry.ResourceUnknown
	type said struct {
		witness int
		state   belfry.ResourceState
	}
	for _, c := range []struct {
		name string
		said []said
		want string
	}{
		{"both in step", []said{{0, down}, {1, down}, {1, up}, {0, up}}, "unavailable available"},
		{"the second is late", []said{{0, down}, {0, down}, {1, down}}, "unavailable"},
		{"one doubts", []said{{0, doubt}, {0, up}}, ""},
		{"both doubt", []said{{0, doubt}, {1, doubt}, {0, up}, {1, up}}, "unknown available"},
		{"a doubt before the verdict", []said{{0, doubt}, {0, down}, {1, doubt}, {1, down}}, "unavailable"},
	} {
		told := newTold(2)
		change := func(s said) *belfry.ResourceChange {
			return &belfry.ResourceChange{Resource: "node/b", Count: 1, Level: belfry.ResourceLevel{State: s.state, Version: belfry.ResourceVersion{Origin: belfry.NodeID{byte(s.witness + 1)}}}}
		}
		for w := range 2 {
			if first, news := told.begin(w, change(said{w, up}), 0); first != (w == 0) || news != (w == 0) {
				t.Errorf("%s: witness %d begins with first %t, news %t", c.name, w, first, news)
			}
		}
		got := ""
		for _, s := range c.said {
			if one := change(s); told.change(s.witness, one) {
				got += " " + one.Level.State.String()
			}
		}
		if diff := cmp.Diff(c.want, fmt.Sprint(got[min(1, len(got)):])); diff != "" {
			t.Errorf("%s: told (-want +got):\n%s", c.name, diff)
		}
	}
}

// A doubt that was kept back counts when the other witness, which was certain, is
// gone, and the next one doubts too.
func TestADoubtCountsWhenNobodyIsCertain(t *testing.T) {
	t.Parallel()
	told := newTold(2)
	level := func(w int, s belfry.ResourceState) *belfry.ResourceChange {
		return &belfry.ResourceChange{Resource: "node/b", Level: belfry.ResourceLevel{State: s, Version: belfry.ResourceVersion{Origin: belfry.NodeID{byte(w + 1)}}}}
	}
	told.begin(0, level(0, belfry.ResourceAvailable), 0)
	told.begin(1, level(1, belfry.ResourceAvailable), 0)
	if told.change(1, level(1, belfry.ResourceUnknown)) {
		t.Error("one witness doubts, the other is certain: told")
	}
	told.left(0)
	if _, news := told.begin(0, level(2, belfry.ResourceUnknown), 1); !news {
		t.Error("nobody is certain any more: not told")
	}
}

func TestADoubtCountsWhenTheOtherWitnessIsGone(t *testing.T) {
	t.Parallel()
	told := newTold(2)
	level := func(w int, s belfry.ResourceState) *belfry.ResourceChange {
		return &belfry.ResourceChange{Resource: "node/b", Level: belfry.ResourceLevel{State: s, Version: belfry.ResourceVersion{Origin: belfry.NodeID{byte(w + 1)}}}}
	}
	told.begin(0, level(0, belfry.ResourceAvailable), 0)
	told.begin(1, level(1, belfry.ResourceAvailable), 0)
	told.left(0)
	if !told.change(1, level(1, belfry.ResourceUnknown)) {
		t.Error("the only witness doubts: not told")
	}
}

func TestAMoveIsToldOnce(t *testing.T) {
	t.Parallel()
	told := newTold(2)
	if !told.move("x") || told.move("x") || !told.move("y") || told.lastMove() != "y" {
		t.Error("each move is news once")
	}
}
