package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// testAnswer is a look at a cluster of three.
func testAnswer() topAnswer {
	nodes := testNodes()
	status := &belfryv1.GetStatusResponse{ClusterName: "dev", NodeName: "a", NodesUp: 2, NodesTotal: 3, LinksUp: 1, LinksTotal: 2, Nodes: nodes}
	set(&status.Time, noon)
	set(&status.OldestFact, lasting(900*time.Millisecond))
	return topAnswer{at: noon, facts: &topFacts{status: status, links: testLinks()}}
}

// testTop is one of that size that has had an answer.
func testTop(width, height int) *topModel {
	m := newTopModel(testWatcher(formTable).classes, false)
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	answer := testAnswer()
	answer.events = testNotifications()
	m.Update(answer)
	return m
}

// press types keys by their names; what is not a name is typed letter by letter.
func press(m *topModel, keys ...string) (command tea.Cmd) {
	codes := map[string]tea.KeyPressMsg{
		"tab": {Code: tea.KeyTab}, "shift+tab": {Code: tea.KeyTab, Mod: tea.ModShift}, "enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape},
		"up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown}, "left": {Code: tea.KeyLeft}, "right": {Code: tea.KeyRight},
		"home": {Code: tea.KeyHome}, "end": {Code: tea.KeyEnd}, "pgup": {Code: tea.KeyPgUp}, "pgdown": {Code: tea.KeyPgDown},
		"backspace": {Code: tea.KeyBackspace}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "ctrl+z": {Code: 'z', Mod: tea.ModCtrl},
	}
	for _, key := range keys {
		if message, ok := codes[key]; ok {
			_, command = m.Update(message)
			continue
		}
		for _, r := range key {
			_, command = m.Update(tea.KeyPressMsg{Code: r, Text: string(r)})
		}
	}
	return command
}

func screen(m *topModel) string { return strings.Join(m.lines(), "\n") }

// TestTopLooksAsExpected shows each view once, small and large.
func TestTopLooksAsExpected(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{80, 24}, {200, 50}} {
		var all strings.Builder
		for _, view := range []struct {
			title string
			do    func(*topModel)
		}{
			{"nodes", func(*topModel) {}},
			{"links, worst first", func(m *topModel) { press(m, "tab", "s") }},
			{"events", func(m *topModel) { press(m, "tab", "tab", "down") }},
			{"an event", func(m *topModel) { press(m, "left", "end", "enter") }},
			{"events with a text, while it is typed", func(m *topModel) { press(m, "left", "/", "exit") }},
			{"stale", func(m *topModel) { m.Update(topAnswer{at: noon.Add(time.Minute), err: errors.New("no agent at /a")}) }},
			{"paused", func(m *topModel) { press(m, "p") }},
			{"no events", func(m *topModel) {
				answer := testAnswer()
				answer.eventsErr = errors.New("no right to register")
				m.Update(answer)
				press(m, "left")
			}},
			{"in colour", func(m *topModel) { m.colored = true }},
			{"help", func(m *topModel) { press(m, "?") }},
		} {
			m := testTop(size[0], size[1])
			view.do(m)
			lines := m.lines()
			if len(lines) != size[1] {
				t.Errorf("%s: %d lines, want %d", view.title, len(lines), size[1])
			}
			for _, line := range lines {
				if width := lipgloss.Width(line); width > size[0] {
					t.Errorf("%s: a line of %d columns, want at most %d: %s", view.title, width, size[0], line)
				}
			}
			fmt.Fprintf(&all, "== %s\n%s\n", view.title, strings.Join(lines, "\n"))
		}
		golden(t, filepath.Join("testdata", fmt.Sprintf("top_%dx%d.txt", size[0], size[1])), all.String())
	}
}

func TestTopFitsScreensOfEverySize(t *testing.T) {
	t.Parallel()
	m := testTop(80, 24)
	for height := range 12 {
		for _, width := range []int{0, 1, 7, 40} {
			m.Update(tea.WindowSizeMsg{Width: width, Height: height})
			press(m, "tab", "down", "down")
			if lines := m.lines(); len(lines) != max(1, height) {
				t.Errorf("%d × %d: %d lines", width, height, len(lines))
			}
		}
	}
}

// TestTopNeverShowsOldFactsAsNew: while no agent answers the first line says so
// on every view, nothing goes on counting and nothing is green.
func TestTopNeverShowsOldFactsAsNew(t *testing.T) {
	t.Parallel()
	m := testTop(80, 24)
	m.colored = true
	m.Update(topAnswer{at: noon.Add(2 * time.Second), err: context.DeadlineExceeded})
	for _, keys := range [][]string{{}, {"tab"}, {"tab"}, {"enter"}, {"p"}, {"esc"}, {"?"}} {
		press(m, keys...)
		if got := m.lines()[0]; !strings.Contains(got, "stale since 12:00:00: the agent does not answer") {
			t.Errorf("after %q the first line is %q", keys, got)
		}
	}
	press(m, "?", "p", "tab")
	if got := screen(m); !strings.Contains(got, "  b  ") || strings.Contains(got, "\x1b[32m") || !strings.Contains(got, "3m") {
		t.Errorf("stale nodes are not shown as they were, without colour:\n%s", got)
	}
	m.Update(testAnswer())
	if got := screen(m); strings.Contains(got, "stale") || !strings.Contains(got, "\x1b[32m") {
		t.Errorf("still stale after an answer:\n%s", got)
	}
}

