package witness

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A holder whose agent is down may go on serving: its host answers, and what
// clients use is asked itself (witness.md 2). The probe goes on for as long as
// nothing else is heard of the holder, since what it found may end, and an agent
// that comes back knows less at first.

// probe begins or ends to observe what is held on a node in place of its agent.
func (m *Machine) probe(now time.Time, i *instance) {
	source := i.probes()
	if source == i.probe {
		return
	}
	m.unprobe(i)
	if source == "" {
		return
	}
	i.probe, i.decided = source, now.Add(probeWait)
	m.probed = append(m.probed, i)
	m.observe(source, true)
	i.probed = m.sources[source].state
	m.alarms.set(i, i.decided)
}

// probes is what is to be observed in place of the agent; empty: nothing.
func (i *instance) probes() string {
	n, d := i.node, i.resource.declared
	if d == nil || !n.known {
		return ""
	}
	awaited := n.verdict == belfry.VerdictJoining || n.verdict == belfry.VerdictUp && !i.awaited.IsZero()
	returning := i.probe != "" && awaited && !i.silent()
	if n.verdict == belfry.VerdictDown && n.cause == belfry.CauseProcess || returning {
		return d.Probes[n.Name]
	}
	return ""
}

// unprobe ends it.
func (m *Machine) unprobe(i *instance) {
	if i.probe == "" {
		return
	}
	m.observe(i.probe, false)
	i.probe, i.probed, i.decided = "", belfry.ResourceUnknown, time.Time{}
	m.probed = slices.DeleteFunc(m.probed, func(one *instance) bool { return one == i })
}

// probedNow takes what was found out of one source.
func (m *Machine) probedNow(now time.Time, source string, state belfry.ResourceState) {
	for _, i := range slices.Clone(m.probed) {
		if i.probe == source {
			i.probed = state
			i.resource.changed(m, now)
		}
	}
}
