package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// clusterRegistrationView is what is asked of other nodes in JSON.
type clusterRegistrationView struct {
	Number    uint32         `json:"number" doc:"of the node that asks, never used again"`
	Class     string         `json:"class" doc:"class or pattern of classes"`
	Subject   string         `json:"subject" doc:"what the user named; may be a pattern"`
	Consumers []askerView    `json:"consumers" doc:"who is registered"`
	Coverage  []coverageView `json:"coverage" doc:"where it is in force: one for each other node that is asked, by name"`
}

// askerView is one consumer of what is asked of other nodes in JSON.
type askerView struct {
	Kind         string `json:"kind" doc:"stream or handler"`
	Name         string `json:"name" doc:"process or handler"`
	Registration uint32 `json:"registration" doc:"the consumer's own number"`
}

// coverageView is one node that is asked in JSON.
type coverageView struct {
	Node   string   `json:"node" doc:"name of the node"`
	NodeID string   `json:"node_id" doc:"UUID of the node"`
	State  string   `json:"state" doc:"pending, installed, refused or unreachable"`
	Since  *instant `json:"since" doc:"when the state began; null: the node was never heard of"`
	Code   *string  `json:"code" doc:"of a refusal, for example UNSUPPORTED; else null"`
	Reason *string  `json:"reason" doc:"of a refusal: why, and what would be right; else null"`
}

// The words of the states, those that need somebody first.
var coverageWords = []struct {
	state belfryv1.CoverageState
	word  string
	color color
}{
	{belfryv1.CoverageState_COVERAGE_STATE_REFUSED, "refused", red},
	{belfryv1.CoverageState_COVERAGE_STATE_UNREACHABLE, "unreachable", yellow},
	{belfryv1.CoverageState_COVERAGE_STATE_PENDING, "pending", plain},
	{belfryv1.CoverageState_COVERAGE_STATE_INSTALLED, "installed", green},
}

// coverageTable has a row for each registration and state. Nodes of which the
// same is to be said share one: those that have it in force, and those that
// ceased to together, for one reason.
func coverageTable(o *output, list []*belfryv1.ClusterRegistration, now time.Time, wide bool) {
	heads := "COVERAGE NODES EVENT CONSUMERS REASON"
	if wide {
		heads = "NUMBER " + heads
	}
	t := newTable(heads)
	for _, w := range coverageWords {
		for _, r := range list {
			for _, g := range coverageGroups(r, w.state) {
				name, state := selector{class: r.GetClass(), subject: r.GetSubject()}, w.word
				if !g.since.IsZero() {
					state += " " + sinceText(now, g.since)
				}
				row := []cell{
					{state, w.color},
					{text: strings.Join(g.nodes, ", ")},
					{text: name.String()},
					{text: consumers(r.GetConsumers())},
					{text: g.reason},
				}
				if wide {
					row = append([]cell{{text: strconv.FormatUint(uint64(r.GetNumber()), 10)}}, row...)
				}
				t.addCells(row...)
			}
		}
	}
	t.write(o)
}

// coverageGroup are nodes of which the same is to be said.
type coverageGroup struct {
	reason string
	since  time.Time // of the first one; zero: never heard of, or in force
	nodes  []string
}

// takes tells whether one more node belongs to the group.
func (g *coverageGroup) takes(reason string, since time.Time) bool {
	return g.reason == reason && g.since.IsZero() == since.IsZero() && g.since.Sub(since).Abs() < time.Second
}

// coverageGroups are those of one state.
func coverageGroups(r *belfryv1.ClusterRegistration, state belfryv1.CoverageState) (groups []coverageGroup) {
	for _, c := range r.GetCoverage() {
		if c.GetState() != state {
			continue
		}
		since, reason := when(c.GetSince()), c.GetRefusal().GetMessage()
		if state == belfryv1.CoverageState_COVERAGE_STATE_INSTALLED {
			since = time.Time{}
		}
		i := slices.IndexFunc(groups, func(g coverageGroup) bool { return g.takes(reason, since) })
		if i < 0 {
			i = len(groups)
			groups = append(groups, coverageGroup{reason: reason, since: since})
		}
		groups[i].nodes = append(groups[i].nodes, c.GetNodeName())
	}
	for _, g := range groups {
		slices.Sort(g.nodes)
	}
	return groups
}

func viewOfClusterRegistrations(list []*belfryv1.ClusterRegistration) []clusterRegistrationView {
	views := []clusterRegistrationView{}
	for _, r := range list {
		view := clusterRegistrationView{
			Number: r.GetNumber(), Class: r.GetClass(), Subject: r.GetSubject(),
			Consumers: []askerView{}, Coverage: []coverageView{},
		}
		for _, c := range r.GetConsumers() {
			view.Consumers = append(view.Consumers, askerView{Kind: c.GetKind(), Name: c.GetName(), Registration: c.GetRegistration()})
		}
		for _, c := range r.GetCoverage() {
			one := coverageView{Node: c.GetNodeName(), NodeID: c.GetNodeId(), Since: jsonTime(when(c.GetSince()))}
			for _, w := range coverageWords {
				if w.state == c.GetState() {
					one.State = w.word
				}
			}
			if refusal := c.GetRefusal(); refusal != nil {
				one.Code, one.Reason = new(refusal.GetCode()), new(refusal.GetMessage())
			}
			view.Coverage = append(view.Coverage, one)
		}
		slices.SortStableFunc(view.Coverage, func(a, b coverageView) int { return strings.Compare(a.Node, b.Node) })
		views = append(views, view)
	}
	return views
}
