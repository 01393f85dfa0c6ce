package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
)

// topFrame is the lines around a list: status, panes and heads above it, keys
// below.
const topFrame = 4

// View is the picture of now.
func (m *topModel) View() tea.View {
	view := tea.NewView(strings.Join(m.lines(), "\n"))
	view.AltScreen = true
	return view
}

// lines is the screen: height lines of at most width columns.
func (m *topModel) lines() []string {
	lines := []string{m.header(), m.tabs()}
	if m.help || m.detail != nil {
		text := m.textLines()
		from := min(m.scroll, len(text))
		lines = append(lines, "")
		lines = append(lines, text[from:min(len(text), from+m.page())]...)
	} else {
		lines = append(lines, m.listLines()...)
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(0, m.height-1)], m.footer())
	cut := lipgloss.NewStyle().Inline(true).MaxWidth(max(1, m.width))
	for i, line := range lines {
		lines[i] = strings.TrimRight(cut.Render(line), " ")
	}
	return lines
}

// page is how many rows or lines of text there is room for.
func (m *topModel) page() int { return max(1, m.height-topFrame) }

// header says how the cluster is, or that nobody knows.
func (m *topModel) header() string {
	p := m.picture()
	switch {
	case m.lost != nil:
		return m.paint(cell{fmt.Sprintf("stale since %s: %s", timeOfDay(m.heard), m.lostText()), red})
	case p.facts == nil:
		return "asking the agent"
	}
	s := p.facts.status
	o := &output{colored: m.colored}
	statusLine(o, s)
	line := strings.TrimSuffix(o.buffer.String(), "\n")
	if m.paused != nil {
		return m.paint(cell{"paused at " + timeOfDay(m.pausedAt), yellow}) + "  " + line
	}
	return line + "  at " + timeOfDay(m.heard)
}

// lostText says why there is no answer.
func (m *topModel) lostText() string {
	if errors.Is(m.lost, context.DeadlineExceeded) {
		return "the agent does not answer"
	}
	return printable(m.lost.Error())
}

// timeOfDay is to the second, where this command runs; empty for no time.
func timeOfDay(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("15:04:05")
}

// tabs names the panes, the shown one in brackets, and how it is looked at.
func (m *topModel) tabs() string {
	p := m.picture()
	counts := [topPanes]int{paneEvents: len(p.events)}
	if p.facts != nil {
		counts[paneNodes], counts[paneLinks] = len(p.facts.status.GetNodes()), len(p.facts.links)
	}
	var parts []string
	for pane, name := range topPaneNames {
		format := " %s %d "
		if topPane(pane) == m.pane {
			format = "[%s %d]"
		}
		parts = append(parts, fmt.Sprintf(format, name, counts[pane]))
	}
	line := strings.Join(parts, " ") + "   by " + m.order()
	if f := m.list().filter; f != "" {
		line += fmt.Sprintf("   with %q: %d", f, len(m.rows()))
	}
	if m.lost != nil && m.paused != nil {
		line += "   paused at " + timeOfDay(m.pausedAt)
	}
	return line
}

// room is how many rows of the pane fit on the screen.
func (m *topModel) room() int {
	if m.silent() {
		return max(1, m.page()-1)
	}
	return m.page()
}

// silent tells whether the pane has to say that no events come.
func (m *topModel) silent() bool { return m.pane == paneEvents && m.eventsErr != nil }

// follow scrolls as little as needed for the selected row to be seen.
func (m *topModel) follow() {
	rows, l := m.rows(), m.list()
	at, room := m.selected(rows), m.room()
	l.top = max(0, at-room+1, min(l.top, at, len(rows)-room))
}

// listLines is heads and rows.
func (m *topModel) listLines() []string {
	rows := m.rows()
	heads := topRow{}
	for head := range strings.FieldsSeq(topHeads[m.pane]) {
		heads.cells = append(heads.cells, cell{text: head})
	}
	widths := widthsOf(append([]topRow{heads}, rows...))
	lines := []string{"  " + m.row(heads, widths)}
	if m.silent() {
		lines = append(lines, m.paint(cell{"  no events come: " + printable(m.eventsErr.Error()), red}))
	}
	selected, first := m.selected(rows), m.list().top
	for i := first; i < min(len(rows), first+m.room()); i++ {
		mark := "  "
		if i == selected {
			mark = "> "
		}
		lines = append(lines, mark+m.row(rows[i], widths))
	}
	if len(rows) == 0 {
		lines = append(lines, "  "+m.emptyText())
	}
	return lines
}

// emptyText says why a list has no rows.
func (m *topModel) emptyText() string {
	switch {
	case m.list().filter != "":
		return "none has this text; / changes it, Esc shows all"
	case m.pane == paneEvents:
		return "nothing has happened since this began"
	case m.picture().facts == nil:
		return "no answer yet"
	}
	return "none"
}

func widthsOf(rows []topRow) (widths []int) {
	for _, r := range rows {
		for i, c := range r.cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], lipgloss.Width(c.text))
		}
	}
	return widths
}

// row is the cells of a row, two blanks between them.
func (m *topModel) row(r topRow, widths []int) string {
	var b strings.Builder
	for i, c := range r.cells {
		b.WriteString(m.fact(c))
		b.WriteString(strings.Repeat(" ", widths[i]-lipgloss.Width(c.text)+2))
	}
	return strings.TrimRight(b.String(), " ")
}

// textLines are those of help or details.
func (m *topModel) textLines() []string {
	if m.help {
		return strings.Split(topKeys+"\nThere is no pane for handlers, because agents have none yet.", "\n")
	}
	d := m.detail
	switch {
	case d.err != nil:
		return append([]string{m.paint(cell{"stale: " + printable(d.err.Error()), red}), ""}, d.lines...)
	case d.lines == nil:
		return []string{"asking the agent"}
	}
	return d.lines
}

// footer names the keys, or is where the filter is typed.
func (m *topModel) footer() string {
	switch {
	case m.typing:
		return "/" + printable(m.list().filter) + "_   Enter keeps it, Esc shows all"
	case m.help || m.detail != nil:
		return "arrows scroll  Esc back  p pause  q quit"
	}
	return "Tab pane  arrows move  Enter details  / filter  s sort  p pause  ? help  q quit"
}

// topColors are the colours of cells in the words of the terminal library.
var topColors = map[color]string{red: "1", green: "2", yellow: "3"}

// fact paints a cell of a row; one that is stale has no colour.
func (m *topModel) fact(c cell) string {
	if m.lost != nil {
		return c.text
	}
	return m.paint(c)
}

// paint gives a text its colour where colours are wanted; the words say the
// same without.
func (m *topModel) paint(c cell) string {
	if !m.colored || c.color == plain {
		return c.text
	}
	return lipgloss.NewStyle().Foreground(lipgloss.Color(topColors[c.color])).Render(c.text)
}
