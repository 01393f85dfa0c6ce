// Package process serves process.exit: a process has ended, with its exit
// code or the signal that ended it.
//
// It holds one pidfd for each process that is watched, all in one epoll
// instance, and looks through /proc only while something that was named is
// not there, or may have changed without ending.
package process

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// Class is the one class of this producer.
const Class belfry.Class = "process.exit"

// How often /proc is searched for what is not there. A successor mostly comes
// at once, so a watch looks closely for a while after its process has ended.
const (
	searchEvery = time.Second
	closelyFor  = 2 * time.Second
	closely     = 50 * time.Millisecond
)

// reapedWithin is how long a dead process may keep its status from us before
// it is posted as unknown: the parent has not asked for it and we may not.
const reapedWithin = time.Second

// A Producer has no state between two calls of Run but how it finds processes, and
// is safe for concurrent use after WithUnits.
type Producer struct {
	units   Units
	connect func() (*connector, error)
	ways    ways
}

// New makes a Producer that refuses unit=.
func New() *Producer {
	return &Producer{units: noUnits{}, connect: func() (*connector, error) { return openConnector(connectorBuffer) }}
}

// WithUnits makes it ask units for the main processes of services.
func (p *Producer) WithUnits(units Units) *Producer {
	p.units = units
	return p
}

// Name is the folder's.
func (*Producer) Name() string { return "process" }

// Classes is process.exit.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{
		Class:   Class,
		Kind:    belfry.Happening,
		Summary: "a process has ended, with its exit code or signal",
		Subject: "pid=N | exe=/PATH | cmdline=EXPRESSION | pidfile=/PATH | unit=NAME.service",
		Data:    "belfry.v1.ProcessExit",
		Remote:  true,
		// A number means another process on every node, and an expression has
		// stars of its own.
		LocalKinds:   []string{"pid"},
		LiteralKinds: []string{"cmdline"},
	}}
}

// CheckSubject refuses what has none of the forms of a subject.
func (*Producer) CheckSubject(_ belfry.Class, text string) error {
	_, err := parse(text)
	return err
}

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	poll, err := newPoller()
	if err != nil {
		return fmt.Errorf("process: %w", err)
	}
	inner, cancel := context.WithCancel(ctx)
	ready := make(chan []uint64)
	failed := make(chan error, 1)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			tokens, err := poll.wait()
			if err != nil {
				failed <- err
				return
			}
			select {
			case ready <- tokens:
			case <-inner.Done():
				return
			}
		}
	})
	s := newSession(poll, p, send)
	defer func() { // wait, which close ends, before the descriptors go
		cancel()
		poll.close()
		group.Wait()
		s.close()
	}()
	return s.loop(ctx, requests, ready, failed)
}

func (s *session) loop(ctx context.Context, requests <-chan producer.Request, ready <-chan []uint64, failed <-chan error) error {
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
		case err := <-failed:
			return fmt.Errorf("process: %w", err)
		case tokens := <-ready:
			err = s.ended(time.Now(), tokens)
		case r := <-requests:
			if r.Watch != nil {
				err = s.watch(time.Now(), *r.Watch)
			} else {
				s.unwatch(r.Unwatch)
			}
		case <-s.news:
			err = s.renewed(time.Now())
		case <-timer.C:
			err = s.advance(time.Now())
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("process: %w", err)
		}
	}
}
