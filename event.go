package belfry

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Class is a kind of event: words of [a-z0-9-] joined by dots, for example
// "process.exit". In a registration "noun.*" stands for all classes of a noun
// and "*" for all classes that are already produced.
type Class string

// An EventID names one event of a node. Class and Subject are what the user
// named; Instance is the transient identifier of what that is now
// (US8984119): "4711@8812345" for a process, empty where nothing can change.
type EventID struct {
	Class    Class
	Subject  string
	Instance string
}

// An Edge tells whether an occurrence is a change for the worse or the better.
type Edge uint8

// The edges.
const (
	EdgeNone      Edge = iota // a happening: neither
	EdgeFailing               // away from the good state, or past a threshold
	EdgeRecovered             // back
)

var edgeNames = []string{"-", "failing", "recovered"}

// String is the word that listings and notifications use.
func (e Edge) String() string { return name(edgeNames, int(e)) }

// ParseEdge reads the form that String writes.
func ParseEdge(s string) (Edge, error) { return parseName[Edge]("edge", edgeNames, s) }

// An Occurrence is one thing that happened, as a producer reports it.
type Occurrence struct {
	Event      EventID
	Time       time.Time
	Code       int32 // meaning by class; 0 where a class has no codes
	Edge       Edge
	Value      float64 // value classes only, in the class's unit
	Data       []byte  // the class's protobuf message; at most 4 KiB, above it is cut and flagged
	LowerBound bool    // the source may have merged or dropped occurrences before this one
}

// ClassKind tells what the occurrences of a class are.
type ClassKind uint8

// The kinds of events.md 8.
const (
	Happening ClassKind = iota // something happens: file.modify, process.exit
	State                      // something lasts: two edges, and a snapshot: node.state
	Value                      // a quantity with thresholds: filesystem.usage
)

var classKindNames = []string{"happening", "state", "value"}

// String is the word that listings use.
func (k ClassKind) String() string { return name(classKindNames, int(k)) }

// A ClassInfo describes a class: it is the answer to `belfry event types`.
type ClassInfo struct {
	Class    Class
	Kind     ClassKind
	Summary  string // one line, lower case
	Subject  string // form of the subject, for people: "PATH", "exe=PATH | pid=N"; empty: it has none
	Unit     string // of a value class: "%", "bytes", "ms"; else empty
	Data     string // full name of the protobuf message in Occurrence.Data; empty: none
	Globs    bool   // subjects may be patterns
	Remote   bool   // may be registered with scope cluster
	Volatile bool   // not started by a pattern over classes, not journaled
	// Optional: the subject may be left out, which means all subjects there are
	// (only together with Globs).
	Optional bool
	// Custom: the class ends in ".*" and stands for every class below it, whose
	// names users choose (user.*).
	Custom bool
	// LocalKinds are the subject kinds (the word before "=") that mean something
	// on one node only: "pid".
	LocalKinds []string
	// LiteralKinds are the subject kinds whose text is never a pattern:
	// "cmdline", because its expressions have stars of their own.
	LiteralKinds []string
	// Source is how the node that is asked finds out now, and why in no better way,
	// for people; empty: there is one way only, or nobody watches.
	Source string
}

// Scope says whose occurrences a registration is for. The consumer chooses
// (US8694625, the cluster flag): wider costs other nodes something.
type Scope uint8

// The scopes.
const (
	ScopeLocal Scope = iota
	ScopeCluster
)

var scopeNames = []string{"local", "cluster"}

// String is the word that flags and listings use.
func (s Scope) String() string { return name(scopeNames, int(s)) }

// ParseScope reads the form that String writes.
func ParseScope(s string) (Scope, error) { return parseName[Scope]("scope", scopeNames, s) }

// A Threshold is for value classes. An occurrence is a crossing of Hi upwards
// or of Lo downwards (failing), or back past the hysteresis (recovered).
type Threshold struct {
	Hi, Lo       float64 // in the class's unit
	HasHi, HasLo bool
	Hysteresis   float64 // re-arms at Hi - Hysteresis, Lo + Hysteresis; at least 0
}

