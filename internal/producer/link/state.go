package link

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A State is what this node hears of one peer on one link.
type State struct {
	Peer, Network string // the subject is Peer/Network
	State         belfry.LinkState
	Reason        string
	Since         time.Time
	Version       uint64 // of the link database

	Rx        bool          // the peer is heard
	Loss      float64       // 0 to 1, over the newest 64 datagrams
	Known     bool          // MRT and D are measured
	MRT, D    time.Duration // mean round trip and its deviation
	Jitter    time.Duration
	PeerState belfry.LinkState // what the peer held of the link last
}

// A ContactState is what this node hears of one peer in general: it is up if
// any link to it is up or degraded, or flaps and works.
type ContactState struct {
	Peer                string
	State               belfry.LinkState // up, down, or unknown before either was found out
	Reason              string           // of the link that made the difference
	LinksUp, LinksTotal int
	Since               time.Time // zero: not known
}

// A View is all links and all peers that this node watches, in any order.
type View struct {
	Links    []State
	Contacts []ContactState
}

func (s *State) key() key        { return key{Class, s.Peer + "/" + s.Network} }
func (s *ContactState) key() key { return key{Contact, s.Peer} }

// Edge tells whether a state is a change for the worse. A link that begins,
// and one of which nothing is known, is neither.
func Edge(s belfry.LinkState) belfry.Edge {
	switch s {
	case belfry.LinkUp:
		return belfry.EdgeRecovered
	case belfry.LinkInit, belfry.LinkUnknown:
		return belfry.EdgeNone
	}
	return belfry.EdgeFailing
}

// upOrDown is a general state in the words, and with the numbers, of links.
// occurrence has the state's number as its code; from is empty where whence it
// came is not known.
func (s *State) occurrence(from string) belfry.Occurrence {
	data := &belfryv1.LinkStateChange{
		Peer: s.Peer, Network: s.Network, From: from, To: s.State.String(), Reason: s.Reason,
		Rx: s.Rx, LossRatio: s.Loss, JitterSeconds: s.Jitter.Seconds(),
		PeerState: s.PeerState.String(), Version: s.Version,
	}
	if s.Known {
		data.RttSeconds, data.RttDeviationSeconds = proto.Float64(s.MRT.Seconds()), proto.Float64(s.D.Seconds())
	}
	return occurrence(s.State, s.Since, data)
}

func (s *ContactState) occurrence(from string) belfry.Occurrence {
	return occurrence(s.State, s.Since, &belfryv1.ContactStateChange{
		Peer: s.Peer, From: from, To: s.State.String(), Reason: s.Reason,
		LinksUp: uint32(max(s.LinksUp, 0)), LinksTotal: uint32(max(s.LinksTotal, 0)),
	})
}

// unwatched is the last word on a link, or a peer, that this node hears no more,
// because the peer is not watched any longer or is no member.
func (k key) unwatched(from belfry.LinkState, at time.Time) belfry.Occurrence {
	const why = "not watched any longer"
	peer, network, _ := strings.Cut(k.subject, "/")
	if k.class == Contact {
		s := ContactState{Peer: peer, State: belfry.LinkUnknown, Reason: why, Since: at}
		return s.occurrence(from.String())
	}
	s := State{Peer: peer, Network: network, State: belfry.LinkUnknown, Reason: why, Since: at, PeerState: belfry.LinkUnknown}
	return s.occurrence(from.String())
}

func occurrence(state belfry.LinkState, at time.Time, data proto.Message) belfry.Occurrence {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil { // the message holds text that is not UTF-8: a broken name
		b = nil
	}
	return belfry.Occurrence{Time: at, Code: int32(state), Edge: Edge(state), Data: b}
}
