package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

func testConfig() Config {
	cfg := Default()
	cfg.Self, cfg.Number, cfg.Name, cfg.Incarnation = nodeID(1), 1, "a", 1
	return cfg
}

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	if err := testConfig().Validate(); err != nil {
		t.Errorf("Validate() = %v, want nil", err)
	}
}

func TestValidateNamesEveryWrongField(t *testing.T) {
	t.Parallel()
	cfg := Default() // without identity
	cfg.Watchers = 3
	cfg.IntervalMin = time.Millisecond
	cfg.RateMax = 1
	cfg.FanOut = 9
	err := cfg.Validate()
	if !errors.Is(err, belfry.ErrUsage) {
		t.Fatalf("Validate() = %v, want one that wraps ErrUsage", err)
	}
	for _, field := range []string{"self is", "number is 0; want", "incarnation", "watchers is 3; want an even number", "interval_min is 1ms; want 20ms", "rate_max", "fan_out is 9"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("Validate() = %v, want it to name %q", err, field)
		}
	}
}
