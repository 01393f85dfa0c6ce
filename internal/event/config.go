package event

import "github.com/belfry-ha/belfry"

// Config holds the values and the pure functions that a Machine needs.
type Config struct {
	Node        belfry.NodeID
	Name        string // of the node, as notifications carry it
	Incarnation belfry.Incarnation

	// Classes are all classes that this agent's producers serve.
	Classes []belfry.ClassInfo

	// Compile turns a filter expression into a function. It must be pure. Nil
	// refuses every filter with ErrUnsupported.
	Compile func(class, expression string) (Filter, error)

	// LooksAtData tells whether a filter expression asks for what differs in
	// occurrences that merge: the data or the value. It must be pure. Nil takes
	// every expression for one.
	LooksAtData func(expression string) bool

	// CheckSubject refuses a subject that is not in the form of its class, before
	// anything is started. It must be pure. Nil leaves it to the producers.
	CheckSubject func(class belfry.Class, subject string) error

	// Former is what an earlier life of this node recorded of other nodes' events.
	Former []Former

	// Runs is how many runs an entry keeps: 2 to 256; zero means 16.
	Runs int

	// Registrations is the most registrations of all consumers together; zero
	// means 1,000,000.
	Registrations int
}

// A Filter decides whether a notification is wanted. An error counts as no
// and is reported once per registration.
type Filter func(*belfry.Notification) (bool, error)