func TestTopPauseKeepsThePicture(t *testing.T) {
	t.Parallel()
	m := testTop(80, 24)
	press(m, "p")
	before := m.lines()
	answer := testAnswer()
	answer.at = noon.Add(time.Second)
	answer.facts.status.Nodes = answer.facts.status.Nodes[:1]
	answer.events = testNotifications()
	m.Update(answer)
	if after := m.lines(); !slices.Equal(before, after) {
		t.Errorf("paused, and it went from\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	press(m, "p")
	if got := m.lines()[1]; !strings.Contains(got, "[nodes 1]  links 2   events 20") {
		t.Errorf("after the pause: %s", got)
	}
}

// TestTopKeepsTheSelectedRow: a selection is of a node, not of a place.
func TestTopKeepsTheSelectedRow(t *testing.T) {
	t.Parallel()
	m := testTop(80, 24)
	press(m, "down")
	for range topOrders[paneNodes] {
		press(m, "s")
		if got := screen(m); !strings.Contains(got, "\n> b ") {
			t.Errorf("sorted by %s, b is not selected:\n%s", m.order(), got)
		}
	}
	answer := testAnswer()
	answer.facts.status.Nodes = answer.facts.status.Nodes[1:]
	m.Update(answer)
	if got := screen(m); !strings.Contains(got, "\n> b ") {
		t.Errorf("without a, b is not selected:\n%s", got)
	}
}

// TestTopScrolls: 110 events on a small screen, the newest first; the first row
// stays selected when more come.
func TestTopScrolls(t *testing.T) {
	t.Parallel()
	m := testTop(80, 10)
	press(m, "tab", "tab")
	for range 10 {
		m.Update(topAnswer{at: noon, events: testNotifications()})
	}
	if rows := m.rows(); len(rows) != 110 || m.selected(rows) != 0 || m.list().top != 0 {
		t.Fatalf("%d rows, row %d selected, row %d on top; want 110, 0, 0", len(rows), m.selected(rows), m.list().top)
	}
	for _, step := range []struct {
		key           string
		selected, top int
	}{{"down", 1, 0}, {"pgdown", 7, 2}, {"end", 109, 104}, {"up", 108, 104}, {"pgup", 102, 102}, {"home", 0, 0}} {
		press(m, step.key)
		if rows := m.rows(); m.selected(rows) != step.selected || m.list().top != step.top {
			t.Errorf("after %s row %d is selected and row %d on top; want %d, %d", step.key, m.selected(rows), m.list().top, step.selected, step.top)
		}
	}
}

func TestTopKeepsTheNewestEvents(t *testing.T) {
	t.Parallel()
	m := testTop(80, 24)
	for range 2 * topEvents / 10 {
		m.Update(topAnswer{at: noon, events: testNotifications()})
	}
	if got := m.live.events; len(got) != topEvents || got[len(got)-1].number != 2*topEvents+10 {
		t.Errorf("%d events, the last is number %d; want %d, %d", len(got), got[len(got)-1].number, topEvents, 2*topEvents+10)
	}
}

func TestTopFilters(t *testing.T) {
	t.Parallel()
	m := testTop(80, 24)
	count := func() int { return len(m.rows()) }
	press(m, "/", "DOWNq")
	if count() != 0 || !strings.Contains(screen(m), "none has this text") {
		t.Errorf("%d nodes with downq:\n%s", count(), screen(m))
	}
	press(m, "backspace", "enter")
	if count() != 1 {
		t.Errorf("%d nodes with down, want c", count())
	}
	if press(m, "tab"); count() != 2 {
		t.Errorf("the filter of the nodes counts for links too")
	}
	if press(m, "shift+tab", "esc"); count() != 3 {
		t.Errorf("Esc does not show all again")
	}
	press(m, "/", "backspace", "a", "esc")
	if count() != 3 || m.typing {
		t.Errorf("Esc does not end typing")
	}
}

// TestTopDetailsAreAskedFor: when they are opened and with each answer, and
// those that come too late are dropped.
func TestTopDetailsAreAskedFor(t *testing.T) {
	t.Parallel()
	m := testTop(80, 24)
	var asked []topTarget
	m.fetch = func(target topTarget) tea.Cmd {
		asked = append(asked, target)
		return nil
	}
	b := topTarget{paneNodes, "b"}
	press(m, "down", "enter")
	m.Update(topDetails{target: b, lines: []string{"all of b"}})
	m.Update(topDetails{target: topTarget{paneNodes, "c"}, lines: []string{"of another"}})
	if got := screen(m); !strings.Contains(got, "all of b") || strings.Contains(got, "of another") {
		t.Errorf("details of b:\n%s", got)
	}
	m.Update(testAnswer())
	m.Update(topDetails{target: b, err: errors.New("gone")})
	if got := screen(m); !strings.Contains(got, "all of b") || !strings.Contains(got, "stale: gone") {
		t.Errorf("details that could not be renewed:\n%s", got)
	}
	press(m, "esc")
	m.Update(topDetails{target: b, lines: []string{"too late"}})
	if got := screen(m); strings.Contains(got, "too late") || !strings.Contains(got, "\n> b ") {
		t.Errorf("after Esc:\n%s", got)
	}
	if !slices.Equal(asked, []topTarget{b, b}) {
		t.Errorf("asked for %v, want b twice", asked)
	}
}

func TestTopEnds(t *testing.T) {
	t.Parallel()
	for _, keys := range [][]string{{"q"}, {"ctrl+c"}, {"/", "ctrl+c"}, {"?", "q"}, {"enter", "q"}} {
		command := press(testTop(80, 24), keys...)
		if command == nil {
			t.Errorf("%q does not end it", keys)
			continue
		}
		if _, ok := command().(tea.QuitMsg); !ok {
			t.Errorf("%q gives %T", keys, command())
		}
	}
	if command := press(testTop(80, 24), "/", "q"); command != nil {
		t.Errorf("q ends it while a filter is typed")
	}
}
