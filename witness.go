package belfry

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Resource names what a client of the cluster depends on, as KIND/SUBJECT or
// KIND/SUBJECT@NODE: "node/a", "address/10.0.0.50", "service/db@a". It is the
// canonical text that [ParseResource] gives, so that equal names are equal
// values. The zero value is no resource.
type Resource string

// The kinds of resources (witness.md 2).
const (
	KindNode    = "node"    // a member; available while it is up
	KindAddress = "address" // an IP address, wherever it is
	KindName    = "name"    // what clients call a group of addresses
	KindShare   = "share"   // NAME/SHARE
	KindService = "service" // whatever the configuration watches under that name
	KindEvent   = "event"   // CLASS/SUBJECT of any state-like event
)

var resourceKinds = []string{KindNode, KindAddress, KindName, KindShare, KindService, KindEvent}

// MaxResource is the most bytes of a resource's name.
const MaxResource = 1024

// ParseResource reads the name of a resource and gives it in canonical form:
// percent-encoding (RFC 3986 2.1) only where it is needed. ErrUsage for what is
// none.
func ParseResource(s string) (Resource, error) {
	fail := func(format string, args ...any) (Resource, error) {
		return "", fmt.Errorf("%w: resource %q: "+format+"; write for example node/a, address/10.0.0.50, service/db or service/db@a",
			append([]any{ErrUsage, s}, args...)...)
	}
	kind, rest, ok := strings.Cut(s, "/")
	switch {
	case len(s) > MaxResource:
		return "", fmt.Errorf("%w: a resource of %d bytes; its name has at most %d", ErrUsage, len(s), MaxResource)
	case !ok || rest == "":
		return fail("a name has a kind and a subject")
	case !slices.Contains(resourceKinds, kind):
		return fail("unknown kind %q, one of %q", kind, resourceKinds)
	}
	encoded, node, placed := cutNode(rest)
	subject, err := unescape(encoded)
	if err != nil {
		return fail("%v", err)
	}
	where, err := unescape(node)
	switch {
	case err != nil:
		return fail("%v", err)
	case subject == "" || placed && where == "":
		return fail("nothing stands beside the @")
	case placed && kind == KindNode:
		return fail("a node is nowhere but at itself")
	case (kind == KindShare || kind == KindEvent) && !twoParts(subject):
		return fail("a %s has two parts, %s/FIRST/SECOND", kind, kind)
	}
	name := kind + "/" + escape(subject)
	if placed {
		name += "@" + escape(where)
	}
	return Resource(name), nil
}

func twoParts(subject string) bool {
	first, second, _ := strings.Cut(subject, "/")
	return first != "" && second != ""
}

// cutNode finds the @ that is not part of the subject: the last one.
func cutNode(s string) (subject, node string, found bool) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// Kind is the first part of the name.
func (r Resource) Kind() string {
	kind, _, _ := strings.Cut(string(r), "/")
	return kind
}

// Subject is what the name names, decoded.
func (r Resource) Subject() string {
	_, rest, _ := strings.Cut(string(r), "/")
	encoded, _, _ := cutNode(rest)
	subject, _ := unescape(encoded) // it is canonical
	return subject
}

// Node is the node that the name is bound to; empty: none.
func (r Resource) Node() string {
	_, node, _ := cutNode(string(r))
	name, _ := unescape(node)
	return name
}

// Event is the class and the subject of a resource that is an event; empty: it is
// none.
func (r Resource) Event() (class Class, subject string) {
	if r.Kind() != KindEvent {
		return "", ""
	}
	c, subject, _ := strings.Cut(r.Subject(), "/")
	return Class(c), subject
}

// Everywhere is the same resource without a node.
func (r Resource) Everywhere() Resource {
	all, _, _ := cutNode(string(r))
	return Resource(all)
}

// plain are the bytes that need no encoding: the unreserved ones of RFC 3986
// 2.3 and those that have no meaning of their own in a name.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~/:=+,", c) >= 0
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if plain(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) || !hexDigit(s[i+1]) || !hexDigit(s[i+2]) {
			return "", fmt.Errorf("%% is followed by two hexadecimal digits")
		}
		b.WriteByte(hexValue(s[i+1])<<4 | hexValue(s[i+2]))
		i += 2
	}
	return b.String(), nil
}

func hexDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func hexValue(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

// ResourceState is whether clients can use a resource.
type ResourceState uint8

// The states of witness.md 2.
const (
	ResourceUnknown     ResourceState = iota // nobody who could tell is heard
	ResourceAvailable                        // it can be used
	ResourceUnavailable                      // it can not
)

var resourceStateNames = []string{"unknown", "available", "unavailable"}

// String is the word that listings and notifications use.
func (s ResourceState) String() string { return name(resourceStateNames, int(s)) }

// MarshalText is the word of String. It never fails.
func (s ResourceState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseResourceState reads the form that String writes.
func ParseResourceState(s string) (ResourceState, error) {
	return parseName[ResourceState]("resource state", resourceStateNames, s)
}

// A ResourceVersion names the change that led to a level. Sequence numbers count
// within one incarnation of the origin, from 1.
type ResourceVersion struct {
	Origin      NodeID
	Incarnation Incarnation // of the origin
	Seq         uint64
	// Reported: the origin holds the resource, alone, and counts what it reports
	// of it. Else the origin is the witness, and counts what it concludes.
	Reported bool
}

// A ResourceLevel is what one client holds of one resource. State is that of the
// whole: available if any holder's is, else unknown if any holder's is. At is
// that of the holder which the client uses; unknown where it named none.
type ResourceLevel struct {
	State, At ResourceState
	Version   ResourceVersion
}

// News is how many changes lie between the level that a client was told last, at
// whichever witness, and another one; 0: it has nothing new to hear.
//
// A doubt takes back no certainty for the worse: unknown after unavailable says
// nothing. Where both levels were reported by one holder its numbers tell which
// is the newer, and how often it changed although it is as it was; else only what
// it is counts.
func (known ResourceLevel) News(now ResourceLevel) uint64 {
	a, b := known.Version, now.Version
	one := a.Origin == b.Origin && a.Incarnation == b.Incarnation && a.Reported == b.Reported
	if one && b.Seq <= a.Seq {
		return 0
	}
	counted := one && b.Reported
	switch {
	case differs(known.State, now.State) || differs(known.At, now.At):
		if counted {
			return b.Seq - a.Seq
		}
		return 1
	case counted && known.State == now.State && known.At == now.At:
		return b.Seq - a.Seq
	}
	return 0
}

// differs tells whether a state is news to who was told another one.
func differs(known, now ResourceState) bool {
	return known != now && (known != ResourceUnavailable || now != ResourceUnknown)
}

// MoveReason says why a client is asked to go elsewhere.
type MoveReason uint8

// The reasons.
const (
	MoveOperator MoveReason = iota // somebody said so
	MoveDrain                      // the node is emptied
	MoveBalance                    // another one has less to do
)

var moveReasonNames = []string{"operator", "drain", "balance"}

// String is the word that listings and notifications use.
func (r MoveReason) String() string { return name(moveReasonNames, int(r)) }

// ParseMoveReason reads the form that String writes.
func ParseMoveReason(s string) (MoveReason, error) {
	return parseName[MoveReason]("reason", moveReasonNames, s)
}

// A Move asks a client to use other addresses, or other nodes, from now on.
type Move struct {
	ID        string   // unique; the same move may reach a client through two witnesses
	To        []string // nodes or addresses, as whoever asked named them
	Addresses []string // the same as addresses, as far as the witness knows
	Reason    MoveReason
}

// A ResourceChange is what a registered client is told.
type ResourceChange struct {
	Seq   uint64 // the registration's own; grows by Count
	Count uint64 // changes it stands for; 0 of what is no change of a level: a move, Reregister

	Resource  Resource // empty: it is about the registration
	Level     ResourceLevel
	HasAt     bool     // Level.At counts: the client named a holder
	Holder    string   // name of the node that holds it now, or held it last; empty: none or several
	Addresses []string // where it can be used now

	First, Last time.Time // of the changes it stands for
	AtAffected  bool      // the state of the holder that the client uses changed
	Flapped     bool      // it is as it was, and was not in between

	Move       *Move
	Reregister bool // this witness ends: register at another one
}
