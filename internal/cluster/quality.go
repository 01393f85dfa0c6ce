package cluster

import (
	"fmt"
	"slices"
	"time"
)

// The sequential test of cluster.md 10, of 5 % loss against 0.5 %, in 1/1000
// nat. The score is bounded, so that a long outage is not remembered for long.
const (
	scoreLost     = 2300
	scoreReceived = 46
	scoreLimit    = 9200
	scoreMost     = scoreLimit + scoreLost
)

// Windows of receptions, and how many in a row decide.
const (
	windowSize  = 4
	badWindows  = 3
	goodWindows = 10
	// A window lasts at least this long, less than four of the shortest intervals:
	// what a peer sends in one go, as after a pause of its own, is one window.
	windowLeast = 50 * time.Millisecond
	// A time is long when it is this many times the usual one, and more.
	longFactor = 3
	longMore   = 5 * time.Millisecond
	// What is usual is the median of the last 600 s, of one window in this time.
	usualEvery = 5 * time.Second
	usualFor   = 600 * time.Second
	usualLeast = 3 // before that nothing is usual yet
)

// quality tells a link that works badly from one that works (cluster.md 10).
// The round trip holds the delay of both directions, so both ends call it long;
// the delay, that of what arrives here, says which of them it is.
type quality struct {
	score int // loss

	count  int           // receptions of this window
	began  time.Duration // the first of them
	trips  [windowSize]time.Duration
	delays [windowSize]time.Duration // above the least
	taken  int                       // round trips and delays of this window

	way      oneWay
	shortest time.Duration // round trip of the last 600 s
	usual    usual

	slow, good int // windows in a row
	why        string
	degraded   bool
}

// received counts one reception at a time since the machine's start, before
// which lost numbers were missing, and ends a window with the fourth, or with the
// first one after windowLeast.
func (q *quality) received(since time.Duration, lost int) {
	q.score = min(max(q.score+scoreLost*min(lost, 256)-scoreReceived, 0), scoreMost)
	if q.score > scoreLimit && !q.degraded {
		q.degrade("loss of more than a few percent")
	}
	if q.count++; q.count == 1 {
		q.began = since
	}
	if q.count >= windowSize && since-q.began >= windowLeast {
		q.window(since)
	}
}

// trip records one round trip, and x of the datagram that ended it.
func (q *quality) trip(d, x time.Duration) {
	if q.usual.n == 0 && q.taken == 0 || d < q.shortest {
		q.shortest = d
	}
	delay := q.way.take(x, d-q.shortest)
	if q.taken < windowSize {
		q.trips[q.taken], q.delays[q.taken] = d, delay
		q.taken++
	}
}

// window judges the last receptions.
func (q *quality) window(since time.Duration) {
	long := false
	if q.taken > 0 {
		var why string
		if long, why = q.measured(since); long && q.slow+1 >= badWindows && !q.degraded {
			q.degrade(why) // the reason stays while it lasts
		}
	}
	q.count, q.taken = 0, 0
	if long {
		q.slow++
	} else {
		q.slow = 0
	}
	if long || q.score > scoreLimit {
		q.good = 0
	} else if q.good++; q.good >= goodWindows {
		q.degraded = false
	}
}

// measured tells whether the times of this window are long, and which.
func (q *quality) measured(since time.Duration) (long bool, why string) {
	trips, delays := q.trips[:q.taken], q.delays[:q.taken]
	slices.Sort(trips)
	slices.Sort(delays)
	now := spell{at: since, trip: trips[len(trips)/2], delay: delays[len(delays)/2], shortest: trips[0]}
	before, known := q.usual.median(since)
	q.usual.learn(now)
	q.shortest = q.usual.shortest(now)
	switch {
	case !known:
	case isLong(now.delay, before.delay):
		return true, fmt.Sprintf("delay towards this node %s above the least, usually %s", rounded(now.delay), rounded(before.delay))
	case isLong(now.trip, before.trip):
		return true, fmt.Sprintf("round trip %s, usually %s", rounded(now.trip), rounded(before.trip))
	}
	return false, ""
}

func isLong(d, usual time.Duration) bool { return d > longFactor*usual+longMore }