// IsZero tells whether t asks for nothing.
func (t Threshold) IsZero() bool { return !t.HasHi && !t.HasLo }

// Flap silences an event that happens more than High times within Window:
// one notification of KindFlapping, and none until it happens fewer than Low
// times within Window; then one of KindSettled, with the newest occurrence
// and the exact number in Skipped. The zero value is off.
type Flap struct {
	Window    time.Duration // 1 s to 24 h
	High, Low int           // 1 to 1,000; Low at most High
}

// DefaultFlap is what a user gets who asks for flap control without figures.
var DefaultFlap = Flap{Window: time.Minute, High: 6, Low: 2}

// IsZero tells whether f asks for nothing.
func (f Flap) IsZero() bool { return f == Flap{} }

// String is the form that flags and settings use: HIGH:LOW:WINDOW.
func (f Flap) String() string { return fmt.Sprintf("%d:%d:%s", f.High, f.Low, f.Window) }

// ParseFlap reads the form that String writes.
func ParseFlap(s string) (f Flap, err error) {
	var window string
	part := strings.Split(s, ":")
	if len(part) == 3 {
		window = part[2]
		if f.High, err = strconv.Atoi(part[0]); err == nil {
			f.Low, err = strconv.Atoi(part[1])
		}
		if err == nil {
			f.Window, err = time.ParseDuration(window)
		}
	}
	if len(part) != 3 || err != nil {
		return Flap{}, fmt.Errorf("%w: flap control %q; write HIGH:LOW:WINDOW, for example %s", ErrUsage, s, DefaultFlap)
	}
	return f, nil
}

// EdgeFilter chooses edges.
type EdgeFilter uint8

// The edge filters.
const (
	EdgeBoth EdgeFilter = iota
	EdgeOnlyFailing
	EdgeOnlyRecovered
)

var edgeFilterNames = []string{"both", "failing", "recovered"}

// String is the word that flags and listings use.
func (f EdgeFilter) String() string { return name(edgeFilterNames, int(f)) }

// ParseEdgeFilter reads the form that String writes.
func ParseEdgeFilter(s string) (EdgeFilter, error) {
	return parseName[EdgeFilter]("edge filter", edgeFilterNames, s)
}

// Coalesce says what may merge in a consumer queue.
type Coalesce uint8

// The coalescing rules.
const (
	CoalesceByCode Coalesce = iota // neighbours of one event with equal (Code, Edge, Instance)
	CoalesceNever
)

var coalesceNames = []string{"by-code", "never"}

// String is the word that flags and listings use.
func (c Coalesce) String() string { return name(coalesceNames, int(c)) }

// ParseCoalesce reads the form that String writes.
func ParseCoalesce(s string) (Coalesce, error) {
	return parseName[Coalesce]("coalesce", coalesceNames, s)
}

// A Registration is a consumer's wish. The zero value of each field is its
// default.
type Registration struct {
	Class   string // a Class, "noun.*" or "*"
	Subject string // exact, or a pattern where the class allows globs; empty where it is optional
	Scope   Scope
	// Nodes narrows ScopeCluster; none: all nodes, also those that join later.
	Nodes []NodeID
	// OnlyWhereMonitored: only from nodes with a local consumer of the same event.
	OnlyWhereMonitored bool
	Wait               bool // start blocked when nothing of that name is there yet
	NoFollow           bool // end when the identifier goes
	Snapshot           bool // begin with the present state of state-like events
	Threshold          Threshold
	Edge               EdgeFilter
	Filter             string // expression; empty: everything
	// Hold lets a state out when it has lasted that long; a return to the state
	// told last, before that, sends nothing. For state and value classes; at
	// most 24 h.
	Hold time.Duration
	// MinInterval is the least time between two notifications of one event:
	// what comes meanwhile becomes one, with the newest. At most 24 h.
	MinInterval time.Duration
	Flap        Flap // silence for what happens too often
	Coalesce    Coalesce
	// Limit is the most notifications queued; 1 to 65,536. Zero: 256, and 16 for
	// a plain registration (one event without rules).
	Limit int
	// Since begins in the past: with what the journal of the node that is asked
	// holds, then with what happens. With Hold, MinInterval or Flap it takes a
	// Cursor, and of the past there is one gap for each event with its number, then
	// the present states.
	Since Since
}

