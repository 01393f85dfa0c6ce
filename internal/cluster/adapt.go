package cluster

import (
	"slices"
	"time"
)

// prices is price(P) = −ln(1 − (1−P)²) in 1/1000 nat for P in 1/255: what one
// unanswered round trip is worth as evidence when each way loses P. No loss at
// all would be worth infinity; it counts as 1/255.
var prices = [256]uint16{
	4850, 4850, 4159, 3755, 3470, 3249, 3068, 2916, 2784, 2669, 2565, 2472, 2387, 2309, 2237, 2170,
	2107, 2049, 1994, 1942, 1892, 1846, 1801, 1759, 1718, 1680, 1642, 1607, 1572, 1539, 1508, 1477,
	1447, 1419, 1391, 1364, 1338, 1313, 1288, 1264, 1241, 1218, 1196, 1175, 1154, 1134, 1114, 1095,
	1076, 1057, 1039, 1022, 1004, 988, 971, 955, 939, 924, 908, 894, 879, 865, 851, 837,
	823, 810, 797, 784, 772, 759, 747, 735, 724, 712, 701, 690, 679, 668, 657, 647,
	637, 627, 617, 607, 597, 588, 578, 569, 560, 551, 542, 534, 525, 517, 509, 500,
	492, 484, 477, 469, 461, 454, 446, 439, 432, 425, 418, 411, 404, 397, 391, 384,
	378, 371, 365, 359, 353, 347, 341, 335, 329, 323, 318, 312, 306, 301, 296, 290,
	285, 280, 275, 270, 265, 260, 255, 250, 246, 241, 236, 232, 227, 223, 219, 214,
	210, 206, 202, 198, 194, 190, 186, 182, 178, 174, 171, 167, 163, 160, 156, 153,
	149, 146, 143, 139, 136, 133, 130, 127, 124, 121, 118, 115, 112, 109, 106, 104,
	101, 98, 96, 93, 90, 88, 86, 83, 81, 78, 76, 74, 72, 69, 67, 65,
	63, 61, 59, 57, 55, 53, 51, 49, 48, 46, 44, 42, 41, 39, 38, 36,
	35, 33, 32, 30, 29, 28, 26, 25, 24, 22, 21, 20, 19, 18, 17, 16,
	15, 14, 13, 12, 11, 10, 10, 9, 8, 7, 7, 6, 6, 5, 4, 4,
	3, 3, 3, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0,
}

// needBase is −ln 1e−9 in 1/1000 nat: one wrong verdict in 1e9 bursts.
const needBase = 20_700

// path is what the formulas of cluster.md 5 read of one link.
type path struct {
	mrt, d, jitter time.Duration
	known          bool  // a round trip was measured
	loss           uint8 // P, 1/255
	health         uint8 // own health score, 0 to 8
}

// price is the worth of one unanswered round trip, 1/1000 nat.
func price(loss uint8) int64 { return int64(prices[loss]) }

// need is the evidence that a verdict takes, 1/1000 nat: up to doubled on an
// unstable path.
func (p path) need() int64 {
	if p.mrt+p.d <= 0 {
		return needBase
	}
	return needBase + int64(needBase*p.d/(p.mrt+p.d))
}

// margin is what a heartbeat may be late.
func (p path) margin() time.Duration {
	return min(5*time.Second, 10*time.Millisecond+max(p.mrt+4*p.d, 5*p.jitter)*time.Duration(1+p.health))
}

// round is the time a probe has to be answered.
func (p path) round() time.Duration {
	return min(max(p.mrt+4*p.d+5*time.Millisecond, 40*time.Millisecond), time.Second)
}

// maxDeviation is how many receptions may be due and missing; 8 to 64.
func (p path) maxDeviation() int {
	worth := price(p.loss)
	if worth == 0 {
		return 64
	}
	return int(min(max((p.need()+worth-1)/worth, 8), 64))
}

// share is what the interval depends on besides the path.
type share struct {
	keff      int // peers this node watches, at least 1
	ringLinks int // links to ring peers on the interface, at least 1
}

// interval is the heartbeat interval that this path wishes for, and which of
// the rules decided.
func (p path) interval(cfg *Tunables, s share) (wish time.Duration, why string) {
	if p.known {
		wish = 10 * (p.mrt + p.d)
	}
	why = "path"
	if cfg.Policy == PolicyTarget {
		quiet := 1000 * time.Second * time.Duration(s.keff) / time.Duration(cfg.RateQuiet)
		rate := 1000 * time.Second * time.Duration(s.ringLinks) / time.Duration(cfg.RateMax)
		kept := 4 * (255 - int(p.loss)) // receptions per round that arrive, 1/255
		rounds := 64
		if kept > 0 {
			rounds = 2 + ((p.maxDeviation()-1)*255+kept-1)/kept
		}
		target := time.Duration(s.keff) * (cfg.DetectTarget - p.margin() - time.Duration(rounds)*p.round())
		for _, rule := range []struct {
			d   time.Duration
			why string
		}{{rate, "rate"}, {min(quiet, target), "target"}} {
			if rule.d > wish {
				wish, why = rule.d, rule.why
			}
		}
		if why == "target" && quiet <= target {
			why = "quiet"
		}
	}
	switch {
	case wish < cfg.IntervalMin:
		return cfg.IntervalMin, "min"
	case wish > cfg.IntervalMax:
		return cfg.IntervalMax, "max"
	}
	return wish, why
}

// The interval stays until the wish differs by a quarter and this many
// heartbeats or this much time have passed.
const (
	paceHeartbeats = 10
	paceTime       = 20 * time.Second
)

// historyMax is how many steps of the adaptation are kept for people.
const historyMax = 16

// adapted keeps a step of the three parameters when one of them moved by a
// quarter since the last step that was kept.
func (r *row) adapted(now time.Time, p path, why string) {
	a := Adaptation{
		At: now, Interval: r.pace.interval, MaxWait: r.interval + p.margin(), MaxDeviation: p.maxDeviation(),
		MRT: p.mrt, D: p.d, Jitter: p.jitter, Loss: p.loss, Why: why,
	}
	if n := len(r.history); n > 0 {
		last := r.history[n-1]
		if a.Interval == last.Interval && !quarter(a.MaxWait, last.MaxWait) && !quarter(a.MaxDeviation, last.MaxDeviation) {
			return
		}
		if n == historyMax {
			r.history = slices.Delete(r.history, 0, 1)
		}
	}
	r.history = append(r.history, a)
}

// quarter tells whether two values differ by a quarter of the smaller one.
func quarter[T int | time.Duration](a, b T) bool { return 4*a >= 5*b || 4*b >= 5*a }

// pace is the interval in use on one link.
type pace struct {
	interval time.Duration
	changed  time.Time
	sent     int           // heartbeats since the change
	wish     time.Duration // the last one
	steady   time.Time     // since when it is the same
}

// sending is called before each heartbeat with the wish of the moment. A wish
// that moves has to move far; one that stands still, as at a bound, is followed
// to the end.
func (p *pace) sending(now time.Time, wish time.Duration) {
	p.sent++
	if wish != p.wish {
		p.wish, p.steady = wish, now
	}
	far := quarter(wish, p.interval) && (p.sent >= paceHeartbeats || now.Sub(p.changed) >= paceTime)
	if p.interval == 0 || far || wish != p.interval && now.Sub(p.steady) >= paceTime {
		p.interval, p.changed, p.sent = wish, now, 0
	}
}
