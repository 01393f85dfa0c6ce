package main

import (
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// linkListView is link list and link show in JSON.
type linkListView struct {
	Node    string     `json:"node" doc:"whose link database it is: what that node hears itself"`
	Version uint64     `json:"version" doc:"of the database; it grows with every change"`
	Links   []linkView `json:"links" doc:"by peer, then network"`
}

// linkView is one directed link in JSON.
type linkView struct {
	Peer                string           `json:"peer" doc:"name of the other node"`
	PeerID              string           `json:"peer_id" doc:"UUID of the other node"`
	Network             string           `json:"network" doc:"name of the network"`
	Local               string           `json:"local" doc:"address of this end"`
	Remote              string           `json:"remote" doc:"address of the other end"`
	State               string           `json:"state" doc:"init, up, down, one-way-in, one-way-out, degraded, unknown, …"`
	Reason              string           `json:"reason" doc:"why; may be empty"`
	Since               *instant         `json:"since" doc:"when the state began"`
	LastSent            *instant         `json:"last_sent" doc:"last heartbeat sent"`
	LastReceived        *instant         `json:"last_received" doc:"last heartbeat received"`
	LastEcho            *instant         `json:"last_echo" doc:"last time the peer proved that it hears this node"`
	LossRatio           float64          `json:"loss_ratio" doc:"share of heartbeats that did not arrive; 1 while none does"`
	RTTSeconds          *float64         `json:"rtt_seconds" doc:"mean round trip; null: not measured yet"`
	RTTDeviationSeconds *float64         `json:"rtt_deviation_seconds" doc:"its deviation"`
	RTTLastSeconds      *float64         `json:"rtt_last_seconds" doc:"the last one measured"`
	JitterSeconds       *float64         `json:"jitter_seconds" doc:"variation of the delay"`
	IntervalSeconds     *float64         `json:"interval_seconds" doc:"between the heartbeats that this node sends"`
	AnnouncedSeconds    *float64         `json:"announced_seconds" doc:"interval that the peer announces"`
	MaxWaitSeconds      *float64         `json:"max_wait_seconds" doc:"how long after the interval a heartbeat counts as missed"`
	MaxDeviation        uint32           `json:"max_deviation" doc:"the link is down above this deviation of sequence numbers"`
	Deviation           uint32           `json:"deviation" doc:"heartbeats expected and not received"`
	Sent                uint64           `json:"sent" doc:"heartbeats sent"`
	Received            uint64           `json:"received" doc:"heartbeats received"`
	Lost                uint64           `json:"lost" doc:"heartbeats lost on the way here"`
	Reordered           uint64           `json:"reordered" doc:"heartbeats that came out of order"`
	Duplicate           uint64           `json:"duplicate" doc:"heartbeats that came twice"`
	DelaysSeconds       []float64        `json:"delays_seconds" doc:"the last round trips that were measured, oldest first"`
	History             []adaptationView `json:"history" doc:"how interval, max_wait and max_deviation came to be what they are, oldest first"`
	PeerState           string           `json:"peer_state" doc:"the peer's view of the same link; empty: not known"`
	PeerLossRatio       float64          `json:"peer_loss_ratio" doc:"the loss that the peer sees"`
	PeerAgeSeconds      *float64         `json:"peer_age_seconds" doc:"how old the peer's view is"`
	Rx                  bool             `json:"rx" doc:"the peer is heard"`
	Version             uint64           `json:"version" doc:"of the database when state or reason last changed"`
	Interface           string           `json:"interface" doc:"of this end; empty: not known"`
	SpeedMbits          uint64           `json:"speed_mbits" doc:"of the interface in Mbit/s; 0: not known"`
	MTUBytes            uint32           `json:"mtu_bytes" doc:"of the interface; 0: not known"`
	Carrier             bool             `json:"carrier" doc:"the interface works, as far as is known"`
	Loss10Ratio         float64          `json:"loss_10s_ratio" doc:"share of the heartbeats of the last 10 s that did not arrive"`
	Loss60Ratio         float64          `json:"loss_60s_ratio" doc:"of the last 60 s"`
	Loss600Ratio        float64          `json:"loss_600s_ratio" doc:"of the last 600 s"`
	RTTMinSeconds       *float64         `json:"rtt_min_seconds" doc:"shortest of the newest 128 round trips; null: none yet"`
	RTTP50Seconds       *float64         `json:"rtt_p50_seconds" doc:"half of them were shorter"`
	RTTP99Seconds       *float64         `json:"rtt_p99_seconds" doc:"99 of 100 were shorter"`
	Ups                 uint64           `json:"ups" doc:"how often it came up"`
	Downs               uint64           `json:"downs" doc:"how often it went down"`
	FlapPenalty         uint32           `json:"flap_penalty" doc:"1000 for each time up or down, halved every 60 s"`
	TwoWay              bool             `json:"two_way" doc:"it works in both directions now, whatever its state is called"`
	Transitions         []transitionView `json:"transitions" doc:"the last 32 changes of state, oldest first"`
}

// transitionView is one change of a link's state in JSON.
type transitionView struct {
	Time   *instant `json:"time" doc:"when"`
	From   string   `json:"from" doc:"the state before"`
	To     string   `json:"to" doc:"the state that it led to"`
	Reason string   `json:"reason" doc:"why; may be empty"`
}

// adaptationView is one step of the adapted parameters in JSON.
type adaptationView struct {
	Time                *instant `json:"time" doc:"when a parameter had moved by a quarter"`
	IntervalSeconds     *float64 `json:"interval_seconds" doc:"between the heartbeats that this node sends"`
	MaxWaitSeconds      *float64 `json:"max_wait_seconds" doc:"how long after the interval a heartbeat counts as missed"`
	MaxDeviation        uint32   `json:"max_deviation" doc:"receptions that may be missing"`
	RTTSeconds          *float64 `json:"rtt_seconds" doc:"mean round trip that it was computed from"`
	RTTDeviationSeconds *float64 `json:"rtt_deviation_seconds" doc:"its deviation"`
	JitterSeconds       *float64 `json:"jitter_seconds" doc:"variation of the delay"`
	LossRatio           float64  `json:"loss_ratio" doc:"loss that was assumed"`
	Why                 string   `json:"why" doc:"what decided on the interval: path, rate, quiet, target, min or max; interest: a program asked; not started: nothing was heard of the peer yet"`
}

func viewOfLink(l *belfryv1.Link) linkView {
	v := linkView{
		Peer: l.GetPeer(), PeerID: l.GetPeerId(), Network: l.GetNetwork(), Local: l.GetLocal(), Remote: l.GetRemote(),
		State: l.GetState(), Reason: l.GetReason(), Since: jsonTime(when(l.GetSince())),
		LastSent: jsonTime(when(l.GetLastSent())), LastReceived: jsonTime(when(l.GetLastReceived())),
		LastEcho: jsonTime(when(l.GetLastEcho())), LossRatio: l.GetLossRatio(),
		JitterSeconds:    jsonSeconds(l.GetJitter().AsDuration()),
		IntervalSeconds:  jsonSeconds(l.GetInterval().AsDuration()),
		AnnouncedSeconds: jsonSeconds(l.GetAnnounced().AsDuration()),
		MaxWaitSeconds:   jsonSeconds(l.GetMaxWait().AsDuration()),
		MaxDeviation:     l.GetMaxDeviation(), Deviation: l.GetDeviation(),
		Sent: l.GetSent(), Received: l.GetReceived(), Lost: l.GetLost(), Reordered: l.GetReordered(), Duplicate: l.GetDuplicate(),
		PeerState: l.GetPeerState(), PeerLossRatio: l.GetPeerLossRatio(),
		PeerAgeSeconds: jsonSeconds(l.GetPeerAge().AsDuration()),
	}
	v.Rx, v.TwoWay, v.Version, v.Carrier = l.GetRx(), l.GetTwoWay(), l.GetVersion(), l.GetCarrier()
	v.Interface, v.SpeedMbits, v.MTUBytes = l.GetInterface(), l.GetSpeedMbits(), l.GetMtuBytes()
	v.Loss10Ratio, v.Loss60Ratio, v.Loss600Ratio = l.GetLoss_10SRatio(), l.GetLoss_60SRatio(), l.GetLoss_600SRatio()
	v.RTTMinSeconds, v.RTTP50Seconds = jsonSeconds(l.GetRttMin().AsDuration()), jsonSeconds(l.GetRttP50().AsDuration())
	v.RTTP99Seconds = jsonSeconds(l.GetRttP99().AsDuration())
	v.Ups, v.Downs, v.FlapPenalty = l.GetUps(), l.GetDowns(), l.GetFlapPenalty()
	addPast(&v, l)
	if l.GetRttKnown() {
		v.RTTSeconds = jsonSeconds(l.GetRtt().AsDuration())
		v.RTTDeviationSeconds = jsonSeconds(l.GetRttDeviation().AsDuration())
		v.RTTLastSeconds = jsonSeconds(l.GetRttLast().AsDuration())
	}
	return v
}

// addPast is how the link came to be what it is.
func addPast(v *linkView, l *belfryv1.Link) {
	v.DelaysSeconds, v.History, v.Transitions = []float64{}, []adaptationView{}, []transitionView{}
	for _, t := range l.GetTransitions() {
		v.Transitions = append(v.Transitions, transitionView{jsonTime(when(t.GetTime())), t.GetFrom(), t.GetTo(), t.GetReason()})
	}
	for _, d := range l.GetDelays() {
		v.DelaysSeconds = append(v.DelaysSeconds, d.AsDuration().Seconds())
	}
	for _, h := range l.GetHistory() {
		v.History = append(v.History, adaptationView{
			Time: jsonTime(when(h.GetTime())), IntervalSeconds: jsonSeconds(h.GetInterval().AsDuration()),
			MaxWaitSeconds: jsonSeconds(h.GetMaxWait().AsDuration()), MaxDeviation: h.GetMaxDeviation(),
			RTTSeconds: jsonSeconds(h.GetRtt().AsDuration()), RTTDeviationSeconds: jsonSeconds(h.GetRttDeviation().AsDuration()),
			JitterSeconds: jsonSeconds(h.GetJitter().AsDuration()), LossRatio: h.GetLossRatio(), Why: h.GetWhy(),
		})
	}
}
