// Package timer serves timer.fire: a time has come, again and again after an
// interval, each day, or once.
//
// An interval is measured by a clock that goes on while the machine is
// suspended and that nobody can set; a time of day by the clock on the wall,
// which can be.
package timer

import (
	"context"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// Class is the one class of this producer.
const Class belfry.Class = "timer.fire"

// A Producer has no state between two calls of Run and is safe for concurrent use.
type Producer struct {
	open func() (clock, error)
	zone *time.Location // of times of day
}

// New makes a Producer whose times of day are in the zone of this machine.
func New() *Producer {
	return &Producer{open: func() (clock, error) { return openKernelClock() }, zone: time.Local}
}

// Name is the folder's.
func (*Producer) Name() string { return "timer" }

// Classes is timer.fire.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{
		Class:    Class,
		Kind:     belfry.Happening,
		Summary:  "a time has come: after an interval, each day, or once",
		Subject:  "every=DURATION | at=HH:MM[:SS][Z] | at=RFC3339",
		Data:     "belfry.v1.TimerFire",
		Remote:   true,
		Volatile: true,
	}}
}

// CheckSubject refuses what is no time.
func (p *Producer) CheckSubject(_ belfry.Class, subject string) error {
	_, err := parse(subject, p.zone)
	return err
}

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	c, err := p.open()
	if err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	defer c.close()
	s := newSession(p.zone, send)
	for {
		if err := c.set(s.next()); err != nil {
			return fmt.Errorf("timer: %w", err)
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case err = <-c.failed():
		case <-c.rung():
			err = s.advance(c.now())
		case r := <-requests:
			if r.Watch != nil {
				err = s.watch(c.now(), *r.Watch)
			} else {
				s.unwatch(r.Unwatch)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("timer: %w", err)
		}
	}
}
