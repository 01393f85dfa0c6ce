package agent

import (
	"time"
)

// journal judges the journal of the running agent.
func (d doctor) journal() findings {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	var found findings
	j := status.GetJournal()
	switch {
	case j == nil:
		return findings{{Level: LevelUnknown, Text: "the agent does not tell; restart it, it is of an older version"}}
	case j.GetReason() != "":
		found.add(LevelFailure, "what happens is not recorded, or not for long: %s; make room on the disk of %s, or see that it works. Meanwhile what waits is counted", j.GetReason(), d.settings.State)
	}
	if j.GetLost() > 0 {
		found.add(LevelWarning, "%d occurrences since the agent started came faster than the disk took them: only their number is recorded; put the state directory on a faster disk", j.GetLost())
	}
	kept := "nothing yet"
	if j.GetOldest() != nil {
		kept = "since " + j.GetOldest().AsTime().Format(time.RFC3339)
	}
	return found.orElse("%d KiB, %s", j.GetBytes()>>10, kept)
}
