package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// toFile is an app whose output goes to a file, and a function that takes what
// is there, without the times of day.
func toFile(t *testing.T, f form) (*app, func() string) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	taken := 0
	return &app{out: &output{file: file}, form: f}, func() string {
		text, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		var lines strings.Builder
		for line := range strings.Lines(string(text[taken:])) {
			if _, rest, ok := strings.Cut(line, "  "); ok {
				line = rest
			}
			lines.WriteString(line)
		}
		taken = len(text)
		return lines.String()
	}
}

func linkOf(network, state, reason string) *belfryv1.Link {
	return &belfryv1.Link{PeerId: "id-of-b", Peer: "b", Network: network, State: state, Reason: reason}
}

func removed(network, state string) *belfryv1.RemovedLink {
	return &belfryv1.RemovedLink{PeerId: "id-of-b", Peer: "b", Network: network, State: state}
}

// A line for each link as it is, then for each change. What an agent that starts
// again has as before is not repeated; what it has no longer is told.
func TestAWatchOfLinksWritesWhatChanges(t *testing.T) {
	t.Parallel()
	a, lines := toFile(t, formTable)
	w := a.newLinkWatcher(true)
	for _, step := range []struct {
		what string
		resp *belfryv1.WatchLinksResponse
		want string
	}{
		{
			"at first", &belfryv1.WatchLinksResponse{Snapshot: true, Links: []*belfryv1.Link{linkOf("net1", "up", "heard and echoed"), linkOf("net2", "down", "")}},
			"b/net1  up  loss=0% reason=\"heard and echoed\"\nb/net2  down  loss=0%\n",
		},
		{
			"changes", &belfryv1.WatchLinksResponse{Links: []*belfryv1.Link{linkOf("net1", "degraded", "slow"), linkOf("net2", "down", "")}},
			"b/net1  up -> degraded  loss=0% reason=slow\nb/net2  down  loss=0%\n",
		},
		{"left", &belfryv1.WatchLinksResponse{Removed: []*belfryv1.RemovedLink{removed("net2", "up")}}, "b/net2  down -> up  left\n"},
		{"came and went unseen", &belfryv1.WatchLinksResponse{Removed: []*belfryv1.RemovedLink{removed("net3", "up")}}, ""},
		{"it ended and came", &belfryv1.WatchLinksResponse{
			Removed: []*belfryv1.RemovedLink{removed("net1", "")}, Links: []*belfryv1.Link{linkOf("net1", "init", "new"), linkOf("net2", "down", "")},
		}, "b/net1  ended\nb/net1  init  loss=0% reason=new\nb/net2  down  loss=0%\n"},
		{"another start", &belfryv1.WatchLinksResponse{Snapshot: true, Resync: true, Links: []*belfryv1.Link{linkOf("net1", "init", "new")}}, "b/net2  left\n"},
		{"and another", &belfryv1.WatchLinksResponse{Snapshot: true, Links: []*belfryv1.Link{linkOf("net1", "up", "")}}, "b/net1  init -> up  loss=0%\n"},
	} {
		if err := w.take(step.resp); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, lines()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
	}
}

// The matrix has a line for each cell whose metric is another; a node that does
// not answer keeps its cells.
func TestAWatchOfTheMatrixWritesWhatChanges(t *testing.T) {
	t.Parallel()
	a, lines := toFile(t, formTable)
	w := &matrixWatcher{app: a, metric: "loss"}
	answer := func(change func([]*belfryv1.LinkMatrixRow)) *belfryv1.GetLinkMatrixResponse {
		rows := fullMatrix(3)
		change(rows)
		return &belfryv1.GetLinkMatrixResponse{Rows: rows[:2]}
	}
	silent := func(rows []*belfryv1.LinkMatrixRow) {
		rows[1] = &belfryv1.LinkMatrixRow{Node: "n001", Error: "down"}
	}
	for _, step := range []struct {
		what   string
		change func([]*belfryv1.LinkMatrixRow)
		want   string
	}{
		{
			"at first", func([]*belfryv1.LinkMatrixRow) {},
			"n000 hears n001/net1  25.0%\nn000 hears n002/net1  25.0%\nn001 hears n000/net1  25.0%\nn001 hears n002/net1  25.0%\n",
		},
		{"another state, the same metric", func(rows []*belfryv1.LinkMatrixRow) { rows[0].Cells[0].State = "down" }, ""},
		{"another metric", func(rows []*belfryv1.LinkMatrixRow) { rows[0].Cells[0].LossRatio = 0.5 }, "n000 hears n001/net1  25.0% -> 50.0%\n"},
		{"silence", silent, "n000 hears n001/net1  50.0% -> 25.0%\nn001  unanswered  down\n"},
		{"still", silent, ""},
		{"an answer", func(rows []*belfryv1.LinkMatrixRow) { rows[1].Cells[1].LossRatio = 0 }, "n001  answered\nn001 hears n002/net1  25.0% -> 0%\n"},
		{"not watched", func(rows []*belfryv1.LinkMatrixRow) {
			rows[0].Cells = rows[0].Cells[:1]
			rows[1].Cells[1].LossRatio = 0
		}, "n000 hears n002/net1  ended\n"},
	} {
		if err := w.take(answer(step.change)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, lines()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
	}
}

func TestFlagsOfLinksAreAFilter(t *testing.T) {
	t.Parallel()
	f := linkFilterFlags{
		peers: []string{"b"}, networks: []string{"net1"}, interfaces: []string{"eth0"}, states: []string{"up", "one-way-out"},
		loss: "2.5%", rtt: "20ms", jitter: "1s",
	}
	got, err := f.filter()
	if err != nil {
		t.Fatal(err)
	}
	want := client.LinkFilter{
		Peers: []string{"b"}, Networks: []string{"net1"}, Interfaces: []string{"eth0"}, States: []belfry.LinkState{belfry.LinkUp, belfry.LinkOneWayOut},
		LossOver: new(0.025), RTTOver: 20 * time.Millisecond, JitterOver: time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" || !f.set() || new(linkFilterFlags).set() {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, row := range map[string]struct {
		flags linkFilterFlags
		want  string
	}{
		"near":     {linkFilterFlags{states: []string{"dwon"}}, "--state dwon: no state of a link; did you mean down?"},
		"unknown":  {linkFilterFlags{states: []string{"broken"}}, "--state broken: no state of a link; one of init, up, down, one-way-in, one-way-out, degraded, unknown, no-carrier, admin-down, flapping"},
		"no unit":  {linkFilterFlags{loss: "5"}, "--loss-over 5: loss is measured in percent; write --loss-over 5%"},
		"all":      {linkFilterFlags{loss: "100%"}, "--loss-over 100%: no link loses more than all; name a lower share"},
		"more":     {linkFilterFlags{loss: "101%"}, "--loss-over 101%: loss lies between 0% and 100%"},
		"no time":  {linkFilterFlags{rtt: "20"}, "--rtt-over 20: a round trip is measured in milliseconds; write --rtt-over 20ms"},
		"nothing":  {linkFilterFlags{jitter: "0ms"}, "--jitter-over 0ms: more than 0, and up to 1m0s; for example 20ms"},
		"too much": {linkFilterFlags{rtt: "2h"}, "--rtt-over 2h: more than 0, and up to 1m0s; for example 20ms"},
	} {
		if _, err := row.flags.filter(); err == nil || err.Error() != row.want {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}
