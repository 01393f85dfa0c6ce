package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/cloudevents"
)

// notificationView is a notification in JSON: one line of watch.
type notificationView struct {
	Kind          string         `json:"kind" doc:"occurrence, state, already, gap, coverage or ended"`
	Registration  uint32         `json:"registration" doc:"which selector of the command line, from 1"`
	Node          string         `json:"node" doc:"name of the node where it happened"`
	NodeID        string         `json:"node_id" doc:"UUID of the node; empty for a gap over several"`
	Incarnation   uint32         `json:"incarnation" doc:"of that node; entry and sequence count within it"`
	Entry         uint64         `json:"entry" doc:"number of the event at its node"`
	Class         string         `json:"class" doc:"class of the event"`
	Subject       string         `json:"subject" doc:"what was named"`
	Instance      string         `json:"instance" doc:"what that is now, for example pid@starttime"`
	Sequence      uint64         `json:"sequence" doc:"number of the last occurrence it covers"`
	FirstSequence uint64         `json:"first_sequence" doc:"number of the first"`
	Count         uint64         `json:"count" doc:"how many occurrences it stands for; of a gap: how many were lost"`
	Skipped       uint64         `json:"skipped" doc:"occurrences that the registration's own rules refused since the last one"`
	FirstTime     *instant       `json:"first_time" doc:"time of the oldest occurrence"`
	Time          *instant       `json:"time" doc:"time of the newest occurrence"`
	Code          int32          `json:"code" doc:"meaning by class; 0 where a class has no codes"`
	Edge          *string        `json:"edge" doc:"failing or recovered; null: neither"`
	Value         *float64       `json:"value" doc:"of value classes, in the class's unit; else null"`
	LowerBound    bool           `json:"lower_bound" doc:"the source may have merged occurrences: count is the least"`
	Data          map[string]any `json:"data" doc:"fields of the class, of the newest occurrence; null: can not be read"`
	Cursor        string         `json:"cursor" doc:"watch --since with it goes on after this one; empty: not known"`
	Gap           *gapView       `json:"gap" doc:"of kind gap; else null"`
	Reason        string         `json:"reason" doc:"of kind coverage: why the node refuses to deliver; else empty"`
}

// gapView is what a gap says in JSON.
type gapView struct {
	Known  bool     `json:"known" doc:"count is exact; else nobody can know it"`
	Resync bool     `json:"resync" doc:"the present states follow"`
	Reason string   `json:"reason" doc:"slow, overflow, not-monitored, journal, link or merged"`
	From   *instant `json:"from" doc:"begin of the time it covers"`
	To     *instant `json:"to" doc:"its end"`
}

// print writes n in the form that -o chose, in one line but for yaml.
func (w *watcher) print(n *belfry.Notification) error {
	switch w.form {
	case formCloudEvents:
		fmt.Fprintf(w.out, "%s\n", cloudevents.Append(nil, w.cluster, n))
		return nil
	case formJSON, formJSONL:
		return w.out.json(w.view(n), "")
	case formYAML:
		fmt.Fprintln(w.out, "---")
		return w.out.yaml(w.view(n))
	}
	fmt.Fprintln(w.out, w.line(n, w.form == formWide))
	return nil
}

func (w *watcher) view(n *belfry.Notification) notificationView {
	data, err := cloudevents.Fields(n.Event.Class, n.Data)
	if err != nil {
		data = nil // null, so that it is not taken for no data
	}
	v := notificationView{
		Kind: n.Kind.String(), Registration: n.Registration, Node: w.nodeName(n),
		Incarnation: uint32(n.Incarnation), Entry: n.Entry, Class: string(n.Event.Class), Subject: n.Event.Subject, Instance: n.Event.Instance,
		Sequence: n.Last, FirstSequence: n.First, Count: countOf(n), Skipped: n.Skipped,
		FirstTime: jsonTime(n.FirstTime), Time: jsonTime(n.Time), Code: n.Code, LowerBound: n.LowerBound, Data: data, Reason: n.Reason,
		Cursor: w.cursor.String(),
	}
	if !n.Node.IsZero() {
		v.NodeID = n.Node.String()
	}
	if n.Edge != belfry.EdgeNone {
		v.Edge = new(n.Edge.String())
	}
	if w.unitOf(n) != "" && n.Kind != belfry.KindGap {
		v.Value = new(n.Value)
	}
	if g := n.Gap; g != nil {
		v.Gap = &gapView{Known: g.Known, Resync: g.Resync, Reason: g.Reason.String(), From: jsonTime(g.From), To: jsonTime(g.To)}
	}
	return v
}

