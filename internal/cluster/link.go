package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// A new pair is probed this often, this many times, until it answers.
	initProbeEvery = 200 * time.Millisecond
	initProbes     = 5
	// initReceptions is how many receptions a link needs before it can be up.
	initReceptions = 3
	// quickProbes bounds the probes sent at once while a link comes up, so that
	// a pair is up after a few round trips and two machines never ping-pong.
	quickProbes = 6
)

// A row is what this node holds of one link: what it hears of the peer there
// and what it sends to it. Rows exist for watched pairs only.
type row struct {
	id   LinkID
	link Link
	slot slot

	// state, since and reason are what is heard; shown is what that means, with
	// what is known besides, and what others are told (cluster.md 10).
	state   belfry.LinkState
	since   time.Time
	reason  string
	shown   shown
	version uint64

	theirs      uint8     // the peer's index of this link
	blocked     bool      // the local interface does not work
	excused     bool      // somebody set it down: until it is up again, that is no flapping
	charged     time.Time // when its going down was counted as flapping; zero: it is up, or was not
	quality     quality
	traffic     traffic
	trips       trips
	flap        flap
	ups, downs  uint64
	transitions []Transition // the newest, oldest first

	seq     sequence
	rtt     roundTrip
	arrival arrival
	pace    pace
	history []Adaptation

	lastRx, lastTx, lastEcho time.Time // zero: never
	sent                     uint64    // datagrams
	nextTx                   time.Time // next heartbeat
	txSeq                    uint16
	unechoed                 []time.Time // send times of the oldest heartbeats that the peer did not echo
	echoSent                 time.Time   // send time of the newest datagram the peer echoed
	echoes                   int         // in a row, since the link became one-way

	announced time.Duration // by the peer: from its last datagram to its next heartbeat
	interval  time.Duration // of the peer: the longest announced lately
	due       time.Time     // its next heartbeat, without margin; zero: nothing is expected
	deviation int           // receptions due by now and missing
	pending   []probe       // sent and not yet answered, oldest first

	receptions int  // since INIT
	echoed     bool // a datagram sent since INIT was echoed
	probesLeft int
	nextProbe  time.Time
	quick      int

	peerClock   uint32 // newest send clock received
	peerClockAt time.Time
	peerState   belfry.LinkState
	peerLoss    uint8
	peerAt      time.Time // when the peer's view came; zero: never

	tellPause bool // the next heartbeat carries the newest own pause
	fresh     int  // rotates over the third nodes
}

// A probe asks for one extra reception.
type probe struct{ sent, due time.Time }

// newRow is the row of a link that nothing was heard on yet.
func newRow(now time.Time, peer belfry.NodeID, link Link, prior uint8) *row {
	r := &row{id: LinkID{Peer: peer, Index: link.Index}, link: link, seq: newSequence(prior)}
	r.init(now, "new")
	r.due = now.Add(initProbes * initProbeEvery)
	return r
}

// init begins the three-way check again (as in RFC 5880 6.8): nothing that was
// heard before counts.
func (r *row) init(now time.Time, reason string) {
	r.state, r.since, r.reason = belfry.LinkInit, now, reason
	r.receptions, r.echoed, r.quick = 0, false, 0
	r.probesLeft, r.nextProbe = initProbes, now
	r.deviation, r.pending = 0, nil
}

// reset forgets what belongs to the peer's previous start: its numbers and its
// clock. Round trip and loss belong to the path and stay.
func (r *row) reset() {
	r.seq.restart()
	r.arrival.started = false
	r.quality.restarted()
	r.peerClockAt, r.peerAt = time.Time{}, time.Time{}
}

// heard tells whether the peer is heard on this link as expected.
func (r *row) heard() bool {
	switch r.state {
	case belfry.LinkUp, belfry.LinkOneWayIn, belfry.LinkDegraded:
		return r.deviation == 0
	}
	return false
}

// usable tells whether the link is two-way.
func (r *row) usable() bool { return r.state == belfry.LinkUp || r.state == belfry.LinkDegraded }

// watching tells whether the row would notice that the peer falls silent.
func (r *row) watching() bool { return r.state != belfry.LinkDown && !r.due.IsZero() }

