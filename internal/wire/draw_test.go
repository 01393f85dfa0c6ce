package wire

import (
	"time"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

func drawOneWays(t *rapid.T) []belfry.OneWay {
	list := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) belfry.OneWay {
		return belfry.OneWay{
			Hearer: belfry.NodeNumber(rapid.Uint16().Draw(t, "hearer")), Heard: belfry.NodeNumber(rapid.Uint16().Draw(t, "heard")),
			Links: rapid.Uint16().Draw(t, "links"), Age: time.Duration(rapid.Uint16().Draw(t, "age")) * ageUnit,
		}
	}), 0, MaxOneWays).Draw(t, "one-ways")
	if len(list) == 0 {
		return nil
	}
	return list
}

func drawBody(t *rapid.T) Body {
	link := rapid.Uint8Range(0, 15).Draw(t, "link")
	state := belfry.LinkState(rapid.Uint8Range(0, uint8(belfry.LinkFlapping)).Draw(t, "state"))
	seq := rapid.Uint16().Draw(t, "seq")
	steps := func(name string, unit time.Duration, most int64) time.Duration {
		return time.Duration(rapid.Int64Range(0, most).Draw(t, name)) * unit
	}
	number := func(name string) belfry.NodeNumber { return belfry.NodeNumber(rapid.Uint16().Draw(t, name)) }
	claim := rapid.Custom(func(t *rapid.T) belfry.Claim {
		return belfry.Claim{
			Subject:     belfry.NodeNumber(rapid.Uint16().Draw(t, "subject")),
			Incarnation: belfry.Incarnation(rapid.Uint32().Draw(t, "incarnation")),
			Turn:        rapid.Uint16().Draw(t, "turn"),
			Verdict:     belfry.Verdict(rapid.Uint8Range(0, uint8(belfry.VerdictLeft)).Draw(t, "verdict")),
			Cause:       belfry.Cause(rapid.Uint8Range(0, uint8(belfry.CauseRemoved)).Draw(t, "cause")),
			Observers:   rapid.Uint8().Draw(t, "observers"),
			Age:         time.Duration(rapid.Uint16().Draw(t, "age")) * ageUnit,
			Origin:      belfry.NodeNumber(rapid.Uint16().Draw(t, "origin")),
		}
	})
	claims := func(least, most int) []belfry.Claim {
		if list := rapid.SliceOfN(claim, least, most).Draw(t, "claims"); len(list) > 0 {
			return list
		}
		return nil
	}
	clock := rapid.Uint32Range(0, max24)
	switch rapid.IntRange(kindHeartbeat, kindView).Draw(t, "kind") {
	case kindHeartbeat:
		h := &Heartbeat{
			Echo: rapid.Bool().Draw(t, "echo"), Probe: rapid.Bool().Draw(t, "probe"), Answer: rapid.Bool().Draw(t, "answer"),
			Link: link, LinkState: state, Seq: seq,
			SentAt: clock.Draw(t, "sent at"), Announced: steps("announced", time.Millisecond, max16),
			Loss: rapid.Uint8().Draw(t, "loss"), View: clock.Draw(t, "view"),
			Health: rapid.Uint8Range(0, maxHealth).Draw(t, "health"), Pause: rapid.Uint8Range(0, 15).Draw(t, "pause"),
			Fresh: belfry.Freshness{
				Subject: number("fresh"), Verdict: belfry.Verdict(rapid.Uint8Range(0, uint8(belfry.VerdictLeft)).Draw(t, "verdict")),
				Age: steps("age", ageUnit, max12),
			},
			Claims: claims(0, MaxHeartbeatClaims), ExactPause: steps("exact pause", time.Millisecond, max32),
			Wanted: rapid.Bool().Draw(t, "wanted"),
		}
		for range rapid.IntRange(0, len(h.Others)).Draw(t, "others") {
			h.Others[h.NumOthers] = belfry.LinkView{
				Link: rapid.Uint8Range(0, 15).Draw(t, "other"), State: belfry.LinkState(rapid.Uint8Range(0, uint8(belfry.LinkFlapping)).Draw(t, "its state")),
				Loss: rapid.Uint8().Draw(t, "its loss"),
			}
			h.NumOthers++
		}
		h.OneWays = drawOneWays(t)
		if h.Echo {
			h.EchoOf, h.Hold = clock.Draw(t, "echo of"), steps("hold", clockUnit, int64(maxHold/clockUnit))
		}
		return h
	case kindRelayAsk:
		return &RelayAsk{link, state, seq, number("subject"), rapid.Uint16().Draw(t, "burst")}
	case kindRelayResult:
		return &RelayResult{
			link, state, seq, number("subject"), rapid.Uint16().Draw(t, "burst"), rapid.Uint8().Draw(t, "unanswered"),
			rapid.Uint8().Draw(t, "loss"), steps("heard ago", time.Millisecond, max16), rapid.Bool().Draw(t, "kernel"),
		}
	case kindClaims:
		return &Claims{link, state, seq, claims(1, MaxClaims)}
	case kindView:
		return &View{link, state, seq, rapid.Uint16().Draw(t, "first"), rapid.SliceOfN(clock, 1, MaxBuckets).Draw(t, "buckets")}
	}
	return &Notice{link, state, seq, rapid.SliceOfN(rapid.Byte(), 1, MaxNotice).Draw(t, "data")}
}
