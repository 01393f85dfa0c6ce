// Package event is the core of Belfry's events: it takes what producers saw,
// what consumers want and what peers say, and gives out what to watch, what to
// deliver and what to tell other nodes. DESIGN.md in this folder gives the
// reasons.
//
// It is pure: no clock, no goroutine, no lock, no I/O. A [Machine] is not safe
// for concurrent use; its driver owns it.
package event
