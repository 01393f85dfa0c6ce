package cluster

import (
	"math"
	"testing"
	"time"
)

// lan is a path with D/(MRT+D) = 0.2.
func lan(loss uint8) path {
	return path{mrt: time.Millisecond, d: 250 * time.Microsecond, known: true, loss: loss}
}

func TestPriceTable(t *testing.T) {
	t.Parallel()
	for i := 1; i < 255; i++ {
		p := float64(i) / 255
		if want := -math.Log(1-(1-p)*(1-p)) * 1000; math.Abs(want-float64(price(uint8(i)))) > 0.51 {
			t.Errorf("price(%d) = %d, want %.1f", i, price(uint8(i)), want)
		}
	}
}

// H2, H3: the table of cluster.md 5 for a LAN and four watchers.
func TestParametersOnALAN(t *testing.T) {
	t.Parallel()
	cfg := Default()
	for _, test := range []struct {
		loss         uint8
		maxDeviation int
		interval     time.Duration
	}{
		{25, 15, 2 * time.Second},
		{51, 25, 1552 * time.Millisecond},
		{76, 37, time.Second},
	} {
		p := lan(test.loss)
		if got := p.maxDeviation(); got != test.maxDeviation {
			t.Errorf("loss %d/255: maximum deviation %d, want %d", test.loss, got, test.maxDeviation)
		}
		if got, _ := p.interval(&cfg.Tunables, share{keff: 4, ringLinks: 4}); got != test.interval {
			t.Errorf("loss %d/255: interval %v, want %v", test.loss, got, test.interval)
		}
	}
}

func TestMarginAndRound(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, test := range []struct {
		name          string
		p             path
		margin, round time.Duration
	}{
		{"a LAN", lan(25), 12 * ms, 40 * ms},
		{"own ill health doubles what may be late", path{mrt: ms, d: ms / 4, health: 1}, 14 * ms, 40 * ms},
		{"jitter", path{mrt: ms, d: ms / 4, jitter: 20 * ms}, 110 * ms, 40 * ms},
		{"a far path", path{mrt: 200 * ms, d: 20 * ms}, 290 * ms, 285 * ms},
		{"an impossible one", path{mrt: 9 * time.Second, d: time.Second}, 5 * time.Second, time.Second},
	} {
		if test.p.margin() != test.margin || test.p.round() != test.round {
			t.Errorf("%s: margin %v round %v, want %v and %v", test.name, test.p.margin(), test.p.round(), test.margin, test.round)
		}
	}
}

// H3: the path rule alone, and its bounds.
func TestIntervalFollowsThePath(t *testing.T) {
	t.Parallel()
	cfg := Default()
	cfg.Policy = PolicyPath
	s := share{keff: 2, ringLinks: 2}
	for _, test := range []struct {
		p    path
		want time.Duration
	}{
		{lan(25), 100 * time.Millisecond},
		{path{mrt: 200 * time.Millisecond, d: 5 * time.Millisecond, known: true}, 2050 * time.Millisecond},
		{path{mrt: 4 * time.Second, d: time.Second, known: true}, 30 * time.Second},
		{path{mrt: unknownPath, d: unknownPath}, 100 * time.Millisecond},
	} {
		if got, _ := test.p.interval(&cfg.Tunables, s); got != test.want {
			t.Errorf("MRT %v D %v: interval %v, want %v", test.p.mrt, test.p.d, got, test.want)
		}
	}
	cfg.Policy = PolicyTarget
	got, why := (path{mrt: 200 * time.Millisecond, d: 5 * time.Millisecond, known: true, loss: 25}).interval(&cfg.Tunables, s)
	if want := 2050 * time.Millisecond; got != want || why != "path" {
		t.Errorf("the target policy gives %v on a far path, want the path's %v", got, want)
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	t.Parallel()
	if got := (path{loss: 255}).maxDeviation(); got != 64 {
		t.Errorf("with everything lost the maximum deviation is %d, want 64", got)
	}
	if got := (path{mrt: time.Millisecond, loss: 0}).maxDeviation(); got != 8 {
		t.Errorf("with nothing lost the maximum deviation is %d, want 8", got)
	}
	if got := (path{mrt: 0, d: time.Millisecond}).need(); got != 2*needBase {
		t.Errorf("on an unstable path need = %d, want it doubled", got)
	}
}

func TestPaceHasHysteresis(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var p pace
	p.sending(now, time.Second)
	for i := range 30 {
		now = now.Add(time.Second)
		p.sending(now, 1240*time.Millisecond+time.Duration(i%9)*time.Millisecond)
	}
	if p.interval != time.Second {
		t.Errorf("a wish that differs by less than a quarter moved it to %v, want 1s", p.interval)
	}
	for range 21 {
		now = now.Add(time.Second)
		p.sending(now, 1249*time.Millisecond)
	}
	if p.interval != 1249*time.Millisecond {
		t.Errorf("a wish that stood still for %v left it at %v, want 1.249s", paceTime, p.interval)
	}
	p = pace{}
	p.sending(now, time.Second)
	for range paceHeartbeats - 1 {
		p.sending(now, 2*time.Second)
	}
	if p.interval != time.Second {
		t.Errorf("it moved after %d heartbeats, want %d", paceHeartbeats-1, paceHeartbeats)
	}
	p.sending(now, 2*time.Second)
	if p.interval != 2*time.Second {
		t.Errorf("after %d heartbeats it is %v, want 2s", paceHeartbeats, p.interval)
	}
	p.sending(now.Add(paceTime), time.Second)
	if p.interval != time.Second {
		t.Errorf("after %v it is %v, want 1s", paceTime, p.interval)
	}
}

// US8667126: what the parameters are and how they came to be is kept.
func TestHistorySaysHowTheParametersCame(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	net.run(60 * time.Second)
	a, c := net.host("a"), net.host("c")
	net.path(a, c).delay, net.path(c, a).delay = 100*time.Millisecond, 100*time.Millisecond
	net.run(60 * time.Second)
	for _, l := range a.m.Links(net.now) {
		if l.PeerName != "c" {
			continue
		}
		last := l.History[len(l.History)-1]
		if last.Why != "path" || last.Interval != l.Interval || last.MRT < 150*time.Millisecond || last.Interval < 1500*time.Millisecond {
			t.Errorf("last step %+v, want a longer interval because of the path", last)
		}
		if first := l.History[0]; len(l.History) < 3 || len(l.History) > historyMax || !first.At.Before(last.At) || first.Interval >= last.Interval {
			t.Errorf("history %+v, want the way from a short interval to a long one", l.History)
		}
		if n := len(l.Delays); n != recentMax || l.Delays[n-1] != l.Measured {
			t.Errorf("delays %v, want the newest %d, the last of them %v", l.Delays, recentMax, l.Measured)
		}
	}
}
