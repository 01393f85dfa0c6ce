package side

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

var nan = math.NaN()

func TestVerdictIsJudgedByTheRatioOfPairs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		row  Row
		want string
	}{
		{"at most, below", Row{Theirs: []float64{10, 20, 30}, Ours: []float64{5, 10, 15}, Target: Target{Ratio: 0.6}}, "met"},
		{"at most, equal", Row{Theirs: []float64{10, 20, 30}, Ours: []float64{5, 10, 15}, Target: Target{Ratio: 0.5}}, "met"},
		{"at most, above", Row{Theirs: []float64{10, 20, 30}, Ours: []float64{5, 10, 15}, Target: Target{Ratio: 0.4}}, "**missed**"},
		{"at least, above", Row{Theirs: []float64{10, 20, 30}, Ours: []float64{15, 30, 45}, Target: Target{Ratio: 1.4, AtLeast: true}}, "met"},
		{"at least, equal", Row{Theirs: []float64{10, 20, 30}, Ours: []float64{15, 30, 45}, Target: Target{Ratio: 1.5, AtLeast: true}}, "met"},
		{"at least, below", Row{Theirs: []float64{10, 20, 30}, Ours: []float64{15, 30, 45}, Target: Target{Ratio: 1.6, AtLeast: true}}, "**missed**"},
		{"an own bound", Row{Theirs: []float64{1, 1, 1}, Ours: []float64{20, 24, 90}, Target: Target{Own: 25}}, "met"},
		{"an own bound without a peer", Row{Ours: []float64{20, 26, 90}, Target: Target{Own: 25}}, "**missed**"},
		{"no target", Row{Theirs: []float64{1}, Ours: []float64{1}}, ""},
		{"two pairs of five are left", Row{Theirs: []float64{1, 1, 1, nan, nan}, Ours: []float64{1, 1, nan, 1, 1}, Target: Target{Ratio: 9}}, "void"},
		{"three pairs of five are left", Row{Theirs: []float64{1, 1, 1, nan, 1}, Ours: []float64{1, 1, nan, 1, 1}, Target: Target{Ratio: 9}}, "met"},
	} {
		if got := c.row.Verdict(); got != c.want {
			t.Errorf("%s: want %q, got %q", c.name, c.want, got)
		}
	}
}

func TestNumbersHaveThreeDigitsThatCount(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0", 0.012345: "0.0123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 999.6: "1,000", 1234567.8: "1,234,568", -1234: "-1,234",
	} {
		if got := Number(v); got != want {
			t.Errorf("%v: want %q, got %q", v, want, got)
		}
	}
}

func TestTableShowsSpreadRatioAndNotes(t *testing.T) {
	t.Parallel()
	table := Table{Title: "Title", LoadBefore: "1 2 3", LoadAfter: "4 5 6", Rows: []Row{
		{
			Work: "work", Unit: "µs", Hops: "2 : 3", Peer: "peer", Theirs: []float64{100, 200, 400, 100}, Ours: []float64{50, 50, 400, nan},
			Target: Target{Ratio: 0.5}, Note: "a note",
		},
		{Work: "alone", Unit: "KiB", Ours: []float64{7}},
	}}
	want := `### Title

Load average 1 2 3 before, 4 5 6 after.

| work | unit | peer | peer, median (spread) | Belfry, median (spread) | hops, peer : Belfry | ratio (spread) | target | |
|---|---|---|---|---|---|---|---|---|
| work | µs | peer | 150 (100–400) | 50.0 (50.0–400), 1 void | 2 : 3 | 0.5× (0.25–1.00) | ≤ 0.5× | met |
| alone | KiB | – | – | 7.00 | – | – | – |  |

- work: a note
`
	if got := table.Markdown(); got != want {
		t.Errorf("want:\n%s\ngot:\n%s", want, got)
	}
}

func TestRewriteReplacesOnlyWhatIsBetweenTheMarks(t *testing.T) {
	t.Parallel()
	r := Report{Mark: "figures", Repetitions: 5, Scale: 1, Tables: []Table{{Title: "New"}}}
	markBegin, markEnd := r.marks()
	old := "before\n" + markBegin + "\nold figures\n" + markEnd + "\nafter\n"
	got, err := r.Rewrite(old)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got, "before\n"+markBegin+"\n") || !strings.HasSuffix(got, markEnd+"\nafter\n") ||
		strings.Contains(got, "old figures") || !strings.Contains(got, "### New") {
		t.Errorf("got:\n%s", got)
	}
	again, err := r.Rewrite(got)
	if err != nil || again != got {
		t.Errorf("a second rewrite changes nothing; error %v, got:\n%s", err, again)
	}
	for _, bad := range []string{"", markBegin, markEnd + "\n" + markBegin} {
		if _, err := r.Rewrite(bad); err == nil {
			t.Errorf("%q has no place for the tables; want an error", bad)
		}
	}
}

func TestVoidFiguresAreNullInJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(Row{Work: "w", Theirs: []float64{1, nan}, Ours: []float64{nan, nan}})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Peer   []*float64 `json:"peer_values"`
		Belfry []*float64 `json:"belfry_values"`
		Ratio  *float64
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Peer) != 2 || got.Peer[0] == nil || *got.Peer[0] != 1 || got.Peer[1] != nil || got.Belfry[0] != nil || got.Ratio != nil {
		t.Errorf("got %s", text)
	}
}
