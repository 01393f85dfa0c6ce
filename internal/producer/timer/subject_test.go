package timer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var unexported = cmp.AllowUnexported(interval{}, moment{}, daily{}, instant{})

// zone is one that changes its clocks.
func zone(t testing.TB) *time.Location {
	t.Helper()
	z, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("needs: tzdata")
	}
	return z
}

func TestTimesHaveTheirForms(t *testing.T) {
	t.Parallel()
	local := time.FixedZone("here", 3600)
	for subject, want := range map[string]alarm{
		"every=5m":                     &interval{every: 5 * time.Minute},
		"every=1s":                     &interval{every: time.Second},
		"every=1h30m":                  &interval{every: 90 * time.Minute},
		"every=8784h":                  &interval{every: 8784 * time.Hour},
		"at=03:00":                     &daily{hour: 3, zone: local},
		"at=23:59:59":                  &daily{hour: 23, minute: 59, second: 59, zone: local},
		"at=03:00Z":                    &daily{hour: 3, zone: time.UTC},
		"at=00:00:00Z":                 &daily{zone: time.UTC},
		"at=2026-12-24T18:00:00Z":      &moment{at: time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC)},
		"at=2026-12-24T18:00:00.5Z":    &moment{at: time.Date(2026, 12, 24, 18, 0, 0, 5e8, time.UTC)},
		"at=2026-12-24T18:00:00+01:00": &moment{at: time.Date(2026, 12, 24, 17, 0, 0, 0, time.UTC)},
	} {
		got, err := parse(subject, local)
		equal := cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })
		if diff := cmp.Diff(want, got, unexported, equal); diff != "" || err != nil {
			t.Errorf("%s: error %v (-want +got):\n%s", subject, err, diff)
		}
	}
	for subject, text := range map[string]string{
		"":                        `subject ""; write every=5m, at=03:00 for each day`,
		"5m":                      `subject "5m"; write every=5m`,
		"every=":                  "every= is no interval; write a number with h, m or s, for example every=5m",
		"every=1d":                "every=1d is no interval",
		"every=5":                 "every=5 is no interval",
		"every=999ms":             "every=999ms; 1s to 8784h are possible",
		"every=-5m":               "every=-5m; 1s to 8784h are possible",
		"every=8785h":             "every=8785h; 1s to 8784h are possible",
		"at=":                     "at= is no time; write at=03:00 or at=03:00:30 for each day by this node's zone, at=03:00Z by UTC",
		"at=3:00":                 "at=3:00 is no time",
		"at=24:00":                "at=24:00 is no time",
		"at=03:00:60":             "at=03:00:60 is no time",
		"at=03:00:0.5":            "at=03:00:0.5 is no time",
		"at=03:00+01:00":          "at=03:00+01:00 is no time",
		"at=2026-12-24T18:00:00":  "at=2026-12-24T18:00:00 is no time",
		"at=2026-12-24 18:00:00Z": "at=2026-12-24 18:00:00Z is no time",
	} {
		a, err := parse(subject, local)
		if !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q gives %+v, %v; want ErrUsage with %q", subject, a, err, text)
		}
	}
}

// What is let through is due after now, and takes what it promises.
func FuzzTimesThatAreLetThroughAreDue(f *testing.F) {
	f.Add("every=5m", int64(1_795_435_200), int64(3600))
	f.Add("at=02:30", int64(1_774_742_400), int64(86_400*200))
	f.Add("at=2026-12-24T18:00:00Z", int64(1_795_435_200), int64(86_400*60))
	f.Add("at=23:59:60Z", int64(0), int64(1))
	z := zone(f)
	f.Fuzz(func(t *testing.T, subject string, unix, seconds int64) {
		a, err := parse(subject, z)
		if err != nil || unix < 0 || unix > 1<<33 || seconds < 0 || seconds > 1<<28 {
			return
		}
		now := instant{time.Unix(unix, 0), time.Hour}
		if a.begin(now) != nil {
			return
		}
		before := a.next()
		if before == (due{}) || !before.wall.IsZero() && before.wall.Before(now.wall) || before.boot != 0 && before.boot <= now.boot {
			t.Fatalf("%s at %v is due at %+v", subject, now, before)
		}
		asleep := time.Duration(seconds) * time.Second
		now = instant{now.wall.Add(asleep), now.boot + asleep}
		r := a.take(now)
		if (r.count > 0) != (before.wall.IsZero() && before.boot <= now.boot || before.boot == 0 && !before.wall.After(now.wall)) {
			t.Fatalf("%s was due at %+v, at %+v it takes %+v", subject, before, now, r)
		}
		if r.count > 0 && r.newest.After(now.wall) {
			t.Errorf("%s: the newest at %v, which is to come at %v", subject, r.newest, now.wall)
		}
		if again := a.take(now); !r.over && again.count != 0 {
			t.Errorf("%s: at %+v it takes %+v and then %+v", subject, now, r, again)
		}
		if after := a.next(); !r.over && (!after.wall.IsZero() && !after.wall.After(now.wall) || after.boot != 0 && after.boot <= now.boot) {
			t.Errorf("%s at %v is due next at %+v", subject, now, after)
		}
	})
}