// line is TIME NODE CLASS SUBJECT seq LAST xCOUNT KEY=VALUE…, or the line of a
// gap. What does not stand for occurrences has its kind in place of xCOUNT.
func (w *watcher) line(n *belfry.Notification, wide bool) string {
	if n.Kind == belfry.KindGap {
		return w.gapLine(n)
	}
	parts := []string{w.timeOf(n, wide), printable(w.nodeName(n)), string(n.Event.Class), subjectText(n)}
	if wide && n.Event.Instance != "" {
		parts = append(parts, "instance="+fieldValue(n.Event.Instance))
	}
	parts = append(parts, fmt.Sprintf("seq %d", n.Last))
	switch {
	case n.Kind == belfry.KindSettled:
		parts = append(parts, fmt.Sprintf("settled, %d silenced", n.Skipped))
	case n.Kind == belfry.KindCoverage:
		parts = append(parts, strings.TrimSuffix("coverage "+client.CoverageState(n.Code).String()+": "+printable(n.Reason), ": "))
	case n.Kind != belfry.KindOccurrence:
		parts = append(parts, n.Kind.String())
	case n.LowerBound:
		parts = append(parts, fmt.Sprintf("x≥%d", n.Count))
	default:
		parts = append(parts, fmt.Sprintf("x%d", n.Count))
	}
	if fields := w.fields(n, wide); len(fields) > 0 {
		parts = append(parts, strings.Join(fields, " "))
	}
	return strings.Join(parts, "  ")
}

func (w *watcher) gapLine(n *belfry.Notification) string {
	lost := "an unknown number of occurrences"
	if n.Gap.Known {
		lost = plural(n.Gap.Total, "occurrence")
	}
	if n.Gap.Known && n.LowerBound {
		lost = "at least " + lost
	}
	reason := n.Gap.Reason.String()
	if n.Gap.Reason == belfry.GapJournal && n.Event.Class != "" { // there is one for each event
		reason += ": " + printable(selector{class: string(n.Event.Class), subject: n.Event.Subject}.String())
	}
	return fmt.Sprintf("-- gap: %s lost on %s (%s)", lost, printable(w.nodeName(n)), reason)
}

func (w *watcher) timeOf(n *belfry.Notification, wide bool) string {
	switch {
	case n.Time.IsZero():
		return "-"
	case wide:
		return n.Time.Local().Format("2006-01-02T15:04:05.000000Z07:00")
	}
	return clock(n.Time)
}

// nodeName is the node of n; a gap over several events is this node's.
func (w *watcher) nodeName(n *belfry.Notification) string {
	switch {
	case n.NodeName != "":
		return n.NodeName
	case !n.Node.IsZero():
		return n.Node.String()
	}
	return w.node
}

func subjectText(n *belfry.Notification) string {
	if n.Event.Subject == "" {
		return "-"
	}
	return printable(n.Event.Subject)
}

// unitOf is the unit of a value class; empty for others.
func (w *watcher) unitOf(n *belfry.Notification) string {
	for _, info := range w.classes {
		if info.GetClass() == string(n.Event.Class) {
			return info.GetUnit()
		}
	}
	return ""
}

// countOf is how many occurrences n stands for, lost ones included.
func countOf(n *belfry.Notification) uint64 {
	if n.Gap != nil {
		return n.Gap.Total
	}
	return n.Count
}

