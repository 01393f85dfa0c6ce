package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A topRow is one line of a list.
type topRow struct {
	key   string
	cells []cell
}

var topHeads = [topPanes]string{
	paneNodes:  "NODE VERDICT CAUSE FOR LINKS INTERVAL MAXWAIT NOTE",
	paneLinks:  "PEER NETWORK STATE FOR LOSS RTT JITTER PEERSTATE REASON",
	paneEvents: "TIME NODE CLASS SUBJECT COUNT WHAT",
}

// topOrders are what s goes through; the first is the one at the beginning.
var topOrders = [topPanes][]string{
	paneNodes:  {"name", "verdict", "newest"},
	paneLinks:  {"peer", "state", "loss", "rtt", "newest"},
	paneEvents: {"newest", "node", "class"},
}

// rows are those of the pane that is shown, filtered and in order.
func (m *topModel) rows() []topRow {
	var rows []topRow
	p := m.picture()
	switch m.pane {
	case paneNodes:
		rows = nodeRows(p.facts, m.order())
	case paneLinks:
		rows = linkRows(p.facts, m.order())
	case paneEvents:
		rows = m.eventRows(p.events, m.order())
	}
	filter := strings.ToLower(m.list().filter)
	return slices.DeleteFunc(rows, func(r topRow) bool {
		return !slices.ContainsFunc(r.cells, func(c cell) bool { return strings.Contains(strings.ToLower(c.text), filter) })
	})
}

// order is what the pane that is shown is sorted by.
func (m *topModel) order() string { return topOrders[m.pane][m.list().order] }

// nodeRows has the members; times are those of the answer, so that what is
// stale does not go on counting.
func nodeRows(facts *topFacts, order string) (rows []topRow) {
	if facts == nil {
		return nil
	}
	nodes := slices.Clone(facts.status.GetNodes())
	slices.SortStableFunc(nodes, func(a, b *belfryv1.Node) int {
		switch order {
		case "verdict":
			return cmp.Compare(badness(verdictCell(a)), badness(verdictCell(b)))
		case "newest":
			return when(b.GetSince()).Compare(when(a.GetSince()))
		}
		return cmp.Compare(a.GetName(), b.GetName())
	})
	for i, cells := range nodeTable(nodes, when(facts.status.GetTime()), false, topHeads[paneNodes]).rows[1:] {
		rows = append(rows, topRow{nodes[i].GetName(), cells})
	}
	return rows
}

// linkRows has the links of this node.
func linkRows(facts *topFacts, order string) (rows []topRow) {
	if facts == nil {
		return nil
	}
	links := slices.Clone(facts.links)
	slices.SortStableFunc(links, func(a, b *linkRow) int {
		switch order {
		case "state":
			return cmp.Compare(badness(linkStateCell(a)), badness(linkStateCell(b)))
		case "loss":
			return cmp.Compare(b.GetLossRatio(), a.GetLossRatio())
		case "rtt":
			return cmp.Compare(b.GetRtt().AsDuration(), a.GetRtt().AsDuration())
		case "newest":
			return when(b.GetSince()).Compare(when(a.GetSince()))
		}
		return cmp.Or(cmp.Compare(a.GetPeer(), b.GetPeer()), cmp.Compare(a.GetNetwork(), b.GetNetwork()))
	})
	now := when(facts.status.GetTime())
	for _, l := range links {
		rows = append(rows, topRow{l.GetPeer() + "/" + l.GetNetwork(), linkCells(l, now)})
	}
	return rows
}

func linkCells(l *linkRow, now time.Time) []cell {
	t := &table{}
	t.addCells(
		cell{text: l.GetPeer()}, cell{text: l.GetNetwork()}, linkStateCell(l), cell{text: sinceText(now, when(l.GetSince()))},
		cell{text: ratio(l.GetLossRatio())}, cell{text: linkRTT(l)}, cell{text: span(l.GetJitter().AsDuration())},
		cell{text: l.GetPeerState()}, cell{text: l.GetReason()},
	)
	return t.rows[0]
}

// badness puts the worst first: by colour, because the words' colours say how
// bad they are.
func badness(c cell) int { return slices.Index([]color{red, yellow, plain, green}, c.color) }

// eventRows has the newest events first.
func (m *topModel) eventRows(events []topEvent, order string) (rows []topRow) {
	sorted := slices.Clone(events)
	slices.SortStableFunc(sorted, func(a, b topEvent) int {
		newest := cmp.Compare(b.number, a.number)
		switch order {
		case "node":
			return cmp.Or(cmp.Compare(m.words.nodeName(&a.Notification), m.words.nodeName(&b.Notification)), newest)
		case "class":
			return cmp.Or(cmp.Compare(a.Event.Class, b.Event.Class), newest)
		}
		return newest
	})
	for _, e := range sorted {
		rows = append(rows, topRow{strconv.Itoa(e.number), m.eventCells(&e.Notification)})
	}
	return rows
}

func (m *topModel) eventCells(n *belfry.Notification) []cell {
	what := cell{text: strings.Join(m.words.fields(n, false), " ")}
	count := "x" + strconv.FormatUint(countOf(n), 10)
	switch {
	case n.Kind == belfry.KindGap:
		what = cell{strings.TrimPrefix(m.words.gapLine(n), "-- gap: "), yellow}
		count = n.Kind.String()
	case n.Kind != belfry.KindOccurrence:
		count = n.Kind.String()
	case n.Edge == belfry.EdgeFailing:
		what.color = red
	case n.Edge == belfry.EdgeRecovered:
		what.color = green
	}
	t := &table{}
	t.addCells(cell{text: timeOfDay(n.Time)}, cell{text: m.words.nodeName(n)}, cell{text: string(n.Event.Class)},
		cell{text: n.Event.Subject}, cell{text: count}, what)
	subject := &t.rows[0][3]
	subject.text = shorten(subject.text, max(topSubject, m.width/4))
	return t.rows[0]
}

// topSubject is how much of a subject is shown on the smallest screen: it can
// be a path of 4,096 bytes, and what happened stands behind it.
const topSubject = 20

// shorten keeps the begin of a text of more than width columns.
func shorten(text string, width int) string {
	if lipgloss.Width(text) <= width {
		return text
	}
	return lipgloss.NewStyle().Inline(true).MaxWidth(width-1).Render(text) + "…"
}

// eventLines are all that an event says, as JSON would name it.
func (m *topModel) eventLines(key string) []string {
	events := m.picture().events
	i := slices.IndexFunc(events, func(e topEvent) bool { return strconv.Itoa(e.number) == key })
	if i < 0 {
		return []string{"the event is no longer kept"}
	}
	n := &events[i].Notification
	t := &table{}
	t.add("class", string(n.Event.Class))
	t.add("subject", n.Event.Subject)
	t.add("kind", n.Kind.String())
	t.add("node", m.words.nodeName(n))
	t.add("time", m.words.timeOf(n, true))
	t.add("sequence", strconv.FormatUint(n.Last, 10))
	t.add("count", strconv.FormatUint(countOf(n), 10))
	t.add("edge", n.Edge.String())
	if n.Kind == belfry.KindGap {
		t.add("gap", m.words.gapLine(n))
	}
	for _, field := range m.words.fields(n, true) {
		name, value, _ := strings.Cut(field, "=")
		t.add(name, value)
	}
	o := &output{}
	t.write(o)
	return linesOf(o)
}
