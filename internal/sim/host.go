package sim

import (
	"math/rand/v2"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// state is what has become of a host and its process.
type state uint8

const (
	stateBlank   state = iota // not started yet
	stateRuns                 // the process runs
	stateStopped              // the process is stopped: its kernel answers and queues
	stateDeaf                 // the process runs and reads nothing
	stateHeld                 // the whole machine is stopped, as by a hypervisor
	stateExited               // the host lives, the process is gone
	stateDead                 // the host is gone
)

const (
	// socketRoom is how many datagrams wait in 8 MiB of socket buffer, at about
	// 1 KiB each with what the kernel adds; ringRoom how many a network card
	// keeps for a machine that is stopped.
	socketRoom, ringRoom = 8192, 256
	// provenFor is how long a peer that showed this boot is sent the short form.
	provenFor = 60 * time.Second
)

// A host is one node with its kernel, its process and its driver.
type host struct {
	n           int32
	id          belfry.NodeID
	machine     *cluster.Machine
	incarnation uint32
	boot        uint32
	state       state
	token       uint32 // of the newest wake-up
	spins       int    // wake-ups in a row that asked for another at once
	goodbye     bool   // its process said goodbye: its streams end without a reset

	mail    []letter // what waits for the driver
	lost    uint64   // mail for which there was no room
	paused  int64    // since when
	emptied int64    // when the driver saw the socket empty last
	clock   int64    // what the wall clock is ahead
	known   map[int32]session
	packets uint64
	bytes   uint64

	disturbed int64 // when something happened to it the last time; -1: nothing yet
	beats     int   // heartbeats of the schedule since window
	window    int64
}

// A letter is mail with the time that the kernel stamped on it.
type letter struct {
	message cluster.Message
	stamp   int64 // wall clock
}

// A session is what a host knows of a peer's present start.
type session struct {
	boot        uint32
	incarnation uint32
	proven      int64 // when the peer showed this host's boot last; -1: never
}

// session is what h knows of a peer; in a warm cluster all know each other.
func (s *simulation) session(h *host, peer int32) session {
	if known, ok := h.known[peer]; ok {
		return known
	}
	if s.warm && h.incarnation == 1 {
		return session{boot: firstBoot(s.seed, peer), incarnation: 1, proven: 0}
	}
	return session{proven: -1}
}

// firstBoot is the boot that a node draws at its first start.
func firstBoot(seed uint64, node int32) uint32 {
	return uint32(chain(seed, 0xb007, uint64(node), 1)) | 1
}

// begin starts a new incarnation of h's process.
func (s *simulation) begin(h *host) {
	h.incarnation++
	h.boot = uint32(chain(s.seed, 0xb007, uint64(h.n), uint64(h.incarnation))) | 1
	h.state, h.goodbye = stateRuns, false
	h.mail, h.emptied, h.known = nil, s.now, map[int32]session{}
	cfg := cluster.Default()
	cfg.Self, cfg.Number, cfg.Name = h.id, belfry.NodeNumber(h.n+1), Name(int(h.n))
	cfg.Incarnation, cfg.Cluster = belfry.Incarnation(h.incarnation), clusterID
	for _, set := range s.scenario.Settings {
		settings[set.Name](&cfg.Tunables, set.Value)
	}
	h.machine = cluster.New(cfg, s.time(s.now), rand.New(rand.NewPCG(chain(s.seed, 0x9c9, uint64(h.n)), uint64(h.incarnation))))
	h.machine.Receive(s.time(s.now), cluster.Members{Table: s.table})
	s.drive(h)
	s.plan(event{at: s.now + int64(3*time.Millisecond), kind: eventConnect, node: h.n})
}

// deliver hands mail to the driver of h, or leaves it where it has to wait.
func (s *simulation) deliver(h *host, m cluster.Message) {
	l := letter{message: m, stamp: s.now + h.clock}
	room := socketRoom
	switch h.state {
	case stateRuns:
		h.machine.Receive(s.time(s.now), s.stamped(h, l))
		h.emptied = s.now
		s.drive(h)
		return
	case stateHeld:
		room = ringRoom
	case stateStopped, stateDeaf:
	default:
		return
	}
	if _, datagram := m.(cluster.Datagram); datagram && len(h.mail) >= room {
		h.lost++
		return
	}
	h.mail = append(h.mail, l)
}

// stamped puts the arrival time on a datagram as the transport does: the
// kernel's stamp is wall clock, and is brought between the moment at which the
// socket was seen empty and now, whatever became of the clock meanwhile.
func (s *simulation) stamped(h *host, l letter) cluster.Message {
	d, ok := l.message.(cluster.Datagram)
	if !ok {
		return l.message
	}
	ago := max(s.now+h.clock-l.stamp, 0)
	d.At = s.time(max(s.now-ago, h.emptied))
	return d
}

// resume ends a pause: the driver reads everything before it does anything.
func (s *simulation) resume(h *host) {
	was := h.state
	h.state = stateRuns
	now := s.time(s.now)
	if was == stateHeld {
		for i := range h.mail { // the kernel sees it only now
			h.mail[i].stamp = s.now + h.clock
		}
		h.machine.Receive(now, cluster.Suspended{D: time.Duration(s.now - h.paused)})
	}
	if h.lost > 0 && was != stateHeld {
		h.machine.Receive(now, cluster.Dropped{N: h.lost})
	}
	for _, l := range h.mail {
		h.machine.Receive(now, s.stamped(h, l))
	}
	h.mail, h.lost, h.emptied = nil, 0, s.now
	s.drive(h)
}

// answers tells whether h's kernel answers what arrives.
func (h *host) answers() bool {
	return h.state == stateRuns || h.state == stateStopped || h.state == stateDeaf || h.state == stateExited
}

// alive tells whether h has a process, whatever it does.
func (h *host) alive() bool { return h.state >= stateRuns && h.state <= stateHeld }
