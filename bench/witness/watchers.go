package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry/bench/stats"
)

// A system tells clients of changes over connections of their own.
type system interface {
	name() string
	// open makes the i-th connection and asks to be told.
	open(ctx context.Context, i int) (*connection, error)
	// begun tells whether a message says that the watch is in force; news whether
	// it tells of a change.
	begun(message []byte) (bool, error)
	news(message []byte) (bool, error)
	// change makes one change, which all are told.
	change(ctx context.Context) error
	// pid is the process that tells them.
	pid() int
}

const (
	// handshakes is how many connections are made at a time: an agent takes no more
	// of one address.
	handshakes = 8
	// toldTimeout is how long the last of them may take to be told.
	toldTimeout = 20 * time.Second
)

// watchers are connections that are told of the same changes.
type watchers struct {
	conns []*connection
	told  []atomic.Int64 // when each was told of the change of this round, Unix ns; 0: not yet
	count atomic.Int64   // of them
	all   chan struct{}  // a round is complete; capacity 1
	group sync.WaitGroup

	mu  sync.Mutex
	err error // the first
}

// watch opens n connections; they are in force when it returns.
func watch(ctx context.Context, s system, n int) (*watchers, error) {
	w := &watchers{conns: make([]*connection, n), told: make([]atomic.Int64, n), all: make(chan struct{}, 1)}
	var opening sync.WaitGroup
	var next atomic.Int64
	for range handshakes {
		opening.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := w.open(ctx, s, i); err != nil {
					w.fail(fmt.Errorf("connection %d: %w", i, err))
					return
				}
			}
		})
	}
	opening.Wait()
	if w.err != nil {
		err := w.err
		w.close()
		return nil, err
	}
	for i, c := range w.conns {
		w.group.Go(func() { w.fail(w.read(s, i, c)) })
	}
	return w, nil
}

func (w *watchers) open(ctx context.Context, s system, i int) error {
	c, err := s.open(ctx, i)
	if err != nil {
		return err
	}
	w.conns[i] = c
	var bad error
	err = c.read(func(message []byte) bool {
		begun, err := s.begun(message)
		bad = err
		return begun || err != nil
	})
	return errors.Join(err, bad)
}

// read notes when each change has come.
func (w *watchers) read(s system, i int, c *connection) error {
	var bad error
	err := c.read(func(message []byte) bool {
		now := time.Now().UnixNano()
		news, err := s.news(message)
		if err != nil {
			bad = err
			return true
		}
		if news && w.told[i].CompareAndSwap(0, now) && w.count.Add(1) == int64(len(w.conns)) {
			w.all <- struct{}{}
		}
		return false
	})
	return errors.Join(err, bad)
}

func (w *watchers) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// round makes all be told once. cause returns when it happened.
func (w *watchers) round(ctx context.Context, cause func() (time.Time, error)) (took []float64, err error) {
	w.count.Store(0)
	for i := range w.told {
		w.told[i].Store(0)
	}
	at, err := cause()
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(toldTimeout)
	defer timer.Stop()
	select {
	case <-w.all:
	case <-timer.C:
		w.mu.Lock()
		defer w.mu.Unlock()
		return nil, fmt.Errorf("%d of %d were told within %s: %w", w.count.Load(), len(w.conns), toldTimeout, w.err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for i := range w.told {
		took = append(took, float64(w.told[i].Load()-at.UnixNano())/1e6)
	}
	return took, nil
}

// changes are rounds of the system's own changes, from before each is asked for.
func (w *watchers) changes(ctx context.Context, s system, rounds int) (all []float64, err error) {
	for range rounds {
		took, err := w.round(ctx, func() (time.Time, error) {
			at := time.Now()
			return at, s.change(ctx)
		})
		if err != nil {
			return nil, err
		}
		all = append(all, took...)
	}
	return all, nil
}

func (w *watchers) close() {
	for _, c := range w.conns {
		if c != nil {
			c.close()
		}
	}
	w.group.Wait()
}

// A spread is p50 and p99, ms.
type spread struct{ p50, p99 float64 }

func spreadOf(took []float64) spread {
	q := stats.Quantiles(took, 0.5, 0.99)
	return spread{q[0], q[1]}
}

func half(s spread) float64 { return s.p50 }
func most(s spread) float64 { return s.p99 }