// mainFields are what a line shows of a class, in this order; -o wide shows
// all. Classes that are not named here show all they have.
var mainFields = map[belfry.Class][]string{
	"adapter.added":    {"what", "interface"},
	"adapter.removed":  {"what", "interface"},
	"adapter.state":    {"from", "to", "reason"},
	"address.added":    {"interface", "address", "prefix", "peer"},
	"address.removed":  {"interface", "address", "prefix", "peer"},
	"cpu.wait":         {"slices"},
	"dir.modify":       {"what", "name"},
	"disk.state":       {"from", "to", "reason"},
	"file.attribute":   {"what", "mode", "uid", "gid"},
	"file.modify":      {"what"},
	"filesystem.usage": {"free_bytes"},
	"link.state":       {"from", "to", "reason"},
	"memory.wait":      {"stalls"},
	"node.state":       {"from", "to", "cause"},
	"paging.wait":      {"some_seconds", "full_seconds"},
	"pressure.cpu":     {"method", "window_seconds"},
	"pressure.io":      {"method", "window_seconds"},
	"pressure.memory":  {"method", "window_seconds"},
	"process.exit":     {"pid", "exit_code", "signal", "core_dumped"},
	"producer.failed":  {"reason", "restarts"},
	"sysctl.change":    {"old", "new"},
	"timer.fire":       {"missed"},
	"unit.state":       {"active", "sub", "result", "unit"},
}

// fields are the KEY=VALUE of a line.
func (w *watcher) fields(n *belfry.Notification, wide bool) (fields []string) {
	if unit := w.unitOf(n); unit != "" {
		fields = append(fields, "value="+valueText(n.Value, unit))
		if n.Edge != belfry.EdgeNone {
			fields = append(fields, "edge="+n.Edge.String())
		}
	}
	if wide {
		fields = append(fields, wideFields(n)...)
	}
	data, err := cloudevents.Fields(n.Event.Class, n.Data)
	if err != nil {
		return append(fields, "data=unreadable")
	}
	names, chosen := mainFields[n.Event.Class]
	if !chosen || wide {
		names = slices.Sorted(maps.Keys(data))
	}
	for _, name := range names {
		value, ok := data[name]
		if ok && (!chosen || value != "" && value != false) {
			fields = append(fields, name+"="+dataText(name, value))
		}
	}
	return fields
}

func wideFields(n *belfry.Notification) (fields []string) {
	if n.Count > 0 && n.First < n.Last {
		fields = append(fields, fmt.Sprintf("first=%d", n.First), "first_time="+n.FirstTime.Local().Format("15:04:05.000000"))
	}
	if n.Skipped > 0 {
		fields = append(fields, fmt.Sprintf("skipped=%d", n.Skipped))
	}
	if n.Code != 0 {
		fields = append(fields, fmt.Sprintf("code=%d", n.Code))
	}
	return fields
}

// valueText is a value in its unit, as --over takes it.
func valueText(v float64, unit string) string {
	if unit == "bytes" {
		return number(v) + "B"
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + unit
}

// dataText is a value of a notification's data; what is called …_since is a time
// in nanoseconds, 0 for none.
func dataText(name string, value any) string {
	switch value := value.(type) {
	case string:
		return fieldValue(value)
	case float64:
		return number(value)
	case int:
		switch {
		case !strings.HasSuffix(name, "_since"):
			return strconv.Itoa(value)
		case value == 0:
			return "-"
		}
		return time.Unix(0, int64(value)).Local().Format("15:04:05.000")
	case bool:
		return fmt.Sprint(value)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return "unreadable"
	}
	return string(text)
}

// nameOf is what a message says of n: its event and number, or that it is a gap.
func nameOf(n *belfry.Notification) string {
	if n.Kind == belfry.KindGap {
		return "a gap"
	}
	s := selector{class: string(n.Event.Class), subject: n.Event.Subject}
	return fmt.Sprintf("seq %d of %s", n.Last, printable(s.String()))
}
