package main

import (
	"fmt"
	"strconv"
	"time"
)

// ago is how long something has lasted, as short as a person wants it.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0.0s" // clocks of two machines
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// span is a short duration that is measured: three digits are enough.
func span(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	case d < 10*time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}

// ratio is a share of 1 in percent.
func ratio(r float64) string {
	if r == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.1f%%", 100*r)
}

// number is a value without needless digits.
func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// sinceText is the time between since and now; empty if since is not known.
func sinceText(now, since time.Time) string {
	if since.IsZero() {
		return ""
	}
	return ago(now.Sub(since))
}

// The forms of times and durations in JSON and YAML: RFC 3339 in UTC, seconds.
// What is not known is null.

// An instant is a time in JSON.
type instant string

func jsonTime(t time.Time) *instant {
	if t.IsZero() {
		return nil
	}
	s := instant(t.UTC().Format("2006-01-02T15:04:05.000000000Z07:00"))
	return &s
}

func jsonSeconds(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}

// A stamp is a time of the API; nil is no time.
type stamp interface {
	IsValid() bool
	AsTime() time.Time
}

// when is the zero time for a stamp that is not set.
func when(s stamp) time.Time {
	if !s.IsValid() {
		return time.Time{}
	}
	return s.AsTime()
}
