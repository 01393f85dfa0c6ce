package unit

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A unit is what systemd says of one.
type unit struct {
	path  dbus.ObjectPath
	name  string
	names []string // it and its aliases, sorted
	load  string   // loaded, not-found, masked, …
	stays bool     // it has a file: it is still there when systemd has forgotten it

	active     string
	sub        string
	result     string // empty: units of this type have none
	invocation string // of its last start, in hex; empty: it has not been started
	since      time.Time
	main       Main

	at dbus.Sequence // of the message that said so last
}

// codes are the numbers of what systemd calls the active state of a unit.
var codes = map[string]int32{
	"active": 1, "reloading": 2, "inactive": 3, "failed": 4, "activating": 5, "deactivating": 6, "maintenance": 7, "refreshing": 8,
}

// neverStarted is the instance of a unit without an invocation: an identifier
// of 128 bits that are all zero names nothing (sd-id128(3)).
const neverStarted = "00000000000000000000000000000000"

func (u *unit) instance() string {
	if u.invocation == "" {
		return neverStarted
	}
	return u.invocation
}

func edge(active string) belfry.Edge {
	switch active {
	case "failed":
		return belfry.EdgeFailing
	case "active":
		return belfry.EdgeRecovered
	}
	return belfry.EdgeNone
}

// occurrence is the state of the unit, for who knows it by this name or alias.
// Systemd says what is so when it comes to it: what was so in between is not
// counted by anybody.
func (u *unit) occurrence(name string) belfry.Occurrence {
	data := &belfryv1.UnitState{Active: valid(u.active), Sub: valid(u.sub), Result: valid(u.result)}
	if name != u.name {
		data.Unit = valid(u.name)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil { // text that is not UTF-8, which there is none of
		b = nil
	}
	return belfry.Occurrence{Time: u.since, Code: codes[u.active], Edge: edge(u.active), Data: b, LowerBound: true}
}

func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// properties are those of one interface of a unit, or some of them.
type properties map[string]dbus.Variant

func text(p properties, name string) string {
	s, _ := p[name].Value().(string)
	return s
}

// learn takes properties of the interface that all units have. It tells whether
// the identifier was among them.
func (u *unit) learn(now time.Time, p properties) (identified bool) {
	if s := text(p, "ActiveState"); s != "" {
		u.active = s
	}
	if s := text(p, "SubState"); s != "" {
		u.sub = s
	}
	if names, ok := p["Names"].Value().([]string); ok {
		u.names = slices.Sorted(slices.Values(names))
	}
	if s := text(p, "Id"); s != "" {
		u.name = s
	}
	if s := text(p, "LoadState"); s != "" {
		u.load = s
	}
	if file, ok := p["FragmentPath"].Value().(string); ok {
		transient, _ := p["Transient"].Value().(bool)
		u.stays = file != "" && !transient
	}
	u.since = now
	if usec, ok := p["StateChangeTimestamp"].Value().(uint64); ok && usec > 0 {
		if at := time.UnixMicro(int64(usec)); at.Before(now) {
			u.since = at
		}
	}
	id, ok := p["InvocationID"].Value().([]byte)
	if len(id) == 16 { // empty once systemd has forgotten it: the last one stands
		u.invocation = hex.EncodeToString(id)
	}
	return ok
}

// learnOfType takes properties of the interface of the unit's type.
func (u *unit) learnOfType(p properties) {
	if s := text(p, "Result"); s != "" {
		u.result = s
	}
	if pid, ok := p["MainPID"].Value().(uint32); ok {
		u.main.PID = int(pid)
	}
	if started, ok := p["ExecMainStartTimestampMonotonic"].Value().(uint64); ok {
		u.main.Started = started
	}
}
