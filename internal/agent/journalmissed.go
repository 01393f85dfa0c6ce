package agent

import (
	"fmt"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/sink/journal"
)

// errTimedPast refuses rules about time for whoever looks back.
var errTimedPast = fmt.Errorf("%w: --hold, --min-interval and --flap are about what happens now, not about the past; leave them or --since out, or go on from a cursor", belfry.ErrUsage)

// missed counts what a registration with rules about time missed while it was
// away: what the rules would have let out depends on when its time was running, so
// nobody can say that, but how often each event happened stands in the journal. It
// becomes one gap for each event, and what the rules about single occurrences refuse
// is skipped in it. Nil counts for nobody.
type missed struct {
	by    map[int]bool // places of the registrations in the list
	gaps  map[missedKey]*belfry.Notification
	order []missedKey // as they were heard of
	told  int         // of them
}

type missedKey struct {
	journal.Key
	registration uint32
}

// counts says that the past of a registration is counted.
func (p *past) counts(place int) {
	if p.missed == nil {
		p.missed = &missed{by: map[int]bool{}, gaps: map[missedKey]*belfry.Notification{}}
	}
	p.missed.by[place] = true
}

func (m *missed) of(place int) bool { return m != nil && m.by[place] }

// count adds a record of an event: an occurrence, or a gap with its number.
func (m *missed) count(of journal.Key, n *belfry.Notification, registration uint32, wanted bool) {
	key := missedKey{of, registration}
	gap := m.gaps[key]
	if gap == nil {
		begin := *n
		gap = &begin
		gap.Kind, gap.Registration, gap.Count, gap.Skipped = belfry.KindGap, registration, 0, 0
		gap.Code, gap.Edge, gap.Value, gap.Data, gap.Reason = 0, belfry.EdgeNone, 0, nil, ""
		gap.Gap = &belfry.Gap{Known: true, Resync: true, Reason: belfry.GapLink, From: n.FirstTime}
		m.gaps[key] = gap
		m.order = append(m.order, key)
	}
	gap.Event.Instance, gap.Last, gap.Time, gap.Gap.To = n.Event.Instance, n.Last, n.Time, n.Time
	gap.LowerBound = gap.LowerBound || n.LowerBound
	gap.Skipped += n.Skipped
	switch {
	case n.Gap != nil:
		gap.Gap.Total += n.Gap.Total
	case wanted:
		gap.Gap.Total += n.Count
	default:
		gap.Skipped += n.Count
	}
}

// any tells whether there is a gap to take.
func (m *missed) any() bool {
	for m != nil && m.told < len(m.order) && m.gaps[m.order[m.told]].Gap.Total == 0 {
		m.told++ // all of it was refused: that comes with the next notification
	}
	return m != nil && m.told < len(m.order)
}

func (m *missed) take() belfry.Notification {
	m.told++
	return *m.gaps[m.order[m.told-1]]
}

// ends is how far it has counted, and what no gap was told of.
func (m *missed) ends() (list []api.Skipped) {
	if m == nil {
		return nil
	}
	for _, key := range m.order {
		n := m.gaps[key]
		end := api.Skipped{
			Node: n.Node, Incarnation: n.Incarnation, Entry: n.Entry, Class: n.Event.Class, Subject: n.Event.Subject, Last: n.Last,
		}
		if n.Gap.Total == 0 {
			end.Count = n.Skipped
		}
		list = append(list, end)
	}
	return list
}