// Kind tells what a notification is. Only KindOccurrence and KindGap stand
// for occurrences; the others have Count 0.
type Kind uint8

// The kinds.
const (
	KindOccurrence Kind = iota
	KindState           // the present state: of a snapshot, or after a gap
	KindAlready         // the value was past the threshold when it was registered
	KindGap             // stands for occurrences that this consumer did not get
	KindCoverage        // a node began or ceased to be covered by this registration
	KindEnded           // the event is gone: the last notification of it
	KindFlapping        // it happens too often: silence until it is settled (Flap)
	KindSettled         // the newest occurrence of an event that was flapping; Skipped is how many there were
)

var kindNames = []string{"occurrence", "state", "already", "gap", "coverage", "ended", "flapping", "settled"}

// String is the word that listings and JSON use.
func (k Kind) String() string { return name(kindNames, int(k)) }

// ParseKind reads the form that String writes.
func ParseKind(s string) (Kind, error) { return parseName[Kind]("kind", kindNames, s) }

// A Notification is what a consumer receives (US20120066694: the sequence
// number tells how many occurrences it stands for). Within one event of one
// node ranges [First, Last] grow strictly and never overlap; what is between
// them is covered by Skipped or by a gap.
type Notification struct {
	Kind         Kind
	Registration uint32 // the consumer's number of its registration
	Node         NodeID // where it happened
	NodeName     string
	Incarnation  Incarnation // of that node; Entry and sequence numbers count within it
	Entry        uint64
	Event        EventID

	First, Last uint64 // sequence numbers it covers
	Count       uint64 // occurrences it stands for
	Skipped     uint64 // occurrences that the registration's own rules refused since the last one

	FirstTime, Time time.Time // of the oldest and the newest of them
	Code            int32
	Edge            Edge
	Value           float64
	Data            []byte // of the newest
	Mixed           bool   // of several: they may differ in Value or Data
	Unmonitored     bool   // between nodes and in the journal: no consumer at its node was on the event
	LowerBound      bool   // the source may have merged: Count, Skipped and Gap.Total are the least
	Gap             *Gap   // of KindGap only
	Reason          string // of KindCoverage only: why the node refuses to deliver
}

// A Gap says what a KindGap notification stands for. A gap of one event has
// its range in First and Last; a gap over several only its Total.
type Gap struct {
	Total    uint64
	Known    bool // Total is exact; else nobody can know the number
	Resync   bool // the present states follow
	Reason   GapReason
	From, To time.Time
}

// GapReason says why occurrences were not delivered one by one.
type GapReason uint8

// The reasons.
const (
	GapSlow         GapReason = iota // the consumer was slower than the kept runs
	GapOverflow                      // distinct events filled its queue
	GapNotMonitored                  // nobody watched for a while
	GapJournal                       // older than the journal
	GapLink                          // lost between two nodes
	GapMerged                        // merged with others before a filter could look at their data
)

var gapReasonNames = []string{"slow", "overflow", "not-monitored", "journal", "link", "merged"}

// String is the word that listings and JSON use.
func (r GapReason) String() string { return name(gapReasonNames, int(r)) }

// ParseGapReason reads the form that String writes.
func ParseGapReason(s string) (GapReason, error) {
	return parseName[GapReason]("gap reason", gapReasonNames, s)
}

// EntryState is the state of an event registration entry (US8984119).
type EntryState uint8

// The states of events.md 3.
const (
	EntryStarting EntryState = iota // the producer was asked and has not answered
	EntryActive                     // an identifier is associated
	EntryBlocked                    // no identifier: nothing is delivered, registrations stay
	EntryEnded                      // gone; queues stay readable
)

var entryStateNames = []string{"starting", "active", "blocked", "ended"}

// String is the word that listings use.
func (s EntryState) String() string { return name(entryStateNames, int(s)) }
