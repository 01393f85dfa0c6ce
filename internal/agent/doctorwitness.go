package agent

import "strings"

// witness tells whether clients are served as they should be.
func (d doctor) witness() findings {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	w := status.GetWitness()
	if w == nil {
		return findings{{Level: LevelUnknown, Text: "the agent does not tell; restart it, it is of an older version"}}
	}
	var found findings
	if most := w.GetMaxRegistrations(); uint64(w.GetRegistrations())*10 >= uint64(most)*9 {
		found.add(LevelWarning, "%d clients are registered here, of %d that may be; raise witness.max_registrations, or add nodes", w.GetRegistrations(), most)
	}
	if w.GetWitnesses() < 2 && status.GetNodesUp() > 1 {
		found.add(LevelWarning, "clients have %d witnesses, and one dies with the node that they use; see which nodes are drained, or off (witness.enabled)", w.GetWitnesses())
	}
	if drained := w.GetDrained(); len(drained) > 0 {
		found.add(LevelWarning, "no client is sent to %s; belfry witness drain NODE --undo lets it fill again", strings.Join(drained, ", "))
	}
	if w.GetState() == witnessOff {
		return found.orElse("no client is served here, as witness.enabled says")
	}
	return found.orElse("%d clients are registered here", w.GetRegistrations())
}
