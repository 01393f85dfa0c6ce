package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// LinkStatus is one row of the link database: what this node hears of one
// peer on one link (US8824335; cluster.md 10). A zero time is never.
type LinkStatus struct {
	Peer     belfry.NodeID
	PeerName string
	Link     // index, network and addresses

	State   belfry.LinkState
	Since   time.Time
	Reason  string
	Version uint64    // of the database when state or reason last changed
	Rx      bool      // the peer is heard
	Failed  time.Time // when it last ceased to work; zero: it never did
	Works   bool      // it counts as up: both ways, and not only for a moment
	TwoWay  bool      // it works in both directions now, whatever its state is called

	Interface string // of this node; empty: not known
	Speed     uint64 // Mbit/s; 0: not known
	MTU       int    // bytes; 0: not known
	Carrier   bool   // the interface works, as far as is known

	LastTx, LastRx, LastEcho             time.Time
	Sent                                 uint64
	HighestSeq                           uint16
	Received, Lost, Reordered, Duplicate uint64
	Loss                                 uint8 // P that the formulas use of this row, 1/255; begins at the prior
	RecentLoss                           uint8 // measured over the newest 64 numbers, 1/255; all, while nothing is heard

	Loss10, Loss60, Loss600 Ratio         // of the last 10, 60 and 600 s
	RTTMin, RTTP50, RTTP99  time.Duration // of the newest 128 round trips; 0: none
	Ups, Downs              uint64
	FlapPenalty             int          // 1,000 for each up or down, halved every 60 s
	Transitions             []Transition // the newest 32, oldest first

	Known    bool          // MRT and D come from samples; else they are assumed
	MRT      time.Duration // mean round trip
	D        time.Duration // its deviation
	Measured time.Duration // T_MEAS, the newest round trip
	Jitter   time.Duration // J

	Interval     time.Duration // at which this node sends; 0: not yet
	Announced    time.Duration // by the peer, until its next heartbeat
	MaxWait      time.Duration // announced and margin
	MaxDeviation int           // receptions that may be missing
	Deviation    int           // receptions that are missing

	Delays  []time.Duration // the last round trips that were measured, oldest first; at most 16
	History []Adaptation    // how the three parameters came to be what they are, oldest first; at most 16

	PeerState belfry.LinkState // the peer's view of this link
	PeerLoss  uint8            // 1/255
	PeerAge   time.Duration    // how old that view is; -1: none yet
}

// An Adaptation is one step of the three adapted parameters of a link
// (US8667126; cluster.md 5), with what they were computed from.
type Adaptation struct {
	At           time.Time
	Interval     time.Duration // at which this node sends
	MaxWait      time.Duration
	MaxDeviation int
	MRT, D       time.Duration
	Jitter       time.Duration
	Loss         uint8  // P, 1/255
	Why          string // what decided on the interval: path, rate, quiet, target, min or max; interest: a program asked; not started: nothing was heard of the peer yet
}

// Links is all rows, by name of the peer and index.
func (m *Machine) Links(now time.Time) []LinkStatus {
	var all []LinkStatus
	for _, p := range m.watched {
		for _, r := range p.rows {
			all = append(all, m.linkStatus(now, p, r))
		}
	}
	slices.SortFunc(all, func(a, b LinkStatus) int {
		return cmp.Or(cmp.Compare(a.PeerName, b.PeerName), a.Peer.Compare(b.Peer), cmp.Compare(a.Index, b.Index))
	})
	return all
}

func (m *Machine) linkStatus(now time.Time, p *member, r *row) LinkStatus {
	path := m.path(r)
	s := LinkStatus{
		Peer: p.ID, PeerName: p.Name, Link: r.link,
		State: r.shown.state, Since: r.shown.since, Reason: r.shown.reason, Version: r.version, Rx: r.rx(), Failed: r.shown.failed, Works: r.shown.works, TwoWay: r.usable(),
		Sent: r.sent, LastTx: r.lastTx, LastRx: r.lastRx, LastEcho: r.lastEcho,
		HighestSeq: r.seq.highest, Received: r.seq.received, Lost: r.seq.lost,
		Reordered: r.seq.reordered, Duplicate: r.seq.duplicate, Loss: r.seq.loss(), RecentLoss: r.recentLoss(),
		Known: r.rtt.known, MRT: r.rtt.MRT(), D: r.rtt.D(), Measured: r.rtt.measured, Jitter: r.arrival.jitter,
		Interval: r.pace.interval, Announced: r.announced, MaxWait: r.maxWait(path),
		MaxDeviation: path.maxDeviation(), Deviation: r.deviation,
		Delays: slices.Clone(r.rtt.recent), History: slices.Clone(r.history),
		PeerState: r.peerState, PeerLoss: r.peerLoss, PeerAge: -1,
	}
	if !r.peerAt.IsZero() {
		s.PeerAge = now.Sub(r.peerAt)
	}
	s.Carrier = true
	if i := m.interfaces[r.link.Network]; i != nil {
		s.Interface, s.Speed, s.MTU, s.Carrier = i.Name, i.Speed, i.MTU, i.State == InterfaceUp
	}
	s.Loss10, s.Loss60, s.Loss600 = r.ratios(now, m.start)
	s.RTTMin, s.RTTP50, s.RTTP99 = r.trips.percentiles()
	s.Ups, s.Downs, s.Transitions = r.ups, r.downs, slices.Clone(r.transitions)
	penalty := r.flap // a reader changes nothing
	s.FlapPenalty = penalty.fade(now)
	return s
}

// path gathers what the formulas read of one row. P is the greatest of the
// floor, the row's own loss and the mean loss of the rows on its network.
func (m *Machine) path(r *row) path {
	sum, rows := 0, 0
	for _, p := range m.watched {
		for _, other := range p.rows {
			if other.link.Network == r.link.Network && p.inRing() {
				sum, rows = sum+int(other.seq.loss()), rows+1
			}
		}
	}
	loss := max(m.cfg.LossFloor, r.seq.loss())
	if rows > 0 {
		loss = max(loss, uint8(sum/rows))
	}
	return path{
		mrt: r.rtt.MRT(), d: r.rtt.D(), jitter: r.arrival.jitter, known: r.rtt.known,
		loss: loss, health: m.health.score,
	}
}
