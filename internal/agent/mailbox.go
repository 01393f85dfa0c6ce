package agent

import (
	"context"
	"sync"
)

// A mailbox hands values from a loop that must not wait to a goroutine that
// may. It holds what is not taken yet; whoever puts must bound it (verdicts
// are bounded by nodes and time).
type mailbox[T any] struct {
	mu    sync.Mutex
	items []T
	wake  chan struct{}
}

func newMailbox[T any]() *mailbox[T] { return &mailbox[T]{wake: make(chan struct{}, 1)} }

func (b *mailbox[T]) put(items ...T) {
	b.mu.Lock()
	b.items = append(b.items, items...)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *mailbox[T]) take() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}

// run passes everything on, in order, until ctx ends or pass fails.
func (b *mailbox[T]) run(ctx context.Context, pass func(context.Context, []T) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		}
		if err := pass(ctx, b.take()); err != nil {
			return err
		}
	}
}
