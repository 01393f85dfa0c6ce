package sim

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/wire"
)

const (
	// restartTime is how long an agent takes that was told to start again.
	restartTime = 300 * time.Millisecond
	// tableTime is how long a new member table takes to a node.
	tableTime = 10 * time.Millisecond
	// forgeries is how many datagrams of a flood are really made and opened.
	forgeries = 1000
)

// step does what one line of the scenario says.
func (s *simulation) step(st *Step) {
	nodes := st.Nodes
	if nodes == nil {
		for n := range s.hosts {
			nodes = append(nodes, n)
		}
	}
	changed := false
	for _, n := range nodes {
		h := s.hosts[n]
		if st.Kind != StepFlood && st.Kind != StepClock {
			h.disturbed = s.now
		}
		changed = s.happenTo(h, st) || changed
	}
	if !changed {
		return
	}
	s.table = cluster.NewTable(clusterID, s.table.Generation()+1, s.members)
	for _, h := range s.hosts {
		if h.alive() {
			s.plan(event{at: s.now + int64(tableTime), kind: eventTable, node: h.n})
		}
	}
	for _, n := range nodes {
		if st.Kind == StepJoin && s.hosts[n].state == stateBlank {
			s.begin(s.hosts[n])
		}
	}
}

// happenTo does it to one node; true when the member table changes.
func (s *simulation) happenTo(h *host, st *Step) bool {
	switch st.Kind {
	case StepKillHost:
		h.state, h.mail = stateDead, nil
	case StepKillProcess:
		s.exit(h, cluster.StreamReset)
	case StepLeave:
		s.exit(h, cluster.GoodbyeLeave)
	case StepRestart:
		after := time.Duration(0)
		if h.alive() {
			s.exit(h, cluster.GoodbyeRestart)
			after = restartTime
		}
		s.plan(event{at: s.now + int64(after), kind: eventBoot, node: h.n})
	case StepPauseProcess:
		s.pause(h, stateStopped, st.D)
	case StepPauseVM:
		s.pause(h, stateHeld, st.D)
	case StepPauseObserver:
		s.pause(h, stateDeaf, st.D)
	case StepClock:
		h.clock += int64(st.D)
	case StepCarrier:
		state := cluster.InterfaceUp
		if st.Lost {
			state = cluster.InterfaceNoCarrier
		}
		s.deliver(h, cluster.Interface{Network: st.Network, State: state})
	case StepFlood:
		s.flood(h, st)
	case StepJoin:
		if h.state == stateBlank {
			s.members = append(s.members, s.member(h.n))
			return true
		}
	case StepStop, StepStart:
		for i := range s.members {
			if m := &s.members[i]; m.ID == h.id && m.Stopped != (st.Kind == StepStop) {
				s.members = append([]cluster.Member(nil), s.members...) // tables share rows
				s.members[i].Stopped = st.Kind == StepStop
				return true
			}
		}
	}
	return false
}

// exit ends h's process; its kernel stays.
func (s *simulation) exit(h *host, what cluster.StreamEvent) {
	if !h.alive() {
		return
	}
	if what != cluster.StreamReset && h.state != stateRuns {
		what = cluster.StreamReset // a process that is stopped says nothing
	}
	s.end(h, what)
	h.state, h.mail = stateExited, nil
}

func (s *simulation) pause(h *host, to state, d time.Duration) {
	if h.state != stateRuns {
		return
	}
	h.state, h.paused = to, s.now
	s.plan(event{at: s.now + int64(d), kind: eventResume, node: h.n, token: h.incarnation})
}

// flood throws forged datagrams at a node. They cost its receiver a rejection
// each, 0.7 µs under load (security.md), of the time of one processor; some are
// really made and opened, and none may come through. The sockets of watched
// links are not theirs, so what the machine hears is not delayed.
func (s *simulation) flood(h *host, st *Step) {
	s.result.Forged += uint64(st.Rate) * uint64(st.D/time.Millisecond) / 1000
	endpoint, err := wire.New(wire.Config{
		Cluster: clusterID, Self: h.id, Number: belfry.NodeNumber(h.n + 1), Incarnation: 1, Boot: 1, Epoch: 1,
		Secrets: map[uint32]wire.Secret{1: {1}},
	}, s.time(s.now))
	if err == nil {
		var members []wire.Member
		for n := range s.hosts {
			members = append(members, wire.Member{ID: nodeID(int32(n)), Number: belfry.NodeNumber(n + 1)})
		}
		err = endpoint.SetMembers(members)
	}
	if err != nil {
		s.fail(int(h.n), "no endpoint to flood: "+err.Error())
		return
	}
	tag := sha256.Sum256(clusterID[:])
	sealed := 0 // forgeries that only the seal could tell
	for i := range forgeries {
		data := make([]byte, 60) // a heartbeat in the long form
		for at := range data {
			data[at] = byte(chain(s.seed, 0xf100d, uint64(i), uint64(at)))
		}
		if i%2 == 1 { // a right head in half of them: form, epoch, cluster, another member, its incarnation
			sender := (int(h.n)+1+i%max(len(s.hosts)-1, 1))%len(s.hosts) + 1
			copy(data, []byte{0x21, tag[0], byte(sender), byte(sender >> 8), 1})
			copy(data[8:], []byte{1, 0, 0, 0})
			copy(data[20:], data[5:8]) // the counter stands there twice
		}
		switch _, reason := endpoint.Open(s.time(s.now), data, nil); reason {
		case wire.Accepted:
			s.fail(int(h.n), "a forged datagram was opened")
		case wire.RejectOpen:
			sealed++
		}
	}
	if len(s.hosts) > 1 && sealed < forgeries/2 {
		s.fail(int(h.n), fmt.Sprintf("%d of %d forged datagrams came as far as the seal, want half of them", sealed, forgeries))
	}
}
