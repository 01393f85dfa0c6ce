package client

import (
	"context"
	"time"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// leaveWait is how long a program that ends waits for a witness to hear of it.
// Longer, and the registration ends there by itself, when it is unused.
const leaveWait = time.Second

// outlast is ctx, and leaveWait more: a registration that is being made when the
// program ends must be known to have been made, or it is made after it was ended. held
// tells whether there is something to wait for.
func outlast(ctx context.Context, held func() bool) (context.Context, context.CancelCauseFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if held() {
			timer := time.AfterFunc(leaveWait, func() { cancel(context.Cause(ctx)) })
			context.AfterFunc(longer, func() { timer.Stop() })
			return
		}
		cancel(context.Cause(ctx))
	})
	return longer, func(cause error) {
		stop()
		cancel(cause)
	}
}

// goodbye ends the registration where it may still be, after ctx has ended.
func (p *post) goodbye(ctx context.Context) {
	if p.holds == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWait)
	defer cancel()
	c, err := p.dial(ctx, p.holds)
	if err != nil {
		return // it ends unused
	}
	defer c.Close()
	p.unregister(ctx, c)
}

// unregister waits leaveWait at most.
func (p *post) unregister(ctx context.Context, c *Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWait)
	defer cancel()
	_, err := c.witness.UnregisterClient(ctx, &belfryv1.UnregisterClientRequest{Registration: p.key})
	if err == nil {
		p.holds = ""
	}
}