// maxWait is how long after the last heartbeat the next one may come.
func (r *row) maxWait(p path) time.Duration { return max(r.announced, r.interval) + p.margin() }

// receive records one proven datagram that arrived at the time at.
func (r *row) receive(at time.Time, start time.Time, seq uint16, p path, hb *Heartbeat, pauseEnd time.Time) {
	lost := r.seq.lost
	fresh, newest := r.seq.take(seq)
	if !fresh {
		return
	}
	r.measure(at, start, int(r.seq.lost)-int(lost))
	r.lastRx = maxTime(r.lastRx, at)
	r.deviation, r.pending = 0, nil
	r.receptions++
	if hb == nil {
		return
	}
	early := r.arrival.take(clockAt(start, at), hb.SentAt)
	if newest {
		r.peerClock, r.peerClockAt = hb.SentAt, at
		r.peerState, r.peerLoss, r.peerAt = hb.LinkState, hb.Loss, at
		r.announced = hb.Announced
		// Lateness is never assumed to be made up, earliness is.
		r.due = at.Add(early + hb.Announced)
		if !hb.Probe && !hb.Answer {
			r.interval = hb.Announced
		}
	}
	if hb.Echo {
		r.echo(at, start, p, hb, pauseEnd)
	}
}

// echo takes the round trip out of one datagram (US9219621; cluster.md 4).
func (r *row) echo(at, start time.Time, p path, hb *Heartbeat, pauseEnd time.Time) {
	age := clockSince(clockAt(start, at), hb.EchoOf)
	sent := at.Add(-age)
	if sent.Before(start) {
		return // the clock of a previous start
	}
	r.lastEcho = maxTime(r.lastEcho, at)
	if sent.After(r.echoSent) {
		r.echoSent = sent
		r.echoes++
	}
	r.unechoed = slices.DeleteFunc(r.unechoed, func(t time.Time) bool { return !t.After(sent.Add(clockUnit)) })
	old, trip := sent.Add(clockUnit).Before(r.since), max(age-hb.Hold, 0)
	if !old {
		r.echoed = true
	}
	if hb.ExactPause > 0 || sent.Before(pauseEnd) || old {
		// It spans a pause of either side, or an outage: what a queue held until the
		// link was there again says nothing of how long its way is.
		r.rtt.compare(at, trip)
		return
	}
	r.rtt.sample(at, trip, r.maxWait(p))
	r.quality.trip(trip, offset(clockAt(start, at), hb.SentAt))
	r.trips.add(trip)
}

// measure counts one reception, with which it showed that lost numbers are
// missing; negative: one that had been missing came late.
func (r *row) measure(at, start time.Time, lost int) {
	lost = max(lost, 0)
	if r.state == belfry.LinkUnknown {
		lost = 0 // an own pause took it
	}
	r.traffic.missed(maxTime(r.lastRx, start).Sub(start), at.Sub(start), lost)
	r.traffic.count(at.Sub(start), 1, 0)
	if r.state == belfry.LinkInit || r.state == belfry.LinkDown {
		lost = 0 // what an outage took says nothing of the quality
	}
	r.quality.received(at.Sub(start), lost)
}

// silent tells whether nothing comes in on a link, on which something came or
// should have come.
func (r *row) silent() bool {
	return r.state == belfry.LinkDown || r.state == belfry.LinkInit && r.receptions == 0 && (r.seq.span > 0 || r.deviation > 0)
}

// recentLoss is the loss of the newest 64 numbers, in 1/255. While none comes in
// all are lost: what was before the outage is not how the link is.
func (r *row) recentLoss() uint8 {
	if r.silent() {
		return 255
	}
	return r.seq.recent()
}

