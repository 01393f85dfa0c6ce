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

	// Pauses are those that an earlier start gave to keep (Output.Pauses).
	Pauses []Pause

	Tunables
}

// Tunables are the settings that the cluster shares (section tunables of its
// configuration). They can change while a machine runs (Settings).
type Tunables struct {
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
	// NodeDownDelay puts off posting that a node is down. If it answers
	// meanwhile, nothing is posted. 0 to 600 s.
	NodeDownDelay time.Duration
	// StallMax is how long a node may be stalled before it is down, RestartHold
	// how long it may take to come back from an announced restart. 0 to 600 s.
	StallMax, RestartHold time.Duration

	// FanOut is how many random members an adopted claim is sent to in each of
	// FanOutRounds rounds, 50 ms apart. 1 to 8.
	FanOut, FanOutRounds int
}

// Default is the settings of cluster.md 11, without identity.
func Default() Config { return Config{Tunables: DefaultTunables()} }

// DefaultTunables is the settings of cluster.md 11.
func DefaultTunables() Tunables {
	return Tunables{
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
	var f faults
	f.check(!c.Self.IsZero(), "self", c.Self, "a node id")
	f.check(c.Number != 0, "number", c.Number, "a node number from 1")
	f.check(c.Incarnation != 0, "incarnation", c.Incarnation, "a number from 1")
	c.check(&f)
	return f.err()
}

// Validate names every wrong field at once; the error wraps belfry.ErrUsage.
func (t Tunables) Validate() error {
	var f faults
	t.check(&f)
	return f.err()
}

func (t Tunables) check(f *faults) {
	f.check(t.Watchers >= 2 && t.Watchers <= 8 && t.Watchers%2 == 0, "watchers", t.Watchers, "an even number, 2 to 8")
	f.between("detect_target", t.DetectTarget, 200*time.Millisecond, time.Minute)
	f.check(t.Policy <= PolicyPath, "policy", t.Policy, "target or path")
	f.between("interval_min", t.IntervalMin, 20*time.Millisecond, time.Minute)
	f.between("interval_max", t.IntervalMax, t.IntervalMin, time.Minute)
	f.check(t.RateQuiet >= 100 && t.RateQuiet <= 100_000, "rate_quiet", float64(t.RateQuiet)/1000, "0.1 to 100 per second")
	f.check(t.RateMax >= t.RateQuiet && t.RateMax <= 100_000, "rate_max", float64(t.RateMax)/1000, "rate_quiet to 100 per second")
	f.check(t.LossPrior <= 127, "loss_prior", t.LossPrior, "0 to 0.5")
	f.check(t.LossFloor <= 127, "loss_floor", t.LossFloor, "0 to 0.5")
	f.between("allowance", t.Allowance, 0, 2*time.Minute)
	f.between("allowance_cap", t.AllowanceCap, t.Allowance, 2*time.Minute)
	f.between("node_timeout", t.NodeTimeout, 0, 10*time.Minute)
	f.between("node_down_delay", t.NodeDownDelay, 0, 10*time.Minute)
	f.between("stall_max", t.StallMax, 0, 10*time.Minute)
	f.between("restart_hold", t.RestartHold, 0, 10*time.Minute)
	f.check(t.FanOut >= 1 && t.FanOut <= 8, "fan_out", t.FanOut, "1 to 8")
	f.check(t.FanOutRounds >= 1 && t.FanOutRounds <= 8, "fan_out_rounds", t.FanOutRounds, "1 to 8")
}

// faults are the wrong fields that were found.
type faults []error

func (f *faults) check(ok bool, field string, value any, want string) {
	if !ok {
		*f = append(*f, fmt.Errorf("%s is %v; want %s", field, value, want))
	}
}

func (f *faults) between(field string, d, low, high time.Duration) {
	f.check(d >= low && d <= high, field, d, fmt.Sprintf("%v to %v", low, high))
}

func (f *faults) err() error {
	if len(*f) == 0 {
		return nil
	}
	return fmt.Errorf("%w: tunables: %w", belfry.ErrUsage, errors.Join(*f...))
}
