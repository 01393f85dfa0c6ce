// Package producer holds the interface between the event machine and the
// watchers of the operating system, and the runner that starts each of them
// only while somebody is registered for one of its classes.
//
// Each producer lives in a folder of its own below this one; copy the
// smallest to add another. They pass [producertest.Run].
package producer

import (
	"context"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
)

// A Producer posts occurrences of its classes. It holds no reference to the
// machine: what it learns leaves through send.
type Producer interface {
	// Name is the folder's name; it is the subject of producer.failed.
	Name() string

	// Classes are what it serves. The result never changes.
	Classes() []belfry.ClassInfo

	// Run serves watches until ctx ends, then returns nil after it has closed
	// everything that it opened. It begins when the first watch of one of its
	// classes is asked for and is cancelled after the last has ended, so an
	// idle producer holds no descriptor and no goroutine. An error or a panic
	// is posted as producer.failed; Run is called again with the watches that
	// still stand.
	Run(ctx context.Context, requests <-chan Request, send Send) error
}

// A SubjectChecker is a Producer whose subjects have a form. Exact subjects are
// checked when they are registered, on the consumer's node and before anything
// is started, so that a slip of the pen is refused at once also where the event
// itself may come later or elsewhere.
type SubjectChecker interface {
	// CheckSubject refuses with ErrUsage what can never name an event of the
	// class. It is pure: it looks at nothing but its arguments.
	CheckSubject(class belfry.Class, subject string) error
}

// A Sourced producer has several ways to find out, of which it takes the best that
// it is allowed.
type Sourced interface {
	// Source is the way that it takes now, and why no better one, for people; empty
	// while it takes none. Safe for concurrent use.
	Source() string
}

// Send hands messages to the event machine, in order. It may wait while the
// machine's input is full, which stops this producer and nobody else; it
// fails only when ctx has ended. It is safe for concurrent use.
type Send func(...event.Message) error

// A Request begins or changes a watch, or ends one. Exactly one field is set.
type Request struct {
	Watch   *event.Watch
	Unwatch event.WatchID
}