// ratios are the losses of the last 10, 60 and 600 s with what is missing while
// the link is silent: the numbers will tell exactly once it is heard again.
func (r *row) ratios(now, start time.Time) (ten, sixty, sixHundred Ratio) {
	t := r.traffic
	if !r.silent() {
		return t.ratios(now.Sub(start))
	}
	if every := max(r.announced, r.interval); every > 0 && !r.lastRx.IsZero() {
		t.missed(r.lastRx.Sub(start), now.Sub(start), int(now.Sub(r.lastRx)/every))
	}
	ten, sixty, sixHundred = t.ratios(now.Sub(start))
	for _, none := range []*Ratio{&ten, &sixty, &sixHundred} {
		if none.Expected == 0 { // never heard, or its interval is longer
			*none = Ratio{Lost: 1, Expected: 1}
		}
	}
	return ten, sixty, sixHundred
}

// wait puts off what is expected by an own pause of length d.
func (r *row) wait(now time.Time, d time.Duration) {
	for i := range r.pending {
		r.pending[i].due = r.pending[i].due.Add(d)
	}
	if !r.due.IsZero() && r.state != belfry.LinkDown && r.lastRx.Before(now.Add(-d)) {
		r.due = r.due.Add(d) // no mail since the pause began
	}
}

// overdue counts the receptions that were due by now and did not come; the
// machine weighs each as evidence.
func (r *row) overdue(now time.Time, p path) (missed int) {
	for len(r.pending) > 0 && !r.pending[0].due.After(now) {
		r.pending = r.pending[1:]
		missed++
	}
	if r.state == belfry.LinkDown || r.due.IsZero() {
		r.deviation += missed
		return missed
	}
	every := max(r.announced, r.interval, 20*time.Millisecond)
	if r.interval == 0 {
		every = max(every, r.pace.interval) // it has announced none of its own yet
	}
	for deadline := r.due.Add(p.margin()); !deadline.After(now); deadline = r.due.Add(p.margin()) {
		r.due = r.due.Add(every)
		missed++
	}
	r.deviation += missed
	return missed
}

// unechoedMax is how many unechoed heartbeats are remembered; two count.
const unechoedMax = 8

// beat notes that a heartbeat was sent.
func (r *row) beat(now time.Time) {
	if len(r.unechoed) < unechoedMax {
		r.unechoed = append(r.unechoed, now)
	}
}

// oneWay tells whether two heartbeats are past the maximum wait and the peer,
// although heard, did not confirm them.
func (r *row) oneWay(now time.Time, p path) bool {
	if len(r.unechoed) < 2 || r.deviation > 0 || r.interval == 0 {
		return false
	}
	late := r.unechoed[1].Add(r.interval + p.margin() + p.mrt)
	return now.After(late) && r.lastRx.After(late)
}

// judge gives the state that the row should have, and why (cluster.md 10).
func (r *row) judge(now time.Time, p path) (belfry.LinkState, string) {
	switch {
	case r.blocked:
		return belfry.LinkDown, r.reason
	case r.state == belfry.LinkDown:
		if r.receptions > 0 {
			return belfry.LinkInit, "heard again"
		}
		return r.state, r.reason
	case r.deviation > p.maxDeviation():
		return belfry.LinkDown, fmt.Sprintf("%d receptions missing, at most %d allowed", r.deviation, p.maxDeviation())
	case r.state == belfry.LinkUnknown:
		if r.receptions > 0 {
			return belfry.LinkUp, "heard again after the pause"
		}
		return r.state, r.reason
	case r.state == belfry.LinkInit:
		if r.receptions >= initReceptions && r.echoed {
			return belfry.LinkUp, "heard and echoed"
		}
		return r.state, r.reason
	case r.oneWay(now, p):
		return belfry.LinkOneWayIn, "the peer does not hear the last two heartbeats"
	case r.state == belfry.LinkOneWayIn && r.echoes >= 2:
		return belfry.LinkUp, "heard and echoed again"
	}
	return r.state, r.reason
}

// next is the earliest time at which the row has something to do; a silent row
// sends no heartbeats.
func (r *row) next(p path, silent bool) (next time.Time) {
	if len(r.pending) > 0 {
		next = r.pending[0].due
	}
	if !r.due.IsZero() && r.state != belfry.LinkDown {
		next = sooner(next, r.due.Add(p.margin()))
	}
	if r.probesLeft > 0 && r.state == belfry.LinkInit {
		next = sooner(next, r.nextProbe)
	}
	if silent {
		return next
	}
	return sooner(next, r.nextTx)
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// sooner is the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
