package sim

import (
	"math/bits"
	"slices"
	"time"
)

// bucket is how long the packets of a pair are numbered from 0.
const bucket = 10 * time.Millisecond

// mix is the finaliser of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// chain mixes words one after the other.
func chain(words ...uint64) (x uint64) {
	for _, w := range words {
		x = mix(x ^ w)
	}
	return x
}

// A Fate is what the network does to one packet.
type Fate struct {
	Lost      bool
	Delay     time.Duration // from sending to arrival
	Copy      bool          // it arrives a second time
	CopyDelay time.Duration
}

// Conditions is the network of one run. It has no state: what happens to a
// packet depends on the seed, its pair, its time and its number among the
// packets of the pair within 10 ms, and on nothing that was sent before. Safe
// for concurrent use.
type Conditions struct {
	seed       uint64
	delay, exp time.Duration
	rules      []rule
	logs       [257]uint64 // log2 of 1 + i/256, 2⁻³²
}

// A rule is one condition of the scenario.
type rule struct {
	Step
	network int // -1: all
	end     time.Duration
}

// Conditions compiles what the scenario says of the network.
func (s *Scenario) Conditions(seed uint64) *Conditions {
	c := &Conditions{seed: seed, delay: s.Delay, exp: s.Exp}
	for i, step := range s.Steps {
		if !step.condition() {
			continue
		}
		r := rule{Step: s.Steps[i], network: slices.Index(s.Networks, step.Network), end: step.Until}
		if r.end == 0 {
			r.end = s.Run
		}
		c.rules = append(c.rules, r)
	}
	for i := range c.logs {
		c.logs[i] = log2(256 + uint64(i))
	}
	return c
}

// log2 is the binary logarithm of x/256 for x from 256 to 512, in units of
// 2⁻³², by repeated squaring: integers are the same on every machine.
func log2(x uint64) (log uint64) {
	y := x << 54 // x/256 as 1.62 fixed point
	if x == 512 {
		return 1 << 32
	}
	for i := 31; i >= 0; i-- {
		hi, lo := bits.Mul64(y, y)
		y = hi<<2 | lo>>62
		if y >= 1<<63 {
			y >>= 1
			log |= 1 << i
		}
	}
	return log
}

// exponential draws from the exponential distribution with this mean: −mean·ln u.
func (c *Conditions) exponential(mean time.Duration, random uint64) time.Duration {
	if mean <= 0 {
		return 0
	}
	u := random>>11 | 1 // 53 bits, not zero
	lead := bits.Len64(u) - 1
	frac := u << (63 - lead) << 1 // the bits behind the first, at the top
	i, rest := frac>>56, frac<<8>>32
	log := c.logs[i] + (c.logs[i+1]-c.logs[i])*rest>>32
	minus := uint64(53)<<32 - (uint64(lead)<<32 + log) // −log2(u/2⁵³), 2⁻³²
	ln := minus >> 8 * 11629080 >> 24                  // · ln 2 (2⁻²⁴) gives 2⁻²⁴
	hi, lo := bits.Mul64(uint64(mean), ln)
	return time.Duration(hi<<40 | lo>>24)
}

// applies tells whether the rule is about a packet.
func (r *rule) applies(src, dst, network int, at time.Duration) bool {
	if at < r.At || at >= r.end || r.network >= 0 && r.network != network {
		return false
	}
	in := func(nodes []int, n int) bool { return nodes == nil || slices.Contains(nodes, n) }
	return in(r.From, src) && in(r.To, dst) || r.Both && in(r.From, dst) && in(r.To, src)
}

// Cut tells whether nothing gets from src to dst at this time.
func (c *Conditions) Cut(src, dst, network int, at time.Duration) bool {
	for i := range c.rules {
		if r := &c.rules[i]; r.Kind == StepCut && r.applies(src, dst, network, at) {
			return true
		}
	}
	return false
}

// Fate is that of the nth packet (from 0) that src sends to dst on a network
// within the bucket of 10 ms in which at lies.
func (c *Conditions) Fate(src, dst, network int, at time.Duration, nth int) (f Fate) {
	state := chain(c.seed, uint64(src)<<32|uint64(dst), uint64(network)<<48|uint64(at/bucket), uint64(nth))
	draw := func() uint64 {
		state = mix(state)
		return state
	}
	hit := func(permille int) bool { return permille > 0 && int(draw()%1000) < permille }
	f.Delay = c.delay + c.exponential(c.exp, draw())
	for i := range c.rules {
		r := &c.rules[i]
		if !r.applies(src, dst, network, at) {
			continue
		}
		switch r.Kind {
		case StepCut:
			f.Lost = true
		case StepLoss:
			f.Lost = hit(r.Permille) || f.Lost
		case StepBurst:
			f.Lost = c.bad(i, src, dst, network, at) && hit(r.Permille) || f.Lost
		case StepDelay:
			f.Delay += r.D
			if r.Jitter > 0 {
				f.Delay += time.Duration(draw() % uint64(r.Jitter))
			}
		case StepReorder:
			if hit(r.Permille) {
				f.Delay += r.D
			}
		case StepDuplicate:
			if hit(r.Permille) {
				f.Copy, f.CopyDelay = true, f.Delay+c.exponential(max(c.exp, 100*time.Microsecond), draw())
			}
		}
	}
	return f
}

// bad tells whether a link is in a bad spell of a rule. Each stretch of
// good+bad holds one bad spell of exponential length at a random place, so that
// the answer needs nothing before it.
func (c *Conditions) bad(i, src, dst, network int, at time.Duration) bool {
	r := &c.rules[i]
	stretch := r.Good + r.D
	n := at / stretch
	x := chain(c.seed, uint64(i)+1, uint64(src)<<32|uint64(dst), uint64(network), uint64(n))
	length := min(c.exponential(r.D, x), stretch)
	start := n*stretch + time.Duration(mix(x)%uint64(stretch-length+1))
	return at >= start && at < start+length
}

// A Counter numbers the packets of each pair within their bucket. It is not
// safe for concurrent use.
type Counter struct{ last map[pairKey]count }

type pairKey struct{ src, dst, network int32 }

type count struct {
	bucket int64
	n      int32
}

// Next is the number of a packet that is sent now; at never falls for a pair.
func (c *Counter) Next(src, dst, network int, at time.Duration) int {
	if c.last == nil {
		c.last = map[pairKey]count{}
	}
	key := pairKey{int32(src), int32(dst), int32(network)}
	k, now := c.last[key], int64(at/bucket)
	if k.bucket == now && k.n > 0 {
		k.n++
	} else {
		k = count{bucket: now, n: 1}
	}
	c.last[key] = k
	return int(k.n) - 1
}
