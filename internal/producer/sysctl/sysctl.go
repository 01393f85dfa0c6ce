// Package sysctl serves sysctl.change: a setting of the kernel below /proc/sys
// has another value.
//
// The kernel tells nobody of such a change in general, so the keys that are
// watched are read each second.
package sysctl

import (
	"context"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// Class is the one class of this producer.
const Class belfry.Class = "sysctl.change"

const (
	readEvery   = time.Second
	searchEvery = 10 * time.Second // for keys that fit a pattern and were not there
	maxKeys     = 4096             // that a pattern may stand for
)

// A Producer has no state between two calls of Run and is safe for concurrent use.
type Producer struct{ root string }

// New makes a Producer.
func New() *Producer { return newAt("/proc/sys") }

// newAt makes a Producer that finds the keys elsewhere.
func newAt(root string) *Producer { return &Producer{root: root} }

// Name is the folder's.
func (*Producer) Name() string { return "sysctl" }

// Classes is sysctl.change.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{
		Class:   Class,
		Kind:    belfry.Happening,
		Summary: "a setting of the kernel has another value",
		Subject: "KEY as sysctl(8) has it, * for any characters",
		Data:    "belfry.v1.SysctlChange",
		Globs:   true,
		Remote:  true,
	}}
}

// CheckSubject refuses what can not be a key.
func (*Producer) CheckSubject(_ belfry.Class, subject string) error {
	_, err := parseKey(subject)
	return err
}

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	s := newSession(p.root, send)
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
		case r := <-requests:
			if r.Watch != nil {
				err = s.watch(time.Now(), *r.Watch)
			} else {
				s.unwatch(r.Unwatch)
			}
		case <-timer.C:
			err = s.advance(time.Now())
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
}
