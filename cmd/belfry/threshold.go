package main

import (
	"math"
	"strconv"
	"strings"

	"github.com/belfry-ha/belfry"
)

// units are how the units of value classes are written.
var units = []struct {
	unit    string // of the class
	words   string // "measured in …"
	example string
}{
	{unit: "%", words: "percent", example: "90%"},
	{unit: "bytes", words: "bytes", example: "10GiB"},
	{unit: "ms", words: "milliseconds", example: "250ms"},
	{unit: "ms/s", words: "milliseconds of each second", example: "100ms/s"},
	{unit: "/s", words: "occasions a second", example: "10/s"},
}

func exampleOf(unit string) string {
	for _, u := range units {
		if u.unit == unit {
			return u.example
		}
	}
	return "10" + unit
}

func wordsOf(unit string) string {
	for _, u := range units {
		if u.unit == unit {
			return u.words
		}
	}
	return unit
}

// parseValue reads a number with the unit of the class. The unit is never
// left out: 90 of what?
func parseValue(flag, text, class, unit string) (float64, error) {
	v, ok := belfry.ParseValue(unit, text)
	switch {
	case !ok:
		if n, err := strconv.ParseFloat(text, 64); err == nil && finite(n) && unit != "bytes" {
			return 0, usagef("--%s %s: %s is measured in %s; write --%s %s%s", flag, text, class, wordsOf(unit), flag, text, unit)
		}
		return 0, usagef("--%s %s: %s is measured in %s; write for example --%s %s", flag, text, class, wordsOf(unit), flag, exampleOf(unit))
	case unit == "%" && (v < 0 || v > 100):
		return 0, usagef("--%s %s: %s lies between 0%% and 100%%", flag, text, class)
	case v < 0:
		return 0, usagef("--%s %s: %s is never below zero", flag, text, class)
	}
	return v, nil
}

func finite(n float64) bool { return !math.IsInf(n, 0) && !math.IsNaN(n) }

// thresholdFlags are --over, --under and --rearm as they were written.
type thresholdFlags struct{ over, under, rearm string }

// in reads the flags in the unit of the classes that s stands for.
func (f thresholdFlags) in(classes catalogue, s selector) (belfry.Threshold, error) {
	var t belfry.Threshold
	for _, part := range []struct {
		flag, text string
		value      *float64
	}{
		{"over", f.over, &t.Hi},
		{"under", f.under, &t.Lo},
		{"rearm", f.rearm, &t.Hysteresis},
	} {
		if part.text == "" {
			continue
		}
		unit, err := classes.unit(part.flag, part.text, s)
		if err != nil {
			return t, err
		}
		if *part.value, err = parseValue(part.flag, part.text, s.class, unit); err != nil {
			return t, err
		}
	}
	t.HasHi, t.HasLo = f.over != "", f.under != ""
	switch {
	case f.rearm != "" && t.IsZero():
		return t, usagef("--rearm %s: there is no threshold to re-arm; add --over or --under", f.rearm)
	case t.HasHi && t.HasLo && t.Lo >= t.Hi:
		return t, usagef("--over %s --under %s: nothing lies between them; --under is the lower one", f.over, f.under)
	case t.HasHi && t.Hysteresis > t.Hi:
		return t, usagef("--over %s --rearm %s: the value would have to fall below zero; --rearm is how far it must come back", f.over, f.rearm)
	case t.HasLo && strings.HasSuffix(f.under, "%") && t.Lo+t.Hysteresis > 100:
		return t, usagef("--under %s --rearm %s: the value would have to rise above 100%%; --rearm is how far it must come back", f.under, f.rearm)
	}
	return t, nil
}
