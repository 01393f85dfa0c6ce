package client

import (
	"context"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// Handlers lists the handlers of the node that is asked, by name.
func (c *Client) Handlers(ctx context.Context) ([]*belfryv1.Handler, error) {
	resp, err := c.handlers.ListHandlers(ctx, &belfryv1.ListHandlersRequest{})
	return resp.GetHandlers(), c.errorOf(err)
}

// Runs lists runs of one handler, or of all with an empty name, newest first;
// failed leaves out those that ended well. ErrNotFound if there is no such
// handler.
func (c *Client) Runs(ctx context.Context, handler string, failed bool, limit int) ([]*belfryv1.Run, error) {
	resp, err := c.handlers.ListRuns(ctx, &belfryv1.ListRunsRequest{Handler: handler, Failed: failed, Limit: uint32(max(0, limit))})
	return resp.GetRuns(), c.errorOf(err)
}

// TestHandler runs a handler once for an event that did not happen, and returns
// when it has ended. ErrNotFound if there is no such handler.
func (c *Client) TestHandler(ctx context.Context, req *belfryv1.TestHandlerRequest) (*belfryv1.Run, error) {
	resp, err := c.handlers.TestHandler(ctx, req)
	return resp.GetRun(), c.errorOf(err)
}

// RetryRun delivers the dead letter of a run once more, and returns when that
// has ended. ErrNotFound if there is none.
func (c *Client) RetryRun(ctx context.Context, id uint64) (*belfryv1.Run, error) {
	resp, err := c.handlers.RetryRun(ctx, &belfryv1.RetryRunRequest{Id: id})
	return resp.GetRun(), c.errorOf(err)
}
