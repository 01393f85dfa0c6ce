package api

import (
	"slices"

	"github.com/belfry-ha/belfry"
)

// Skipped is how many occurrences of an event the rules of a registration refused
// in the past, after the last one that was told.
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
	if len(s) == 0 || n.Entry == 0 || n.Kind != belfry.KindOccurrence && n.Kind != belfry.KindGap {
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
		if n.Last <= one.Last {
			return false // the past had it
		}
		covered := n.Count + n.Skipped
		if n.Gap != nil {
			covered += n.Gap.Total
		}
		whole := n.Last - (one.Last - min(one.Count, one.Last))
		missing = min(missing, whole-min(covered, whole))
	}
	one.batch = batch
	s[key] = one
	n.Skipped += missing + one.before
	return true
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
