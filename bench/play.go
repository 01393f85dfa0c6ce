package main

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/belfry-ha/belfry/internal/sim"
)

const (
	// warmLimit is how long a cluster may take to form before the scenario, in
	// virtual time, and settle how long it then runs undisturbed. The phase
	// makes it differ with the seed.
	warmLimit = 10 * time.Minute
	settle    = time.Minute
	phase     = 997 * time.Microsecond
	// joinRetry is when a node that could not join asks again.
	joinRetry = time.Second
	// dregs is how long the last timer of memberlist runs, which a bubble has to
	// outlive.
	dregs = 120 * time.Second
)

// A cast is the memberlist nodes that play one scenario within a bubble.
type cast struct {
	system   system
	scenario *sim.Scenario
	net      *network
	ears     *recorder
	nodes    []*memberlist.Memberlist // nil: not there
}

// playMemberlist runs one scenario with one seed. It has to be called within a
// synctest bubble.
func playMemberlist(s *sim.Scenario, sys system, seed uint64) (run, error) {
	c := &cast{
		system: sys, scenario: s, net: newNetwork(s.Nodes, s.Conditions(seed), s.Delay+s.Exp),
		ears: newRecorder(s.Nodes), nodes: make([]*memberlist.Memberlist, s.Nodes),
	}
	err := c.play(seed)
	r := run{System: sys.Name, Seed: seed}
	c.ears.mu.Lock()
	r.Observations = c.ears.seen
	c.ears.mu.Unlock()
	c.net.mu.Lock()
	for _, e := range c.net.nodes {
		r.Sent = append(r.Sent, e.sent)
		r.Dropped += e.dropped
	}
	c.net.mu.Unlock()
	c.end()
	return r, err
}

// play is the scenario itself, from the warm cluster to the end of the run.
func (c *cast) play(seed uint64) error {
	if err := c.warm(); err != nil {
		return err
	}
	if c.scenario.Joins() {
		c.net.sleep(time.Duration(seed) * phase)
	} else {
		c.net.sleep(settle + time.Duration(seed)*phase)
	}
	begin := time.Now()
	c.net.start()
	c.ears.start()
	time.AfterFunc(middleOf(c.scenario), c.net.count)
	for _, step := range c.scenario.Steps {
		if step.At >= c.scenario.Run {
			break
		}
		c.net.sleep(time.Until(begin.Add(step.At)))
		if err := c.do(step); err != nil {
			return fmt.Errorf("%s:%d: %w", c.scenario.Name, step.Line, err)
		}
	}
	c.net.sleep(time.Until(begin.Add(c.scenario.Run)))
	return nil
}

// warm forms the cluster of those whom no step makes join.
func (c *cast) warm() error {
	later := map[int]bool{}
	for _, step := range c.scenario.Steps {
		if step.Kind == sim.StepJoin {
			for _, i := range nodesOf(c.scenario, step) {
				later[i] = true
			}
		}
	}
	var members []int
	for i := range c.nodes {
		if later[i] {
			continue
		}
		if err := c.create(i); err != nil {
			return err
		}
		if members = append(members, i); len(members) > 1 {
			if _, err := c.nodes[i].Join([]string{address(members[0]).String()}); err != nil {
				return err
			}
		}
	}
	for begin := time.Now(); ; c.net.sleep(time.Second) {
		formed := true
		for _, i := range members {
			formed = formed && c.nodes[i].NumMembers() == len(members)
		}
		if formed {
			return nil
		}
		if time.Since(begin) > warmLimit {
			return fmt.Errorf("%d nodes of %s did not find each other within %s", len(members), c.system.Name, warmLimit)
		}
	}
}

func (c *cast) create(i int) error {
	m, err := memberlist.Create(c.system.settings(nodeName(i), c.net.nodes[i], ear{c.ears, i}))
	if err != nil {
		return fmt.Errorf("%s: %w", nodeName(i), err)
	}
	c.nodes[i] = m
	return nil
}

// do plays one step. What the network does, the fate of packets says already.
func (c *cast) do(step sim.Step) error {
	for _, i := range nodesOf(c.scenario, step) {
		e, m := c.net.nodes[i], c.nodes[i]
		switch step.Kind {
		case sim.StepKillHost, sim.StepKillProcess:
			how := hostGone
			if step.Kind == sim.StepKillProcess {
				how = processGone
			}
			e.leave(how)
			c.forget(i)
		case sim.StepPauseProcess:
			e.stop(step.D, true, true)
		case sim.StepPauseVM:
			e.stop(step.D, true, false)
		case sim.StepPauseObserver:
			e.stop(step.D, false, true)
		case sim.StepJoin, sim.StepStart:
			e.enter()
			if err := c.create(i); err != nil {
				return err
			}
			go c.join(i)
		case sim.StepLeave, sim.StepStop:
			go func() {
				_ = m.Leave(time.Second)
				e.leave(processGone)
				_ = m.Shutdown()
			}()
			c.nodes[i] = nil
		case sim.StepRestart:
			e.leave(processGone)
			c.forget(i)
			e.enter()
			if err := c.create(i); err != nil {
				return err
			}
			go c.join(i)
		case sim.StepClock: // memberlist goes by the monotonic clock
		default:
			return fmt.Errorf("memberlist cannot play this step; leave the line out, or compare without memberlist")
		}
	}
	return nil
}

// forget ends the loops of a node that is gone, without a word to the others.
func (c *cast) forget(i int) {
	if c.nodes[i] != nil {
		_ = c.nodes[i].Shutdown()
		c.nodes[i] = nil
	}
}

// join asks a node of the cluster, again and again: the first, or the second
// for the first itself.
func (c *cast) join(i int) {
	m, seed := c.nodes[i], 0
	if i == 0 {
		seed = 1
	}
	for {
		if _, err := m.Join([]string{address(seed).String()}); err == nil || !c.net.sleep(joinRetry) {
			return
		}
	}
}

// end leaves nothing behind in the bubble.
func (c *cast) end() {
	c.net.close()
	for i := range c.nodes {
		c.forget(i)
	}
	time.Sleep(dregs)
}
