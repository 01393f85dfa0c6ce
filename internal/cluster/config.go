package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// Policy says how the heartbeat interval is chosen (cluster.md 5).
type Policy uint8

// The policies.
const (
	PolicyTarget Policy = iota // as slow as the detection target allows
	PolicyPath                 // ten times the round trip and its deviation (US8667126), whatever it costs
)

// Config is the settings of one machine. It is passed by value and never
// written after New. [Default] gives the values of cluster.md 11; zero values
// are not defaults.
type Config struct {
	Self        belfry.NodeID      // who this node is; not zero
	Number      belfry.NodeNumber  // its name on the wire; not zero
	Name        string             // its name for people
	Incarnation belfry.Incarnation // of this start, from 1; on disk before New
	Cluster     belfry.ClusterID   // orders the ring

	// Watchers is K: how many nodes watch a node. Even, 2 to 8.
	Watchers int
	// DetectTarget is the time from the death of a silent host to unreachable
	// that the interval is chosen for. 200 ms to 60 s.
	DetectTarget time.Duration
	Policy       Policy

	// IntervalMin and IntervalMax bound the heartbeat interval. 20 ms to 60 s.
	IntervalMin, IntervalMax time.Duration
	// RateQuiet is how many heartbeats a node sends on one interface while all
	// is quiet; RateMax is never exceeded. Per 1,000 s; 100 to 100,000.
	RateQuiet, RateMax int

	// LossPrior is the loss assumed of a new link, LossFloor the least that is
	// ever assumed. 1/255; 0 to 127. A prior of zero makes false downs at a cold
	// start on a lossy network (cluster.md 4).
	LossPrior, LossFloor uint8

	// Allowance is how long an unreachable node may be silent before it is
	// down, counted from the first missed deadline; pauses it survived stretch
	// it up to AllowanceCap. 0 to 120 s.
	Allowance, AllowanceCap time.Duration
	// NodeTimeout replaces the allowance: down follows when a node is
	// unreachable and nobody heard it for this long. 0 to 600 s; 0: allowance.
	NodeTimeout time.Duration
	// StallMax is how long a node may be stalled before it is down, RestartHold
	// how long it may take to come back from an announced restart. 0 to 600 s.
	StallMax, RestartHold time.Duration

	// FanOut is how many random members an adopted claim is sent to in each of
	// FanOutRounds rounds, 100 ms apart. 1 to 8.
	FanOut, FanOutRounds int
}

// Default is the settings of cluster.md 11, without identity.
func Default() Config {
	return Config{
		Watchers:     4,
		DetectTarget: 800 * time.Millisecond,
		Policy:       PolicyTarget,
		IntervalMin:  100 * time.Millisecond,
		IntervalMax:  30 * time.Second,
		RateQuiet:    2000,
		RateMax:      4000,
		LossPrior:    76, // 0.30
		LossFloor:    25, // 0.10
		Allowance:    2500 * time.Millisecond,
		AllowanceCap: 10 * time.Second,
		StallMax:     30 * time.Second,
		RestartHold:  10 * time.Second,
		FanOut:       4,
		FanOutRounds: 3,
	}
}

// Validate names every wrong field at once; the error wraps belfry.ErrUsage.
func (c Config) Validate() error {
	var errs []error
	wrong := func(ok bool, field string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is %v; want %s", field, value, want))
		}
	}
	between := func(field string, d, low, high time.Duration) {
		wrong(d >= low && d <= high, field, d, fmt.Sprintf("%v to %v", low, high))
	}
	wrong(!c.Self.IsZero(), "self", c.Self, "a node id")
	wrong(c.Number != 0, "number", c.Number, "a node number from 1")
	wrong(c.Incarnation != 0, "incarnation", c.Incarnation, "a number from 1")
	wrong(c.Watchers >= 2 && c.Watchers <= 8 && c.Watchers%2 == 0, "watchers", c.Watchers, "an even number, 2 to 8")
	between("detect_target", c.DetectTarget, 200*time.Millisecond, time.Minute)
	wrong(c.Policy <= PolicyPath, "policy", c.Policy, "target or path")
	between("interval_min", c.IntervalMin, 20*time.Millisecond, time.Minute)
	between("interval_max", c.IntervalMax, c.IntervalMin, time.Minute)
	wrong(c.RateQuiet >= 100 && c.RateQuiet <= 100_000, "rate_quiet", c.RateQuiet, "0.1 to 100 per second")
	wrong(c.RateMax >= c.RateQuiet && c.RateMax <= 100_000, "rate_max", c.RateMax, "rate_quiet to 100 per second")
	wrong(c.LossPrior <= 127, "loss_prior", c.LossPrior, "0 to 0.5")
	wrong(c.LossFloor <= 127, "loss_floor", c.LossFloor, "0 to 0.5")
	between("allowance", c.Allowance, 0, 2*time.Minute)
	between("allowance_cap", c.AllowanceCap, c.Allowance, 2*time.Minute)
	between("node_timeout", c.NodeTimeout, 0, 10*time.Minute)
	between("stall_max", c.StallMax, 0, 10*time.Minute)
	between("restart_hold", c.RestartHold, 0, 10*time.Minute)
	wrong(c.FanOut >= 1 && c.FanOut <= 8, "fan_out", c.FanOut, "1 to 8")
	wrong(c.FanOutRounds >= 1 && c.FanOutRounds <= 8, "fan_out_rounds", c.FanOutRounds, "1 to 8")
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w: tunables: %w", belfry.ErrUsage, errors.Join(errs...))
}
