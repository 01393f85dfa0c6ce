package event

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// A ledger is the model that the properties compare with: what was posted to
// each entry under which number, and what each registration was given.
type ledger struct {
	posted map[ledgerEvent][]posting // index = sequence number - 1
	given  map[ledgerReader]*account
	errs   []string
}

type ledgerEvent struct {
	node  belfry.NodeID
	inc   belfry.Incarnation
	entry uint64
}

type ledgerReader struct {
	consumer     ConsumerID
	registration uint32
}

type posting struct {
	time     time.Time
	code     int32
	edge     belfry.Edge
	instance string
	merged   bool // a lower bound
	alone    bool // nobody at the node was on the event
	data     string
}

// An account is what one registration was given.
type account struct {
	last    map[ledgerEvent]uint64 // highest number given
	total   uint64                 // Σ Count + Σ Skipped + Σ Gap.Total
	budget  uint64                 // occurrences that gaps over several events stand for, not assigned yet
	unknown bool                   // a gap said Known=false
	plain   bool
	remote  bool   // merged on its way: times of parts are not known
	sparse  bool   // only where it is monitored
	data    string // of what its filter lets through; empty: it has no such filter
	strict  bool   // it has no rules but these
}

func newLedger() *ledger {
	return &ledger{posted: map[ledgerEvent][]posting{}, given: map[ledgerReader]*account{}}
}

func (l *ledger) post(e ledgerEvent, p posting, times int) {
	for range times {
		l.posted[e] = append(l.posted[e], p)
	}
}

func (l *ledger) fail(format string, args ...any) {
	l.errs = append(l.errs, fmt.Sprintf(format, args...))
}

// take checks one notification against I1, I2, I4 and I7, and adds it up for I3.
func (l *ledger) take(c ConsumerID, n *belfry.Notification) {
	a := l.given[ledgerReader{c, n.Registration}]
	if a == nil {
		l.fail("notification for registration %d/%d, which is not there: %s", c, n.Registration, noteText(n))
		return
	}
	a.total += n.Count + n.Skipped
	if n.Kind == belfry.KindGap {
		a.total += n.Gap.Total
		a.unknown = a.unknown || !n.Gap.Known
	}
	e := ledgerEvent{n.Node, n.Incarnation, n.Entry}
	switch n.Kind {
	case belfry.KindGap:
		if n.Event.Class == "" || !n.Gap.Known { // several events, or nobody knows
			a.budget += n.Gap.Total + n.Skipped
			return
		}
		l.advance(a, e, n, n.Gap.Total)
	case belfry.KindOccurrence:
		l.advance(a, e, n, n.Count)
		l.payload(a, e, n)
	case belfry.KindEnded, belfry.KindFlapping, belfry.KindSettled:
		if a.budget == 0 {
			l.bound(e, a.last[e], a.last[e]+n.Skipped, n)
		}
		a.last[e] += n.Skipped
	}
}

// advance checks that numbers grow (I1) and that holes are explained (I2).
func (l *ledger) advance(a *account, e ledgerEvent, n *belfry.Notification, stands uint64) {
	before, known := a.last[e]
	if !known {
		before = n.First - 1 - min(n.Skipped, n.First-1)
		l.fail("event %v was never given a beginning", e)
	}
	if n.First <= before || n.Last < n.First {
		l.fail("I1: %s after number %d", noteText(n), before)
	}
	hole := n.Last - before - min(n.Last-before, stands+n.Skipped)
	if hole > a.budget {
		l.fail("I2: %s after number %d: %d of a hole of %d are explained", noteText(n), before, a.budget, hole)
		hole = a.budget
	}
	a.budget -= hole
	if hole == 0 {
		l.bound(e, before, n.Last, n)
	}
	if n.Last-before < stands+n.Skipped {
		l.fail("I2: %s after number %d stands for more than there were", noteText(n), before)
	}
	if posts := l.posted[e]; a.strict && (a.sparse || a.data != "") && hole == 0 {
		refused := uint64(0) // or not sent, because another registration did not want it and this one was not there yet
		for _, p := range posts[min(before, uint64(len(posts))):min(n.Last, uint64(len(posts)))] {
			if !a.wants(p) || p.alone {
				refused++
			}
		}
		if n.Skipped > refused {
			l.fail("R4, filters: %s after number %d skips what was wanted: %d were not", noteText(n), before, refused)
		}
	}
	if a.plain && n.Count != 0 && n.Count != n.Last-n.First+1 {
		l.fail("I3: plain count of %s", noteText(n))
	}
	a.last[e] = n.Last
}

// bound checks that what the source may have merged says so, with what it is told
// or lost or refused, and nothing else does.
func (l *ledger) bound(e ledgerEvent, after, last uint64, n *belfry.Notification) {
	posts := l.posted[e]
	merged := func(p posting) bool { return p.merged }
	if last = min(last, uint64(len(posts))); after < last && slices.ContainsFunc(posts[after:last], merged) && !n.LowerBound {
		l.fail("%s is exact, with what the source merged", noteText(n))
	}
	if n.LowerBound && !slices.ContainsFunc(posts, merged) {
		l.fail("%s is a lower bound, and the source merged nothing", noteText(n))
	}
}

// judges notes what the rules of a registration are, as far as the ledger checks them.
func (a *account) judges(spec *belfry.Registration) {
	a.sparse = spec.OnlyWhereMonitored
	a.data, _ = strings.CutPrefix(spec.Filter, "data==")
	if spec.Filter == "" || a.data == spec.Filter {
		a.data = ""
	}
	a.strict = spec.Edge == belfry.EdgeBoth && (spec.Filter == "" || a.data != "") &&
		spec.Hold == 0 && spec.MinInterval == 0 && spec.Flap.IsZero()
}

// wants tells whether only where monitored, and a filter for data, let a post through.
func (a *account) wants(p posting) bool {
	return (!a.sparse || !p.alone) && (a.data == "" || a.data == p.data)
}

// payload checks times (I4), merging (Q4) and instances (I7).
func (l *ledger) payload(a *account, e ledgerEvent, n *belfry.Notification) {
	posts := l.posted[e]
	if n.Last > uint64(len(posts)) {
		l.fail("%s was never posted", noteText(n))
		return
	}
	newest := posts[n.Last-1]
	oldest := posts[n.First-1]
	if !a.remote && !n.Time.Equal(newest.time) || n.Time.After(newest.time) {
		l.fail("I4: %s is at %s", noteText(n), since(newest.time))
	}
	if !a.remote && !n.FirstTime.Equal(oldest.time) {
		l.fail("I4: %s begins at %s", noteText(n), since(oldest.time))
	}
	if a.data != "" && string(n.Data) != a.data {
		l.fail("%s has data %q, wanted is %q", noteText(n), n.Data, a.data)
	}
	same := uint64(0)
	for _, p := range posts[n.First-1 : n.Last] {
		if p.code == n.Code && p.edge == n.Edge && p.instance == n.Event.Instance && a.wants(p) {
			same++
		}
	}
	if same < n.Count {
		l.fail("Q4, I7, R4: %s merges what is not equal, or was not monitored", noteText(n))
	}
}
