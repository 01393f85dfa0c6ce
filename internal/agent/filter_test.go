package agent

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

var filterClasses = []belfry.ClassInfo{
	{Class: "node.state", Data: "belfry.v1.NodeState"},
	{Class: "user.*", Data: "google.protobuf.Struct", Custom: true},
}

func nodeStateNotification(t *testing.T) *belfry.Notification {
	t.Helper()
	data, err := proto.Marshal(&belfryv1.NodeState{Node: "c", From: "up", To: "down", Cause: "process", Observers: 2})
	if err != nil {
		t.Fatal(err)
	}
	return &belfry.Notification{
		Kind: belfry.KindOccurrence, NodeName: "a", Event: belfry.EventID{Class: "node.state", Subject: "c"},
		First: 7, Last: 7, Count: 1, Code: 4, Edge: belfry.EdgeFailing, Data: data,
	}
}

func TestFilterSeesEveryFieldOfTheNotification(t *testing.T) {
	t.Parallel()
	compile := filterCompiler(filterClasses)
	for expression, want := range map[string]bool{
		`data.to == "down"`: true, `data.to == "up"`: false, `data.observers >= 2 and subject == "c"`: true,
		`class == "node.state" and node == "a" and kind == "occurrence"`: true, `code == 4 && edge == "failing"`: true,
		`seq == 7 and first == 7 and last == 7 and count == 1`: true, `value > 0 or instance != ""`: false,
		`data.cause in ["silent", "process"]`: true, `subject matches "^[ab]$"`: false,
	} {
		filter, err := compile("node.state", expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		got, err := filter(nodeStateNotification(t))
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", expression, got, err, want)
		}
	}
}

func TestFilterThatCanNotWorkIsRefusedWithItsColumn(t *testing.T) {
	t.Parallel()
	compile := filterCompiler(filterClasses)
	for expression, want := range map[string]string{
		`data.to == down`:    `column 12: unknown name down; strings need quotes: "down"`,
		`data.too == "down"`: `column 6: unknown field too; belfry event types CLASS lists the fields of a class`,
		`now() > 3`:          `column 1: now is not there: expressions have no clock`,
		`subject`:            `expected bool, but got string`,
		`seq ==`:             `column 6: unexpected token EOF`,
		strings.Repeat("seq == 1 or ", 200) + "true": `exceeds`,
		strings.Repeat(" ", 5000):                    `5000 bytes; at most 4096`,
	} {
		_, err := compile("node.state", expression)
		if err == nil || !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v; want ErrUsage with %q", expression, err, want)
		}
	}
}

func TestFilterOverOwnEventsLeavesTheirFieldsOpen(t *testing.T) {
	t.Parallel()
	if _, err := filterCompiler(filterClasses)("user.backup", `data.size > 3 and data.host == "x"`); err != nil {
		t.Error(err)
	}
}

// A short expression must not be able to hold the event loop up.
func TestFilterCanNotRunForLong(t *testing.T) {
	t.Parallel()
	compile := filterCompiler(filterClasses)
	for expression, want := range map[string]string{
		`let x = 1..300; all(x, all(x, all(x, # > 0)))`: "no ranges",
		`seq in 1..100`: "column 9: no ranges; compare with >= and <=",
		`all(data.evidence, any(data.evidence, # != ""))`:                        "no loop within a loop",
		`let s = subject + subject; let t = s + s; len(t) > 3`:                   "no variables",
		`reduce(data.evidence, #acc + #acc) == ""`:                               "reduce is not there; there are all any none",
		`repeat(subject, 1000000) == ""`:                                         "repeat is not there",
		`len(sort(data.evidence)) > 1`:                                           "sort is not there",
		`any(data.evidence, {len(filter(data.evidence, {# contains "x"})) > 1})`: "no loop within a loop",
	} {
		_, err := compile("node.state", expression)
		if !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v; want ErrUsage with %q", expression, err, want)
		}
	}
	if _, err := compile("node.state", `any(data.evidence, # contains "reset") and len(filter(data.evidence, # != "")) < 5`); err != nil {
		t.Errorf("loops side by side: %v", err)
	}
}

func TestManualNamesTheEnvironmentOfFilters(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(slices.Sorted(slices.Values(filterNames)), slices.Sorted(maps.Keys(filterEnvironment("")))); diff != "" {
		t.Error(diff)
	}
}

func FuzzExpression(f *testing.F) {
	for _, seed := range []string{`data.to == "down"`, `data.to == down`, `1..9`, `count > 3 and not (seq < 1)`, "\xff", `let x = data; x.to`} {
		f.Add(seed)
	}
	compile := filterCompiler(filterClasses)
	f.Fuzz(func(t *testing.T, expression string) {
		filter, err := compile("node.state", expression)
		if err != nil {
			if !errors.Is(err, belfry.ErrUsage) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: %q is not one line of wrong use", expression, err)
			}
			return
		}
		_, _ = filter(nodeStateNotification(t)) // an error is a refusal; a panic is the fault
	})
}

// TestWhichFiltersLookAtData: in data and value occurrences differ that merge.
func TestWhichFiltersLookAtData(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]bool{
		`code == 4 and edge == "failing"`: false, `subject contains "data"`: false, `kind == "data" or count > 1`: false,
		`data.to == "down"`: true, `"down" in data`: true, `code == 4 or any(["x"], data.to == #)`: true,
		`value > 1.5`: true, `$env["data"].to == "down"`: true,
	} {
		if got := looksAtData(expression); got != want {
			t.Errorf("%s: looks at data: got %v, want %v", expression, got, want)
		}
	}
}
