package timer

import (
	"fmt"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// Bounds of an interval.
const (
	leastInterval    = time.Second
	greatestInterval = 366 * 24 * time.Hour
)

// parse makes the alarm that a subject names; it has yet to begin. ErrUsage for
// what has none of the forms.
func parse(subject string, zone *time.Location) (alarm, error) {
	refuse := func(format string, args ...any) (alarm, error) {
		return nil, fmt.Errorf("%w: %w", belfry.ErrUsage, fmt.Errorf(format, args...))
	}
	if text, ok := strings.CutPrefix(subject, "every="); ok {
		every, err := time.ParseDuration(text)
		switch {
		case err != nil:
			return refuse("every=%s is no interval; write a number with h, m or s, for example every=5m", text)
		case every < leastInterval || every > greatestInterval:
			return refuse("every=%s; 1s to %.0fh are possible", text, greatestInterval.Hours())
		}
		return &interval{every: every}, nil
	}
	text, ok := strings.CutPrefix(subject, "at=")
	if !ok {
		return refuse("subject %q; write every=5m, at=03:00 for each day, or at=%s for once", subject, exampleTime)
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return &moment{at: at}, nil
	}
	digits, utc := strings.CutSuffix(text, "Z")
	if utc {
		zone = time.UTC
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if len(digits) != len(layout) { // time.Parse takes fractions, and hours of one digit
			continue
		}
		if t, err := time.Parse(layout, digits); err == nil {
			return &daily{hour: t.Hour(), minute: t.Minute(), second: t.Second(), zone: zone}, nil
		}
	}
	return refuse("at=%s is no time; write at=03:00 or at=03:00:30 for each day by this node's zone, at=03:00Z by UTC, or at=%s for once", text, exampleTime)
}

const exampleTime = "2026-12-24T18:00:00+01:00"
