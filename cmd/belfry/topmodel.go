package main

import (
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/belfry-ha/belfry"
)

// A topPane is one of the lists of top.
type topPane int

const (
	paneNodes topPane = iota
	paneLinks
	paneEvents
	topPanes // how many there are
)

var topPaneNames = [topPanes]string{"nodes", "links", "events"}

// A topTarget is what Enter shows the details of.
type topTarget struct {
	pane topPane
	key  string // of its row
}

// topDetails are the answer to a question for details.
type topDetails struct {
	target topTarget
	lines  []string
	err    error
}

// A topPicture is what there is to show. Pausing keeps one.
type topPicture struct {
	facts  *topFacts // nil before the first answer
	events []topEvent
}

// A topEvent is a notification with a number of its own, by which its row is
// found again.
type topEvent struct {
	number int
	belfry.Notification
}

// A topList is how one pane is looked at.
type topList struct {
	key    string // of the selected row; empty: the first
	top    int    // index of the first row on the screen
	filter string
	order  int
}

// A topModel is the state of top. It has no clock and asks nobody: messages
// bring all that it knows.
type topModel struct {
	words         *watcher // words the events
	colored       bool
	fetch         func(topTarget) tea.Cmd
	width, height int

	live      topPicture
	paused    *topPicture // what is shown instead
	pausedAt  time.Time
	heard     time.Time // the last answer with facts
	lost      error     // why the newest has none; nil: it has
	eventsErr error
	number    int // of the newest event

	pane   topPane
	lists  [topPanes]topList
	typing bool // of the pane's filter
	help   bool
	detail *topDetails // nil: the list is shown
	scroll int         // of details and help
}

func newTopModel(classes catalogue, colored bool) *topModel {
	words := &watcher{app: &app{}, flags: &watchFlags{}, classes: classes}
	return &topModel{words: words, colored: colored, width: 80, height: 24}
}

// Init has nothing to do: the feed sends by itself.
func (m *topModel) Init() tea.Cmd { return nil }

// Update takes one message.
func (m *topModel) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	command := m.take(message)
	m.follow()
	return m, command
}

func (m *topModel) take(message tea.Msg) tea.Cmd {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case topAnswer:
		m.answered(message)
		if m.detail != nil && m.paused == nil && message.facts != nil {
			return m.ask(m.detail.target)
		}
	case topDetails:
		m.detailed(message)
	case tea.KeyPressMsg:
		return m.pressed(message)
	}
	return nil
}

// answered takes a look of the feed. Facts that are not confirmed stay, and
// the first line says that they are stale.
func (m *topModel) answered(a topAnswer) {
	if m.heard.IsZero() {
		m.heard = a.at
	}
	m.lost, m.eventsErr = a.err, a.eventsErr
	if a.facts != nil {
		m.live.facts, m.heard = a.facts, a.at
		m.words.cluster, m.words.node = a.facts.status.GetClusterName(), a.facts.status.GetNodeName()
	}
	for _, n := range a.events {
		m.number++
		m.live.events = append(m.live.events, topEvent{m.number, n})
	}
	if surplus := len(m.live.events) - topEvents; surplus > 0 {
		m.live.events = slices.Clone(m.live.events[surplus:])
	}
}

// detailed takes details, unless they were closed or paused meanwhile.
func (m *topModel) detailed(d topDetails) {
	if m.detail == nil || m.detail.target != d.target {
		return
	}
	if d.err != nil {
		m.detail.err = d.err // the lines stay, marked as stale
		return
	}
	m.detail = &d
}

// picture is what is shown.
func (m *topModel) picture() topPicture {
	if m.paused != nil {
		return *m.paused
	}
	return m.live
}

// list is how the pane that is shown is looked at.
func (m *topModel) list() *topList { return &m.lists[m.pane] }

// ask asks for details; those of an event are here.
func (m *topModel) ask(t topTarget) tea.Cmd {
	if t.pane == paneEvents || m.fetch == nil {
		return nil
	}
	return m.fetch(t)
}

// open shows the details of the selected row.
func (m *topModel) open() tea.Cmd {
	rows := m.rows()
	if len(rows) == 0 {
		return nil
	}
	row := rows[m.selected(rows)]
	m.scroll = 0
	m.detail = &topDetails{target: topTarget{m.pane, row.key}}
	if m.pane == paneEvents {
		m.detail.lines = m.eventLines(row.key)
	}
	return m.ask(m.detail.target)
}

// selected is the index of the selected row; the first if it is gone.
func (m *topModel) selected(rows []topRow) int {
	return max(0, slices.IndexFunc(rows, func(r topRow) bool { return r.key == m.list().key }))
}

// move selects the row that is by away.
func (m *topModel) move(by int) {
	rows := m.rows()
	if len(rows) == 0 {
		return
	}
	at := min(max(0, m.selected(rows)+by), len(rows)-1)
	m.list().key = rows[at].key
	if at == 0 {
		m.list().key = "" // the first row, whichever it is: new events come there
	}
}
