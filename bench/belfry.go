package main

import (
	"fmt"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/sim"
)

// verdictOf is a verdict of Belfry in the order of this package.
var verdictOf = map[belfry.Verdict]verdict{
	belfry.VerdictJoining:     joining,
	belfry.VerdictUp:          up,
	belfry.VerdictStalled:     stalled,
	belfry.VerdictUnreachable: unreachable,
	belfry.VerdictDown:        down,
	belfry.VerdictLeft:        left,
}

// playBelfry runs one scenario with one seed on Belfry's own simulator.
func playBelfry(s *sim.Scenario, seed uint64) (run, error) {
	quiet := *s
	quiet.Expects = nil // they are for tests; what fails without them is an invariant
	whole, err := sim.Run(&quiet, sim.Options{Seed: seed})
	if err != nil {
		return run{}, err
	}
	r := run{System: belfryName, Seed: seed, Broken: len(whole.Failures)}
	if !kills(s) { // else what is sent is not shown
		// By the middle of the run; the same seed sends the same.
		first := quiet
		first.Run = middleOf(s)
		half, err := sim.Run(&first, sim.Options{Seed: seed})
		if err != nil {
			return run{}, err
		}
		for i := range whole.Packets {
			r.Sent = append(r.Sent, traffic{Packets: int(whole.Packets[i] - half.Packets[i]), Bytes: int(whole.Bytes[i] - half.Bytes[i])})
		}
	}
	for _, v := range whole.Verdicts {
		if v.Text != "" || v.From == v.To { // something else changed
			continue
		}
		to, ok := verdictOf[v.To]
		if !ok {
			return run{}, fmt.Errorf("seed %d: verdict %s is not known here", seed, v.To)
		}
		r.Observations = append(r.Observations, observation{At: v.At, Observer: v.Observer, Subject: v.Subject, Verdict: to})
	}
	return r, nil
}
