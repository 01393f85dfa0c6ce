package agent

import "time"

// repositoryRead is how old the last read of the repository may be: it is read
// every few seconds.
const repositoryRead = 30 * time.Second

// repository judges how the running agent stands to the cluster's repository.
func (d doctor) repository() findings {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	r := status.GetRepository()
	if r == nil {
		return findings{{Level: LevelOK, Text: "none: the members keep the configuration among themselves"}}
	}
	var found findings
	age := d.now.Sub(r.GetRead().AsTime()).Round(time.Second)
	switch {
	case r.GetState() == "degraded":
		found.add(LevelWarning, "%s: %s", r.GetState(), r.GetReason())
	case r.GetReason() != "":
		found.add(LevelFailure, "%s, changes are refused here: %s", r.GetState(), r.GetReason())
	case r.GetState() != "ready":
		found.add(LevelWarning, "%s: the agent looks for repository %s; ask again in a moment", r.GetState(), r.GetId())
	case age > repositoryRead:
		found.add(LevelWarning, "was read last %s ago; look at its device and at the log of the agent", age)
	}
	for _, w := range r.GetWarnings() {
		found.add(LevelWarning, "%s", w)
	}
	if r.GetSlot() < 0 && r.GetKind() != "etcd" {
		found.add(LevelWarning, "this node has no host slot and only reads: its changes are made by other members, of which one has to be up")
	}
	return found.orElse("%s, generation %d, read in %s", r.GetId(), r.GetGeneration(), r.GetReadTook().AsDuration().Round(10*time.Microsecond))
}
