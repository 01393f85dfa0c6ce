package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// measured is a report of two systems in one scenario.
func measured() *report {
	never := math.Inf(1)
	r := &report{}
	r.merge(environment{Date: "today"}, []cell{
		{Scenario: "silent64", Nodes: 64, System: belfryName, Values: map[string]series{
			"detect_first_seconds_unreachable": {0.4, 0.5, 0.7}, "detect_all_seconds_unreachable": {0.5, 0.6, 0.9},
			"detect_first_seconds_down": {2.5, 2.6, 2.7}, "detect_all_seconds_down": {2.6, 2.7, 3.3},
			"node_hours": {1, 1, 1}, "packets_per_node_second": {2, 2, 2}, "bytes_per_node_second": {144, 144, 144},
		}},
		{Scenario: "silent64", Nodes: 64, System: "memberlist-tuned", Values: map[string]series{
			"detect_first_seconds_down": {1, 1, 1}, "detect_all_seconds_down": {1.2, 1.3, never},
			"node_hours": {1, 1, 1}, "packets_per_node_second": {10, 10, 10}, "bytes_per_node_second": {735, 735, 735},
		}},
	}, nil)
	return r
}

func TestTableShowsOnlyColumnsThatSaySomething(t *testing.T) {
	t.Parallel()
	r := measured()
	want := `| scenario | nodes | system | runs | unreachable, first | unreachable, all | down, first | down, all | Belfry sooner: unreachable, down |
|---|---|---|---|---|---|---|---|---|
| silent64 | 64 | Belfry | 3 | 0.5 s / 0.7 s | 0.6 s / 0.9 s | 2.60 s / 2.70 s | 2.70 s / 3.30 s | – |
| silent64 | 64 | memberlist tuned | 3 | – | – | 1 s / 1 s | 1.30 s / never (1 never) | 3 of 3 (p 0.250), 1 of 3 (p 1.000) |
`
	if got := r.table(r.all()); got != want {
		t.Errorf("want:\n%s\ngot:\n%s", want, got)
	}
}

func TestGoalsSayWhatIsMissed(t *testing.T) {
	t.Parallel()
	got := measured().goals()
	for _, want := range []string{
		"| silent host, *unreachable* at the first survivor, median | 0.55 s | 0.5 s | met |",
		"| the same against *down* of memberlist tuned, 64 nodes, median | 0.5× | 0.5× | met |",
		"| silent host, *down* at all survivors, p99 | 3.20 s | 3.30 s | **missed** |",
		"| join of 64 at once, worst; without admission, see above | 2 s | – | not measured |",
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("want the line\n%s\nin\n%s", want, got)
		}
	}
}

func TestMergeKeepsWhatWasNotMeasuredAgain(t *testing.T) {
	t.Parallel()
	r := measured()
	r.merge(environment{Date: "tomorrow"}, []cell{{Scenario: "silent64", System: belfryName}, {Scenario: "idle8", System: belfryName}}, nil)
	if len(r.Virtual) != 3 || r.Virtual[0].Values != nil || r.Virtual[1].Values == nil || r.Environment.Date != "tomorrow" {
		t.Errorf("got %+v", r)
	}
}

func TestJSONReadsBackAsItWas(t *testing.T) {
	t.Parallel()
	r := measured()
	text, err := r.text()
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if again, err := back.text(); err != nil || string(again) != string(text) {
		t.Errorf("want:\n%s\ngot:\n%s (%v)", text, again, err)
	}
	if !math.IsInf(back.Virtual[1].Values["detect_all_seconds_down"][2], 1) {
		t.Error("what never happened came back as something else")
	}
}

func TestRewriteReplacesOnlyWhatIsBetweenTheMarks(t *testing.T) {
	t.Parallel()
	got, err := measured().rewrite("before\n" + markBegin + "\nold figures\n" + markEnd + "\nafter\n")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got, "before\n"+markBegin) || !strings.HasSuffix(got, markEnd+"\nafter\n") || strings.Contains(got, "old figures") {
		t.Errorf("got:\n%s", got)
	}
	if _, err := measured().rewrite("no marks"); err == nil {
		t.Error("a text without the marks was taken")
	}
}

func TestPlotsAreXML(t *testing.T) {
	t.Parallel()
	for _, c := range []*chart{plotDetection(measured()), plotBytes(measured())} {
		d := xml.NewDecoder(strings.NewReader(c.svg()))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", c.title, err)
			}
		}
	}
}

func TestADistributionIsAStaircaseThatEndsBelowOneIfSomethingNeverHappened(t *testing.T) {
	t.Parallel()
	got := distribution("x", series{2, math.Inf(1), 1, 3}).points
	want := [][2]float64{{1, 0}, {1, 0.25}, {2, 0.5}, {3, 0.75}}
	if len(got) != len(want) {
		t.Fatalf("want %v, got %v", want, got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("want %v, got %v", want, got)
		}
	}
}
