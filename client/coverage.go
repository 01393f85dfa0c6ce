package client

import (
	"errors"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// CoverageState says whether a node's events reach a registration.
type CoverageState uint8

// The states of coverage.
const (
	CoveragePending CoverageState = iota
	CoverageInstalled
	CoverageRefused
	CoverageUnreachable
)

// String is the word that listings use.
func (s CoverageState) String() string {
	switch s {
	case CoveragePending:
		return "pending"
	case CoverageInstalled:
		return "installed"
	case CoverageRefused:
		return "refused"
	default:
		return "unreachable"
	}
}

// Coverage is the state of a cluster registration at one node.
type Coverage struct {
	Node     belfry.NodeID
	NodeName string
	State    CoverageState
	Since    time.Time // of the state; zero: the agent's own node, or one never heard of
	Err      error     // of CoverageRefused: why; the answer to Register has its sentinel
}

// Registered is the answer to a registration that is in force.
type Registered struct {
	Number   uint32     // in every notification of it
	Coverage []Coverage // scope cluster only
}

func registeredOf(p *belfryv1.Registered) Registered {
	r := Registered{Number: p.GetNumber()}
	for _, c := range p.GetCoverage() {
		one := Coverage{NodeName: c.GetNodeName()}
		if c.GetSince() != nil {
			one.Since = c.GetSince().AsTime()
		}
		one.Node, _ = belfry.ParseNodeID(c.GetNodeId()) // zero where it is not one
		switch c.GetState() {
		case belfryv1.CoverageState_COVERAGE_STATE_INSTALLED:
			one.State = CoverageInstalled
		case belfryv1.CoverageState_COVERAGE_STATE_REFUSED:
			one.State = CoverageRefused
		case belfryv1.CoverageState_COVERAGE_STATE_UNREACHABLE:
			one.State = CoverageUnreachable
		}
		if c.GetRefusal() != nil {
			one.Err = refusal(c.GetRefusal())
		}
		r.Coverage = append(r.Coverage, one)
	}
	return r
}

// Coverage is where a registration of scope cluster is in force, and which nodes
// refuse it: the answer to Register, with every change that Next has returned
// since as a notification of [belfry.KindCoverage]. It is nil for an unknown
// number. The nodes stand in the order in which they were heard of.
func (s *Stream) Coverage(number uint32) []Coverage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.wishes[number]; w != nil {
		return slices.Clone(w.coverage)
	}
	return nil
}

// learn takes what a notification says of a node. It tells whether that is new.
func (s *Stream) learn(n *belfry.Notification) bool {
	now := Coverage{Node: n.Node, NodeName: n.NodeName, State: CoverageState(n.Code), Since: n.Time}
	if n.Reason != "" {
		now.Err = errors.New(n.Reason)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.wishes[n.Registration]
	if w == nil {
		return true
	}
	i := slices.IndexFunc(w.coverage, func(c Coverage) bool { return c.Node == n.Node })
	if i < 0 {
		w.coverage = append(w.coverage, now)
		return true
	}
	before := w.coverage[i]
	w.coverage[i] = now
	return before.State != now.State || before.reason() != n.Reason
}

func (c *Coverage) reason() string {
	if c.Err == nil {
		return ""
	}
	return c.Err.Error()
}

// coverageAgain is what an agent answers to a registration that was in force
// before at another agent, or before that agent was restarted: it will not
// say in-band what is in its answer. That a node is being asked is no news.
func coverageAgain(number uint32, r belfry.Registration, all []Coverage, now time.Time) (list []belfry.Notification) {
	for i := range all {
		c := &all[i]
		if c.State == CoveragePending {
			continue
		}
		n := belfry.Notification{
			Kind: belfry.KindCoverage, Registration: number, Node: c.Node, NodeName: c.NodeName,
			Event:     belfry.EventID{Class: belfry.Class(r.Class), Subject: r.Subject},
			FirstTime: now, Time: now, Code: int32(c.State), Edge: belfry.EdgeFailing, Reason: c.reason(),
		}
		if c.State == CoverageInstalled {
			n.Edge = belfry.EdgeRecovered
		}
		if !c.Since.IsZero() {
			n.FirstTime, n.Time = c.Since, c.Since
		}
		list = append(list, n)
	}
	return list
}
