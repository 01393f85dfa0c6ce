package belfry

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// sizes are the suffixes of bytes, longer ones first.
var sizes = []struct {
	suffix string
	factor float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// ParseValue reads a value of a class that is measured in unit, as people write
// it: 90% for "%", 10GiB for "bytes", 250ms for "ms", else a plain decimal
// number followed by the unit. The unit is never left out.
func ParseValue(unit, text string) (float64, bool) {
	switch unit {
	case "bytes":
		for _, s := range sizes {
			if digits, ok := strings.CutSuffix(text, s.suffix); ok {
				n, ok := float(digits)
				return n * s.factor, ok
			}
		}
		return 0, false
	case "ms":
		d, err := time.ParseDuration(text)
		if err != nil || text == "0" {
			return 0, false
		}
		return float64(d) / float64(time.Millisecond), true
	}
	digits, ok := strings.CutSuffix(text, unit)
	if !ok {
		return 0, false
	}
	return float(digits)
}

// float reads plain decimal numbers: no exponents, no hexadecimals, no "inf".
func float(digits string) (float64, bool) {
	if strings.Trim(digits, "0123456789.-") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(digits, 64)
	return n, err == nil && !math.IsInf(n, 0) && !math.IsNaN(n)
}
