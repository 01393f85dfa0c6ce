// Package unit serves unit.state, what becomes of the units of systemd, and
// knows the main process of a service for whoever follows one.
//
// It hears of both by D-Bus (org.freedesktop.systemd1(5)), over one connection
// that is open while somebody asks for either.
package unit

import (
	"context"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// Class is the one class of this producer.
const Class belfry.Class = "unit.state"

// A Producer has no state between two calls of Run and is safe for concurrent use.
type Producer struct{ systemd *Systemd }

// New makes a Producer that asks the given systemd.
func New(systemd *Systemd) *Producer { return &Producer{systemd} }

// Name is the folder's.
func (*Producer) Name() string { return "unit" }

// Classes is unit.state.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{
		Class:    Class,
		Kind:     belfry.State,
		Summary:  "whether a unit of systemd runs: active, reloading, inactive, failed, activating, deactivating, maintenance, refreshing",
		Subject:  "NAME.TYPE",
		Data:     "belfry.v1.UnitState",
		Globs:    true,
		Remote:   true,
		Optional: true,
	}}
}

// CheckSubject refuses what can not name a unit.
func (*Producer) CheckSubject(_ belfry.Class, subject string) error { return checkName(subject) }

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	s := newSession(p.systemd, send)
	defer s.leave()
	if err := s.connect(ctx, time.Now()); err != nil { // it is not called before somebody watches
		return fmt.Errorf("unit: %w", err)
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next := s.nextTimeout(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-s.bell():
			err = s.hear(ctx, time.Now())
		case r := <-requests:
			err = s.request(ctx, time.Now(), r)
		case <-timer.C:
			err = s.advance(ctx, time.Now())
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unit: %w", err)
		}
	}
}
