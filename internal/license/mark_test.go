package license

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMedianOfClocks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want   string
		clocks []string
	}{
		{"", nil},
		{"2026-01-05", []string{"2026-01-05"}},
		{"2026-01-05", []string{"2099-01-01", "2026-01-05"}}, // one of two is ahead
		{"2026-01-05", []string{"2099-01-01", "2026-01-05", "1970-01-01"}},
		{"2026-01-05", []string{"2099-01-01", "2026-01-05", "2026-01-04", "2098-01-01"}}, // two of four are
		{"2026-01-06", []string{"2026-01-07", "2026-01-06", "2026-01-05", "2099-01-01", "2026-01-01"}},
	} {
		var clocks []time.Time
		for _, c := range tt.clocks {
			clocks = append(clocks, at(c))
		}
		var want time.Time
		if tt.want != "" {
			want = at(tt.want)
		}
		if got := Median(clocks); !got.Equal(want) {
			t.Errorf("%s: got %s, want %s", tt.clocks, got, want)
		}
		if len(clocks) > 0 && !clocks[0].Equal(at(tt.clocks[0])) {
			t.Errorf("%s: the caller's list was sorted", tt.clocks)
		}
	}
}

func TestMarkRisesAtItsPace(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	start := at("2026-06-01")
	for _, tt := range []struct {
		name           string
		sample, uptime time.Duration // beside the start, and of the run
		want           time.Duration
	}{
		{"as time goes", hour, hour, hour},
		{"a clock that runs twice as fast", 2 * hour, hour, 2 * hour},
		{"a clock that leaps", 2*hour + 1, hour, 2 * hour},
		{"a clock of another century", 900_000 * hour, hour, 2 * hour},
		{"a whole day", 900_000 * hour, 24 * hour, 48 * hour},
		{"a day and more without a sample", 900_000 * hour, 100 * hour, 48 * hour},
		{"no time has passed", hour, 0, 0},
		{"uptime that goes back", hour, -hour, 0},
		{"a clock that is behind", -hour, hour, 0},
		{"a clock that stands", 0, hour, 0},
	} {
		m := MarkAt(start, 0).Raise(start.Add(tt.sample), tt.uptime)
		if got := m.Time().Sub(start); got != tt.want {
			t.Errorf("%s: rises by %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := MarkAt(time.Time{}, 9*hour).Raise(start, 9*hour).Time(); !got.Equal(start) {
		t.Errorf("the first sample makes the mark %s, want %s", got, start)
	}
	if got := MarkAt(start, 0).Adopt(start.Add(-hour)).Time(); !got.Equal(start) {
		t.Errorf("adopting what is older makes it %s", got)
	}
	if got := MarkAt(start, 0).Adopt(start.Add(99 * hour)).Time(); !got.Equal(start.Add(99 * hour)) {
		t.Errorf("adopting the committed mark makes it %s", got)
	}
}

// A good clock for a month buys no leap: what was not used is lost.
func TestAllowanceIsNotSaved(t *testing.T) {
	t.Parallel()
	m := MarkAt(at("2026-06-01"), 0)
	for h := 1; h <= 30*24; h++ {
		m = m.Raise(at("2026-06-01").Add(time.Duration(h)*time.Hour), time.Duration(h)*time.Hour)
	}
	m = m.Raise(at("2099-01-01"), (30*24+1)*time.Hour)
	if want := at("2026-07-01T02:00:00Z"); !m.Time().Equal(want) {
		t.Errorf("a wrong clock raises it to %s, want %s", m.Time(), want)
	}
}

// However clocks and uptimes come, over several runs of the agent: it never
// falls, never passes the greatest clock seen, and between any two samples of
// one run it rises by no more than twice the uptime, and by 48 h at most.
func TestOneWrongClockCannotPoisonTheMark(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		start := at("2026-06-01")
		var uptime time.Duration
		m, greatest := MarkAt(start, 0), start
		for range rapid.IntRange(1, 60).Draw(t, "samples") {
			before, last := m.Time(), uptime
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				uptime = time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "uptime"))
				m = MarkAt(m.Time(), uptime)
				last = uptime
			}
			uptime += time.Duration(rapid.Int64Range(0, int64(40*time.Hour)).Draw(t, "passes"))
			sample := start.Add(time.Duration(rapid.Int64Range(-int64(100*time.Hour), int64(900*time.Hour)).Draw(t, "sample")))
			if sample.After(greatest) {
				greatest = sample
			}
			m = m.Raise(sample, uptime)
			rise := m.Time().Sub(before)
			if rise < 0 || rise > 2*(uptime-last) || rise > 48*time.Hour || m.Time().After(greatest) {
				t.Fatalf("rises by %s to %s in %s; greatest clock %s", rise, m.Time(), uptime-last, greatest)
			}
			if sample.Sub(before) > 0 && sample.Sub(before) <= 2*(uptime-last) && sample.Sub(before) <= 48*time.Hour && !m.Time().Equal(sample) {
				t.Fatalf("a clock within the pace, %s, is not taken: %s", sample, m.Time())
			}
		}
	})
}

func TestClockThatCounts(t *testing.T) {
	t.Parallel()
	mark := at("2026-06-15T12:00:00Z")
	for _, tt := range []struct {
		now, want string
		behind    time.Duration
	}{
		{"2026-06-16T00:00:00Z", "2026-06-16T00:00:00Z", 0},
		{"2026-06-15T11:59:59Z", "2026-06-15T11:59:59Z", 0},
		{"2026-06-14T12:00:00Z", "2026-06-14T12:00:00Z", 0}, // 24 h: still believed
		{"2026-06-14T11:59:59.999999999Z", "2026-06-15T12:00:00Z", 24*time.Hour + 1},
		{"1970-01-01T00:00:00Z", "2026-06-15T12:00:00Z", mark.Sub(at("1970-01-01"))},
	} {
		clock, behind := Clock(at(tt.now), mark)
		if !clock.Equal(at(tt.want)) || behind != tt.behind {
			t.Errorf("at %s: %s, behind %s; want %s, %s", tt.now, clock, behind, tt.want, tt.behind)
		}
	}
	if clock, behind := Clock(at("1970-01-01"), time.Time{}); !clock.Equal(at("1970-01-01")) || behind != 0 {
		t.Errorf("without a mark: %s, behind %s", clock, behind)
	}
}