func rounded(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func (q *quality) degrade(why string) { q.degraded, q.why, q.good = true, why, 0 }

// restarted forgets the peer's clock.
func (q *quality) restarted() { q.way.started = false }

// interrupted forgets the score: what is lost in an outage is no quality.
func (q *quality) interrupted() {
	q.score, q.count, q.taken, q.slow, q.good, q.degraded = 0, 0, 0, 0, 0, false
}

// A Ratio is a share of what should have come.
type Ratio struct{ Lost, Expected uint64 }

// traffic counts receptions over the last 10, 60 and 600 s.
type traffic struct {
	seconds, sixes       [10]Ratio // of 1 s and of 6 s
	hundreds             [6]Ratio  // of 100 s
	second, six, hundred int64     // the newest ones, counted since the start
}

// count adds to the buckets of a moment.
func (t *traffic) count(since time.Duration, received, lost int) {
	t.turn(since)
	for _, b := range []*Ratio{&t.seconds[t.second%10], &t.sixes[t.six%10], &t.hundreds[t.hundred%6]} {
		b.Lost += uint64(lost)
		b.Expected += uint64(received + lost)
	}
}

// missed adds n that were lost one after the other between two moments.
func (t *traffic) missed(from, to time.Duration, n int) {
	t.turn(to)
	if n == 0 || to <= from {
		return
	}
	spread(t.seconds[:], t.second, time.Second, from, to, n)
	spread(t.sixes[:], t.six, 6*time.Second, from, to, n)
	spread(t.hundreds[:], t.hundred, 100*time.Second, from, to, n)
}

// spread gives each bucket its part; what is older than the ring falls off.
func spread(ring []Ratio, newest int64, width, from, to time.Duration, n int) {
	until := func(at time.Duration) uint64 { // how many of n were lost by then
		at = min(max(at, from), to)
		return uint64(time.Duration(n) * (at - from) / (to - from))
	}
	for b := newest; b > newest-int64(len(ring)) && b >= 0; b-- {
		lost := until(time.Duration(b+1)*width) - until(time.Duration(b)*width)
		ring[b%int64(len(ring))].Lost += lost
		ring[b%int64(len(ring))].Expected += lost
	}
}

// turn empties the buckets that time has left behind.
func (t *traffic) turn(since time.Duration) {
	turn(&t.second, int64(since/time.Second), t.seconds[:])
	turn(&t.six, int64(since/(6*time.Second)), t.sixes[:])
	turn(&t.hundred, int64(since/(100*time.Second)), t.hundreds[:])
}

func turn(newest *int64, to int64, ring []Ratio) {
	for n := min(to-*newest, int64(len(ring))); n > 0; n-- {
		*newest++
		ring[*newest%int64(len(ring))] = Ratio{}
	}
	if to > *newest { // longer ago than the ring is long
		*newest = to
	}
}

// ratios are those of the last 10, 60 and 600 s.
func (t traffic) ratios(since time.Duration) (ten, sixty, sixHundred Ratio) {
	t.turn(since)
	return sum(t.seconds[:]), sum(t.sixes[:]), sum(t.hundreds[:])
}

func sum(ring []Ratio) (all Ratio) {
	for _, r := range ring {
		all.Lost += r.Lost
		all.Expected += r.Expected
	}
	return all
}

// The penalty of flapping (after RFC 2439): each up or down costs, and half of
// it is forgotten in a minute.
const (
	flapCost = 1000
	flapIn   = 3000
	flapOut  = 750
	// flapKept is 2^(−1/60) in 1/65,536: what is left of it after a second.
	flapKept = 64783
)

// flap is the penalty of one link.
type flap struct {
	penalty int
	at      time.Time // as of
	on      bool
}

// fade brings the penalty up to date.
func (f *flap) fade(now time.Time) int {
	for f.penalty > 0 && now.Sub(f.at) >= time.Second {
		f.penalty, f.at = f.penalty*flapKept>>16, f.at.Add(time.Second)
	}
	if f.penalty == 0 {
		f.at = now
	}
	if f.penalty >= flapIn {
		f.on = true
	} else if f.penalty < flapOut {
		f.on = false
	}
	return f.penalty
}

// moved charges one change.
func (f *flap) moved(now time.Time) {
	f.fade(now)
	f.penalty += flapCost
	f.fade(now)
}

// refund takes back what the last change cost.
func (f *flap) refund(now time.Time) {
	f.fade(now)
	f.penalty = max(f.penalty-flapCost, 0)
	f.fade(now)
}

// tripsKept is how many round trips the percentiles are of.
const tripsKept = 128

// trips keeps the newest round trips for people.
type trips struct {
	ring [tripsKept]time.Duration
	n    int // ever
}

func (t *trips) add(d time.Duration) {
	t.ring[t.n%tripsKept] = d
	t.n++
}

// percentiles are the least, the median and the 99th of a hundred.
func (t *trips) percentiles() (least, p50, p99 time.Duration) {
	kept := slices.Clone(t.ring[:min(t.n, tripsKept)])
	if len(kept) == 0 {
		return 0, 0, 0
	}
	slices.Sort(kept)
	return kept[0], kept[len(kept)/2], kept[(len(kept)*99+99)/100-1]
}
