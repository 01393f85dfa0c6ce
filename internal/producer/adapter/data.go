package adapter

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/netlink"
)

// A state is how well an interface works. Its number is the code of
// adapter.state.
type state int32

const (
	unknown   state = iota // nothing is there, and nothing was
	up                     // frames pass
	noCarrier              // it is set up, and there is nothing at the other end, or below it
	adminDown              // it is set down
	dormant                // it waits to be let in (IEEE 802.1X)
	selfTest               // it tests itself
	absent                 // there was an interface, and it is not there now
)

var stateNames = []string{"", "up", "no-carrier", "admin-down", "dormant", "testing", "absent"}

func (s state) String() string { return stateNames[s] }

func (s state) edge() belfry.Edge {
	if s == up {
		return belfry.EdgeRecovered
	}
	return belfry.EdgeFailing
}

// stateOf takes the word of the lower layer before the operational state, which
// follows it (RFC 2863 3.1.14; Documentation/networking/operstates.rst).
func stateOf(i netlink.Interface) state {
	switch {
	case !i.AdminUp():
		return adminDown
	case i.Flags&unix.IFF_LOWER_UP == 0:
		return noCarrier
	case i.State == netlink.OperDormant:
		return dormant
	case i.State == netlink.OperTesting:
		return selfTest
	case !i.Carrier(): // the kernel is about to say otherwise
		return noCarrier
	}
	return up
}

// Why an interface comes or goes, as far as a subject is concerned.
type what string

const (
	added      what = "added"
	removed    what = "removed"
	renamed    what = "renamed"
	macChanged what = "mac-changed"
	turned     what = "" // the subject names another interface, that has been there
)

// of is why a subject of an interface comes or goes when several change.
func (w what) of(subject string) what {
	if w == renamed && kindOf(subject) == macKind {
		return macChanged
	}
	return w
}

// stateChange is an occurrence of adapter.state, or with from unknown a state.
func (a *adapter) stateChange(at time.Time, from, to state, why what) belfry.Occurrence {
	return occurrence(at, int32(to), to.edge(), &belfryv1.AdapterState{
		Interface: valid(a.Name), Index: uint32(a.Index), Mac: a.MAC, From: from.String(), To: to.String(), Reason: string(why),
	})
}

// change is an occurrence of adapter.added or adapter.removed.
func (a *adapter) change(at time.Time, why what) belfry.Occurrence {
	return occurrence(at, 0, belfry.EdgeNone, &belfryv1.AdapterChange{
		What: string(why), Interface: valid(a.Name), Index: uint32(a.Index), Mac: a.MAC, Kind: valid(a.Kind), Path: a.path,
	})
}

// addressChange is an occurrence of address.added or address.removed.
func (a *adapter) addressChange(at time.Time, address netlink.Address) belfry.Occurrence {
	data := &belfryv1.AddressChange{
		Interface: valid(a.Name), Index: uint32(a.Index), Family: "inet6",
		Address: address.Prefix.Addr().String(), Prefix: uint32(address.Prefix.Bits()),
	}
	if address.Prefix.Addr().Is4() {
		data.Family = "inet"
	}
	if address.Peer.IsValid() {
		data.Peer = address.Peer.String()
	}
	return occurrence(at, 0, belfry.EdgeNone, data)
}

func occurrence(at time.Time, code int32, edge belfry.Edge, data proto.Message) belfry.Occurrence {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil { // text that is not UTF-8, which there is none of
		b = nil
	}
	return belfry.Occurrence{Time: at, Code: code, Edge: edge, Data: b}
}

// valid is a text of the kernel's as it may stand in a message: names are bytes.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
