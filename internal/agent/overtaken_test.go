package agent

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// TestARestoredNodeGoesAboveWhatWasSeen of it, by itself, because nobody else
// has its identity.
func TestARestoredNodeGoesAboveWhatWasSeen(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	backup := m[2].agent.id.incarnation
	m[2].stop(t)
	if err := keepIncarnation(m[2].State, 40); err != nil {
		t.Fatal(err)
	}
	m[2].start(t)
	m[0].waitConnected(t, 2)
	m[1].waitConnected(t, 2)
	m[2].stop(t)
	if err := keepIncarnation(m[2].State, backup); err != nil {
		t.Fatal(err)
	}
	m[2].start(t)
	if got := m[2].agent.id.incarnation; got != backup+1 {
		t.Fatalf("it starts with incarnation %d; want %d", got, backup+1)
	}
	m[2].waitEnded(t)
	if !m[2].agent.Again() {
		t.Error("the agent has ended, and none is to follow")
	}
	m[2].stop(t)
	m[2].start(t)
	m[2].waitConnected(t, 2)
	m[0].waitHolds(t, "n1", "n2", "n3")
	if got := m[2].agent.id.incarnation; got != 42 {
		t.Errorf("incarnation %d; want 42", got)
	}
}

// TestAMemberTellsOfAnotherAgent whoever has the keys of a node, and only if it
// could be the one that has the node's stream.
func TestAMemberTellsOfAnotherAgent(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	formed(t, m)
	table, runs := m[1].agent.members.Table(), m[1].agent.id
	n1, _ := table.Node(m[0].agent.id.node.ID)
	for _, tt := range []struct {
		name        string
		incarnation int // from that of the one that runs
		boot        belfry.Boot
		used        bool
	}{
		{"the one that runs", 0, runs.boot, false},
		{"an older one", -1, runs.boot + 1, true},
		{"the same start of a copy", 0, runs.boot + 1, true},
		{"its next start", 1, runs.boot + 1, false},
		{"one that does not say", 0, 0, false},
	} {
		before := len(m[0].agent.duplicates.seen(time.Now()))
		self := runs
		self.incarnation, self.boot = runs.incarnation+belfry.Incarnation(tt.incarnation), tt.boot
		answer, err := askWhetherMember(t.Context(), m[0].address(), m[1].agent.keys.now(), n1, self)
		if err != nil {
			t.Fatal(err)
		}
		if answer.GetUsed() != tt.used || answer.GetIncarnation() != uint32(runs.incarnation) || answer.GetRemoved() {
			t.Errorf("%s: %v; want incarnation %d, used %t", tt.name, answer, runs.incarnation, tt.used)
		}
		if answer.ahead.Abs() > time.Second {
			t.Errorf("%s: its clock is %s ahead of its own", tt.name, answer.ahead)
		}
		if noticed := len(m[0].agent.duplicates.seen(time.Now())) > before; noticed && !tt.used {
			t.Errorf("%s: noticed as a second agent", tt.name)
		}
	}
	if len(m[0].agent.duplicates.seen(time.Now())) != 1 {
		t.Error("the second agent is not noticed")
	}
	restarted := cluster.Restarted{Node: runs.node.ID, Name: "n2", Incarnation: runs.incarnation + 1}
	if err := m[0].agent.passChanges(t.Context(), []cluster.Change{restarted}); err != nil {
		t.Fatal(err)
	}
	if len(m[0].agent.duplicates.seen(time.Now())) != 0 {
		t.Error("the node has another incarnation, and the second agent of the one before is not forgotten")
	}
}

// TestWhatIsMadeOfNewsOfAnotherAgent which is nothing before it is said twice
// that nobody uses the identity.
func TestWhatIsMadeOfNewsOfAnotherAgent(t *testing.T) {
	t.Parallel()
	const own = 7
	seen := func(incarnation uint32, used bool) *belfryv1.GetMembershipResponse {
		return &belfryv1.GetMembershipResponse{Incarnation: incarnation, Used: used}
	}
	type round []*belfryv1.GetMembershipResponse
	for _, tt := range []struct {
		name   string
		rounds []round
		kept   string // in the file of the incarnation; empty: none
		noted  bool   // that a second agent runs
	}{
		{"nobody answers", []round{{}, {}, {}}, "", false},
		{"none", []round{{seen(7, false)}, {seen(6, false)}, {seen(0, false)}}, "", false},
		{"said once", []round{{seen(9, false)}}, "", false},
		{"said twice", []round{{seen(9, false)}, {seen(9, false)}}, "9", false},
		{"of several", []round{{seen(9, false)}, {seen(8, false), seen(10, false), seen(3, false)}}, "10", false},
		{"not in a row", []round{{seen(9, false)}, {}, {seen(9, false)}}, "", false},
		{"it runs", []round{{seen(9, true)}, {seen(9, true)}}, "", true},
		{"the same one runs", []round{{seen(7, true)}, {seen(7, true)}}, "", true},
		{"it runs for one of two", []round{{seen(9, false), seen(9, true)}, {seen(9, true), seen(9, false)}}, "", true},
		{"it runs again", []round{{seen(9, false)}, {seen(9, true)}, {seen(9, false)}}, "", true},
		{"it ended", []round{{seen(9, true)}, {seen(9, false)}, {seen(9, false)}}, "9", true},
		{"as far as is believed", []round{{seen(own+maxBehind, false)}, {seen(own+maxBehind, false)}}, "1048583", false},
		{"further", []round{{seen(own+maxBehind+1, false)}, {seen(own+maxBehind+1, false)}}, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := machines(t, 1)
			if _, err := Init(m[0].Place, InitOptions{Name: "test"}); err != nil {
				t.Fatal(err)
			}
			if err := keepIncarnation(m[0].State, own-1); err != nil {
				t.Fatal(err)
			}
			m[0].start(t)
			a := m[0].agent
			o := overtaken{agent: a}
			for _, answers := range tt.rounds {
				var news otherNews
				for _, answer := range answers {
					news.add("n2", answer, own)
				}
				o.judge(news)
			}
			kept, err := os.ReadFile(incarnationFile(m[0].State))
			if err != nil {
				t.Fatal(err)
			}
			want := tt.kept
			if want == "" {
				want = "7"
			} else {
				m[0].waitEnded(t)
			}
			if a.Again() != (tt.kept != "") {
				t.Errorf("another agent is to follow: %t", a.Again())
			}
			if got := strings.TrimSpace(string(kept)); got != want {
				t.Errorf("the file has %s; want %s", got, want)
			}
			if _, noted := a.duplicates.seen(time.Now())[a.id.node.ID]; noted != tt.noted {
				t.Errorf("a second agent is noted: %t; want %t", noted, tt.noted)
			}
		})
	}
}
