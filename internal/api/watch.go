package api

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cloudevents"
	"github.com/belfry-ha/belfry/internal/event"
)

// Watch serves one registration for as long as the caller listens. What has
// been handed to the connection counts as delivered: over plain HTTP nobody
// acknowledges.
func (e *eventService) Watch(req *belfryv1.WatchRequest, stream grpc.ServerStreamingServer[belfryv1.WatchResponse]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	subject := subjectFrom(ctx)
	c, err := e.s.consumers.add(func() Consumer {
		return e.s.opts.Events.Open(event.ConsumerStream, consumerName(subject, "watch"), event.Limits{})
	}, subject, cancel)
	if err != nil {
		e.s.limited.Add(1)
		return &belfry.Error{Op: "Watch", Err: err}
	}
	defer e.s.consumers.release(c, false) // nobody can resume it
	r, _, err := e.s.tryRegister(ctx, c, subject, 1, req.GetRegistration())
	if err != nil {
		return err
	}
	told := overlap{}
	if !r.Since.IsZero() {
		err := e.s.replayPast(ctx, 1, r, func(part chunk, _ bool) error {
			c.skips.Add(1, part.skipped)
			for i := range part.notifications {
				told.told(&part.notifications[i])
				if err := stream.Send(watchResponse(&part.notifications[i])); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for {
		b, err := c.Next(ctx)
		if errors.Is(err, io.EOF) { // the registration has ended
			return nil
		}
		if err != nil {
			return endedBy(ctx, err)
		}
		for _, n := range b.Notifications {
			if !told.admit(&n) {
				continue
			}
			c.skips.Into(1, b.Number, &n)
			if err := stream.Send(watchResponse(&n)); err != nil {
				return err
			}
		}
		c.Ack(b.Number)
	}
}

// watchResponse is a notification in words, for readers of JSON. Data that
// does not decode is left out.
func watchResponse(n *belfry.Notification) *belfryv1.WatchResponse {
	w := &belfryv1.WatchResponse{
		Kind: n.Kind.String(), Node: n.NodeName, Incarnation: uint32(n.Incarnation), Entry: n.Entry,
		Class: string(n.Event.Class), Subject: n.Event.Subject, Instance: n.Event.Instance,
		Sequence: n.Last, FirstSequence: n.First, Count: n.Count, Skipped: n.Skipped,
		FirstTime: timestamp(n.FirstTime), Time: timestamp(n.Time),
		Code: n.Code, Edge: n.Edge.String(), Value: n.Value, LowerBound: n.LowerBound, Reason: n.Reason,
	}
	if !n.Node.IsZero() {
		w.NodeId = n.Node.String()
	}
	if fields, err := cloudevents.Fields(n.Event.Class, n.Data); err == nil && len(fields) > 0 {
		if s, err := structpb.NewStruct(fields); err == nil {
			w.Data = s
		}
	}
	if g := n.Gap; g != nil {
		w.Gap = &belfryv1.WatchGap{Total: g.Total, Known: g.Known, Reason: g.Reason.String(), From: timestamp(g.From), To: timestamp(g.To)}
	}
	return w
}
