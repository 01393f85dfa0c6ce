// Package sink is where notifications leave the cluster: what a sink is, and
// the runner that takes a handler's notifications to it, in order, once per
// sequence number and one at a time per event (events.md 10).
package sink

import (
	"context"
	"errors"
	"time"

	"github.com/belfry-ha/belfry"
)

// A Sink takes one notification somewhere. Deliver is called by several
// goroutines, but never twice at once for one event.
type Sink interface {
	// Deliver returns nil when it is done. An error from [Permanent] makes a
	// dead letter at once, any other is tried again. It returns soon after ctx
	// has ended.
	Deliver(ctx context.Context, d *Delivery) error
}

// A Delivery is one attempt to deliver one notification.
type Delivery struct {
	Handler      string
	Cluster      string // name, for CloudEvents
	Attempt      int    // 1 is the first
	Notification belfry.Notification

	// Output and Exit are for the run history; the sink sets them.
	Output []byte
	Exit   *int // exit status of a command that ended by itself
}

// Begun names the run that a Delivery is.
func (d *Delivery) Begun() Begun {
	return Begun{Handler: d.Handler, Key: KeyOf(&d.Notification), Number: d.Notification.Last, Attempt: d.Attempt}
}

// A Begun names one run of a handler on one node.
type Begun struct {
	Handler string
	Key     Key
	Number  uint64 // the last one of its notification
	Attempt int
}

// A Leaver is a Sink whose runs may go on when the process has died that began
// them.
type Leaver interface {
	// EndLeft returns when nothing of the run goes on any more, or with ctx.
	EndLeft(ctx context.Context, r Begun) error
}

// permanent is a failure that another attempt would not mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Permanent marks an error as one that another attempt would not mend.
func Permanent(err error) error { return permanent{err} }

// IsPermanent tells whether an error is marked so.
func IsPermanent(err error) bool {
	var p permanent
	return errors.As(err, &p)
}

// A Source is a consumer of the event machine with one notification per event
// at a time.
type Source interface {
	// Next waits for a notification; number is for Done. io.EOF: every
	// registration has ended.
	Next(ctx context.Context) (number uint64, n belfry.Notification, err error)
	// Done lets the next one of the same event come. It is safe for concurrent use.
	Done(number uint64)
}

// A Key names what numbers are of: an event as one incarnation of its node's
// agent tells of it. A gap over several events has the zero Key.
type Key struct {
	Node        belfry.NodeID
	Incarnation belfry.Incarnation
	Entry       uint64
}

// KeyOf is the key of a notification's event.
func KeyOf(n *belfry.Notification) Key {
	if n.Event.Class == "" {
		return Key{}
	}
	return Key{n.Node, n.Incarnation, n.Entry}
}

// An Event names what one run at a time is about, whatever incarnation of its
// node's agent tells of it: what a former one told is a run as well. A gap over
// several events has the zero Event.
type Event struct {
	Node    belfry.NodeID
	Class   belfry.Class
	Subject string
}

// EventOf is the event of a notification.
func EventOf(n *belfry.Notification) Event {
	if n.Event.Class == "" {
		return Event{}
	}
	return Event{n.Node, n.Event.Class, n.Event.Subject}
}

// A Result says how a run ended.
type Result string

// The results of a run.
const (
	ResultDone  Result = "done"
	ResultRetry Result = "retry" // it failed, and is tried again
	ResultDead  Result = "dead"  // it failed for good: a dead letter
	ResultOther Result = "other" // another node ran it
)

// A Run is one attempt in the history.
type Run struct {
	ID           uint64 // grows, over all handlers of this node
	Handler      string
	Notification belfry.Notification
	Attempt      int
	Started      time.Time
	Took         time.Duration
	Result       Result
	Error        string
	Exit         *int
	Output       []byte // the first of it, at most MaxOutput bytes
}

// MaxOutput is how many bytes of a run's output the history keeps.
const MaxOutput = 64 << 10
