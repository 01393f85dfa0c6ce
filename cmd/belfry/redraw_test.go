package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// takes waits so long, or until ctx ends.
func takes(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The first look of a watch may take as long as a command that looks once, for
// the watch ends if it fails: an agent on a busy machine needs longer than the
// looks after it have.
func TestAWatchWaitsForItsFirstLook(t *testing.T) {
	t.Parallel()
	for name, watch := range map[string]func(*app, context.Context, func(context.Context) error) error{
		"lines": func(a *app, ctx context.Context, look func(context.Context) error) error {
			return a.pollMatrix(ctx, "state", func(ctx context.Context) (*belfryv1.GetLinkMatrixResponse, error) {
				return &belfryv1.GetLinkMatrixResponse{Rows: fullMatrix(2)}, look(ctx)
			})
		},
		"pictures": func(a *app, ctx context.Context, look func(context.Context) error) error {
			return a.redraw(ctx, nil, look)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, _ := toFile(t, formTable)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				looks := 0
				err := watch(a, ctx, func(ctx context.Context) error {
					looks++
					return takes(ctx, watchPatience+time.Second) // the others are cut short
				})
				if looks < 3 || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("it ends after %d looks: %v; want more, until it is told to end", looks, err)
				}
			})
		})
	}
}
