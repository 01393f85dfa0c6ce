package main

import (
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
)

// topKeys is the help of top, in the manual and behind the key ?.
const topKeys = `  Tab, Shift-Tab    next or previous pane: nodes, links, events; or right, left
  up, down          select a row; or k, j, Page Up, Page Down, Home, End
  Enter             show all that is known of it; Esc goes back
  /                 show only rows that have this text; Esc shows all again
  s                 sort by something else
  p                 pause: keep this picture; again to go on
  ?                 this help
  q                 end; or Ctrl-C; Ctrl-Z suspends
`

// pressed does what a key asks for.
func (m *topModel) pressed(key tea.KeyPressMsg) tea.Cmd {
	switch name := key.String(); {
	case name == "ctrl+c":
		return tea.Quit
	case name == "ctrl+z":
		return tea.Suspend
	case m.typing:
		m.typed(key)
	case name == "q":
		return tea.Quit
	case name == "p":
		m.pause()
	case name == "?":
		m.help, m.scroll = !m.help, 0
	case m.help || m.detail != nil:
		m.read(name)
	default:
		return m.chose(name)
	}
	return nil
}

// typed changes the filter.
func (m *topModel) typed(key tea.KeyPressMsg) {
	l := m.list()
	switch key.String() {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, l.filter = false, ""
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(l.filter)
		l.filter = l.filter[:len(l.filter)-size]
	default:
		l.filter += key.Text
	}
}

// pause keeps the picture, or lets it go.
func (m *topModel) pause() {
	if m.paused != nil {
		m.paused = nil
		return
	}
	picture := m.live
	m.paused, m.pausedAt = &picture, m.heard
}

// read scrolls through help and details, or closes them.
func (m *topModel) read(name string) {
	switch name {
	case "esc", "enter":
		if m.help {
			m.help = false
		} else {
			m.detail = nil
		}
		m.scroll = 0
	default:
		m.scroll = max(0, min(m.scroll+m.steps(name), len(m.textLines())-m.page()))
	}
}

// steps is how many rows a key moves, 0 for one that does not.
func (m *topModel) steps(name string) int {
	const all = 1 << 30
	switch name {
	case "up", "k":
		return -1
	case "down", "j":
		return 1
	case "pgup":
		return -m.page()
	case "pgdown":
		return m.page()
	case "home":
		return -all
	case "end":
		return all
	}
	return 0
}

// chose does what a key means in a list.
func (m *topModel) chose(name string) tea.Cmd {
	switch name {
	case "tab", "right":
		m.pane = (m.pane + 1) % topPanes
	case "shift+tab", "left":
		m.pane = (m.pane + topPanes - 1) % topPanes
	case "enter":
		return m.open()
	case "esc":
		m.list().filter = ""
	case "/":
		m.typing = true
	case "s":
		m.list().order = (m.list().order + 1) % len(topOrders[m.pane])
	default:
		if by := m.steps(name); by != 0 {
			m.move(by)
		}
	}
	return nil
}
