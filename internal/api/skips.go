package api

import (
	"slices"

	"github.com/belfry-ha/belfry"
)

// Skipped is how many occurrences of an event the rules of a registration refused
// in the past, after the last one that was told or counted.
type Skipped struct {
	Node        belfry.NodeID
	Incarnation belfry.Incarnation
	Entry       uint64
	Class       belfry.Class
	Subject     string
	Count       uint64
	Last        uint64 // number of the last one
}

type skipsKey struct {
	registration uint32
	node         belfry.NodeID
	class        belfry.Class
	subject      string
}

type skip struct {
	Skipped
	before uint64 // under older numbers
	batch  uint64 // in which it was told, which may be sent again; 0: in none
}

// Skips keep what was skipped at the end of the past, for the next notification of
// the event, also where the agent of its node tells of it under new numbers since.
type Skips map[skipsKey]skip

// Add takes up what the past of a registration ended with.
func (s Skips) Add(registration uint32, all []Skipped) {
	for _, one := range all {
		key := skipsKey{registration, one.Node, one.Class, one.Subject}
		was := s[key]
		if was.Incarnation > one.Incarnation || was.Incarnation == one.Incarnation && was.Entry > one.Entry {
			was.before += one.Count
		} else {
			was.before += was.Count
			was.Skipped = one
		}
		s[key] = was
	}
}

// forget ends the memory of a registration; its number may be given anew.
func (s Skips) forget(registration uint32) {
	for key := range s {
		if key.registration == registration {
			delete(s, key)
		}
	}
}

// Into adds to n what was skipped before it. What happened between the
// registration and the end of the past is in both, and is counted once.
func (s Skips) Into(registration uint32, batch uint64, n *belfry.Notification) bool {
	if len(s) == 0 || n.Entry == 0 || !accounts(n.Kind) {
		return false
	}
	key := skipsKey{registration, n.Node, n.Event.Class, n.Event.Subject}
	one, ok := s[key]
	if !ok {
		return false
	}
	if one.batch != 0 && one.batch != batch {
		delete(s, key)
		return false
	}
	missing := one.Count
	if n.Entry == one.Entry && n.Incarnation == one.Incarnation {
		began := one.Last - min(one.Count, one.Last)
		if n.Last <= one.Last { // the past had it
			if n.Count == 0 && n.Gap == nil { // but this is news: that it flaps
				n.Skipped -= min(n.Skipped, began-min(began, n.Last-min(n.Last, n.Skipped)))
			}
			return false
		}
		whole := n.Last - began
		if covered := accounted(n); covered > whole { // the past counted it
			curtail(n, covered-whole)
			missing, n.First = 0, max(n.First, one.Last+1)
		} else {
			missing = min(missing, whole-covered)
		}
	}
	one.batch = batch
	s[key] = one
	n.Skipped += missing + one.before
	return true
}

// accounts tells whether notifications of a kind say what was refused before them.
func accounts(kind belfry.Kind) bool {
	switch kind {
	case belfry.KindOccurrence, belfry.KindGap, belfry.KindFlapping, belfry.KindSettled:
		return true
	}
	return false
}

// accounted is how many occurrences n stands for, with those that were refused.
func accounted(n *belfry.Notification) uint64 {
	all := n.Count + n.Skipped
	if n.Gap != nil {
		all += n.Gap.Total
	}
	return all
}

// curtail takes the oldest off what n stands for, first of what was refused.
func curtail(n *belfry.Notification, excess uint64) {
	skipped := min(excess, n.Skipped)
	n.Skipped -= skipped
	excess -= skipped
	if n.Gap == nil {
		n.Count -= min(excess, n.Count)
		return
	}
	gap := *n.Gap // others have it as well
	gap.Total -= min(excess, gap.Total)
	n.Gap = &gap
}

// intoAll is Into for a batch, which may be another consumer's as well.
func (s Skips) intoAll(batch uint64, all []belfry.Notification) []belfry.Notification {
	if len(s) == 0 {
		return all
	}
	all = slices.Clone(all)
	for i := range all {
		s.Into(all[i].Registration, batch, &all[i])
	}
	return all
}
