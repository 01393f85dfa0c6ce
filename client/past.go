package client

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func sinceOf(s belfry.Since) *belfryv1.Since {
	switch {
	case !s.Cursor.IsZero():
		return &belfryv1.Since{Kind: &belfryv1.Since_Cursor{Cursor: s.Cursor.String()}}
	case !s.Time.IsZero():
		return &belfryv1.Since{Kind: &belfryv1.Since_Time{Time: timestamppb.New(s.Time)}}
	case s.HasSequence:
		return &belfryv1.Since{Kind: &belfryv1.Since_Sequence{Sequence: s.Sequence}}
	}
	return nil
}

func untilOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// A Past reads the journal of a node, from old to new. It is for one caller
// at a time.
type Past struct {
	c       *Client
	cancel  context.CancelFunc
	stream  grpc.ServerStreamingClient[belfryv1.ListEventsResponse]
	table   table
	current *belfryv1.ListEventsResponse
	next    int
	cursor  belfry.Cursor
}

// Events reads what registrations are for, all with none, from since to until;
// zero: from the oldest, and up to now. Registration in a notification is its
// place in the list, from 1. ctx bounds the reading; Close ends it.
func (c *Client) Events(ctx context.Context, all []belfry.Registration, since belfry.Since, until time.Time) (*Past, error) {
	req := &belfryv1.ListEventsRequest{Since: sinceOf(since), Until: untilOf(until)}
	for _, r := range all {
		req.Registrations = append(req.Registrations, registrationOf(r))
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.events.ListEvents(ctx, req)
	if err != nil {
		cancel()
		return nil, c.errorOf(err)
	}
	return &Past{c: c, cancel: cancel, stream: stream}, nil
}

// Next is io.EOF at the end.
func (p *Past) Next() (belfry.Notification, error) {
	for p.next >= len(p.current.GetNotifications()) {
		m, err := p.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return belfry.Notification{}, io.EOF
		case err != nil:
			return belfry.Notification{}, p.c.errorOf(err)
		}
		if err := p.table.introduce(m.GetEntries()); err != nil {
			return belfry.Notification{}, err
		}
		p.current, p.next = m, 0
	}
	n, err := p.table.notification(p.current.GetNotifications()[p.next])
	if p.next < len(p.current.GetCursors()) {
		p.cursor, _ = belfry.ParseCursor(p.current.GetCursors()[p.next]) // zero where it is not one
	}
	p.next++
	return n, err
}

// Cursor is where to begin again after the last notification.
func (p *Past) Cursor() belfry.Cursor { return p.cursor }

// Close ends the reading.
func (p *Past) Close() { p.cancel() }

// Replay runs a handler again over the past, and calls each with every run.
func (c *Client) Replay(ctx context.Context, handler string, since belfry.Since, until time.Time, each func(*belfryv1.Run) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.handlers.ReplayEvents(ctx, &belfryv1.ReplayEventsRequest{
		Handler: handler, Since: sinceOf(since), Until: untilOf(until),
	})
	if err != nil {
		return c.errorOf(err)
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return c.errorOf(err)
		}
		if err := each(m.GetRun()); err != nil {
			return err
		}
	}
}
