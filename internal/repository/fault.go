package repository

import (
	"fmt"

	"github.com/belfry-ha/belfry"
)

// A Fault says more exactly than the sentinel it wraps why the repository did
// not do what was asked. Compare with errors.Is.
type Fault uint8

// The faults, with what to do.
const (
	Preempted Fault = iota + 1 // another host claims: wait [BackOff], call again
	Moved                      // the boot record is of another epoch: open the disks that it names
	Cloned                     // another agent writes as this host: stop, tell the operator
	Damaged                    // what is there was valid once: repair from copies of the nodes
	Regressed                  // older than what this node has seen: a restored copy; as Damaged
	Settling                   // this machine has started anew: wait [SettleTime], call Settled
	TooFew                     // no majority of the disks answers: call again when they are back
	Undecided                  // no record says what is committed: Load finds out
	Lost                       // the disk does not hold what it said was durable: call again
)

var faults = map[Fault]struct {
	sentinel     error
	text, remedy string
}{
	Preempted: {belfry.ErrConflict, "another host is writing", "wait and try again"},
	Moved:     {belfry.ErrStale, "the repository has moved", "open the disks that the boot record names"},
	Cloned:    {belfry.ErrRestricted, "another agent writes in this node's place", "stop the copy of this node, then start the agent again"},
	Damaged:   {belfry.ErrRestricted, "a committed record or document is damaged", "repair it with `belfry repository fsck`"},
	Regressed: {belfry.ErrRestricted, "holds less than this node has seen there", "repair it with `belfry repository fsck`"},
	Settling:  {belfry.ErrRestricted, "writes from before the restart of this machine may still land", "wait 30 s"},
	TooFew:    {belfry.ErrRestricted, "too few disks answer", "bring a majority of them back, or replace them"},
	Undecided: {belfry.ErrStale, "no record says which value is committed", "load it instead of polling"},
	Lost:      {belfry.ErrStale, "the disk lost what it had reported as durable", "try again; replace it if this comes back"},
}

// Error says what is wrong and what would be right.
func (f Fault) Error() string { return faults[f].text + "; " + faults[f].remedy }

// Unwrap is the sentinel of package belfry that callers outside know.
func (f Fault) Unwrap() error { return faults[f].sentinel }

// fail is an error of one operation on one subject.
func fail(op, subject string, err error) error {
	return &belfry.Error{Op: "repository." + op, Subject: subject, Err: err}
}

// usage is a wrong argument.
func usage(op, subject, format string, args ...any) error {
	return fail(op, subject, fmt.Errorf("%w: %s", belfry.ErrUsage, fmt.Sprintf(format, args...)))
}
