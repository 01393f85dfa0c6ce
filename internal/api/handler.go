package api

import (
	"context"
	"strconv"

	"google.golang.org/grpc"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

type handlerService struct {
	belfryv1.UnimplementedHandlerServiceServer
	s *Server
}

// ListHandlers answers from memory and the state file.
func (h *handlerService) ListHandlers(ctx context.Context, _ *belfryv1.ListHandlersRequest) (*belfryv1.ListHandlersResponse, error) {
	list, err := h.s.opts.Handlers.Handlers(ctx)
	if err != nil {
		return nil, &belfry.Error{Op: "ListHandlers", Err: err}
	}
	return &belfryv1.ListHandlersResponse{Handlers: list}, nil
}

// ListRuns answers from the state file.
func (h *handlerService) ListRuns(_ context.Context, req *belfryv1.ListRunsRequest) (*belfryv1.ListRunsResponse, error) {
	runs, err := h.s.opts.Handlers.Runs(req.GetHandler(), req.GetFailed(), int(min(req.GetLimit(), 1000)))
	if err != nil {
		return nil, &belfry.Error{Op: "ListRuns", Subject: req.GetHandler(), Err: err}
	}
	return &belfryv1.ListRunsResponse{Runs: runs}, nil
}

// TestHandler returns when the run has ended.
func (h *handlerService) TestHandler(ctx context.Context, req *belfryv1.TestHandlerRequest) (*belfryv1.TestHandlerResponse, error) {
	run, err := h.s.opts.Handlers.Test(ctx, req)
	if err != nil {
		return nil, &belfry.Error{Op: "TestHandler", Subject: req.GetHandler(), Err: err}
	}
	h.s.audit(ctx, "TestHandler", req.GetHandler(), 0, "result", run.GetResult())
	return &belfryv1.TestHandlerResponse{Run: run}, nil
}

// RetryRun returns when the run has ended.
func (h *handlerService) RetryRun(ctx context.Context, req *belfryv1.RetryRunRequest) (*belfryv1.RetryRunResponse, error) {
	run, err := h.s.opts.Handlers.Retry(ctx, req.GetId())
	if err != nil {
		return nil, &belfry.Error{Op: "RetryRun", Subject: strconv.FormatUint(req.GetId(), 10), Err: err}
	}
	h.s.audit(ctx, "RetryRun", run.GetHandler(), 0, "run", strconv.FormatUint(req.GetId(), 10), "result", run.GetResult())
	return &belfryv1.RetryRunResponse{Run: run}, nil
}

// ReplayEvents sends each run when it has ended.
func (h *handlerService) ReplayEvents(req *belfryv1.ReplayEventsRequest, stream grpc.ServerStreamingServer[belfryv1.ReplayEventsResponse]) error {
	since, err := sinceOf(req.GetSince())
	if err == nil {
		h.s.audit(stream.Context(), "ReplayEvents", req.GetHandler(), 0)
		err = h.s.opts.Handlers.Replay(stream.Context(), req.GetHandler(), since, untilOf(req.GetUntil()), func(run *belfryv1.Run) error {
			return stream.Send(&belfryv1.ReplayEventsResponse{Run: run})
		})
	}
	if err != nil {
		return &belfry.Error{Op: "ReplayEvents", Subject: req.GetHandler(), Err: err}
	}
	return nil
}
