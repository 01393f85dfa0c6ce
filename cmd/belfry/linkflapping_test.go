package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A link that flaps says besides whether it works now, wherever its state is
// shown; for programs it is a field of its own.
func TestALinkThatFlapsSaysWhetherItWorks(t *testing.T) {
	t.Parallel()
	works, dead := linkOf("net1", "flapping", ""), linkOf("net2", "flapping", "")
	works.TwoWay = true
	want := map[string]string{
		"list": "PEER  NETWORK  STATE           FOR  LOSS  RTT  JITTER  INTERVAL  MAXWAIT  PEERSTATE\n" +
			"b     net1     flapping, up    -    0%    -    -       -         -        -\n" +
			"b     net2     flapping, down  -    0%    -    -       -         -        -\n",
		"matrix": "FROM/TO  a  b\na        -  flapping, down\nb        -  -\n",
	}
	list, matrix := &output{}, &output{}
	linkTable(list, []*belfryv1.Link{works, dead}, time.Now(), false)
	matrixTables(matrix, []*belfryv1.LinkMatrixRow{
		{Node: "a", Answered: true, Cells: []*belfryv1.LinkMatrixCell{{Peer: "b", Network: "net1", State: "flapping"}}}, {Node: "b", Answered: true},
	}, "state")
	if diff := cmp.Diff(want, map[string]string{"list": list.buffer.String(), "matrix": matrix.buffer.String()}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if a, b := viewOfLink(works), viewOfLink(dead); !a.TwoWay || b.TwoWay || a.State != "flapping" {
		t.Errorf("for programs: %s %v, and %v; want flapping true, and false", a.State, a.TwoWay, b.TwoWay)
	}
	if v := viewOfCell("a", &belfryv1.LinkMatrixCell{State: "flapping", TwoWay: true}); !v.TwoWay || v.State != "flapping" {
		t.Errorf("in the matrix for programs: %s %v, want flapping true", v.State, v.TwoWay)
	}
}

// That it works no longer, and again, are changes of a watch.
func TestAWatchTellsWhetherALinkThatFlapsWorks(t *testing.T) {
	t.Parallel()
	a, lines := toFile(t, formTable)
	w := a.newLinkWatcher(false)
	for _, step := range []struct {
		state  string
		twoWay bool
		want   string
	}{
		{"up", true, "b/net1  up  loss=0%\n"},
		{"flapping", false, "b/net1  up -> flapping, down  loss=0%\n"},
		{"flapping", true, "b/net1  flapping, down -> flapping, up  loss=0%\n"},
		{"up", true, "b/net1  flapping, up -> up  loss=0%\n"},
	} {
		l := linkOf("net1", step.state, "")
		l.TwoWay = step.twoWay
		if err := w.take(&belfryv1.WatchLinksResponse{Links: []*belfryv1.Link{l}}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, lines()); diff != "" {
			t.Errorf("%s %v (-want +got):\n%s", step.state, step.twoWay, diff)
		}
	}
}
