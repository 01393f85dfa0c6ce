package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// Limits of security.md.
const (
	maxData   = 4 << 10 // bytes of one occurrence
	sendRate  = 1000    // requests to send a second and uid
	sendBurst = 10000
	maxEvents = 1024 // in one request

	// maxRepeat keeps counts far from where they would begin again at zero.
	maxRepeat = 1_000_000_000
)

// ListClasses is the catalogue, by name.
func (e *eventService) ListClasses(_ context.Context, req *belfryv1.ListClassesRequest) (*belfryv1.ListClassesResponse, error) {
	resp := &belfryv1.ListClassesResponse{}
	for _, c := range e.s.opts.Events.Classes() {
		if req.GetClass() == "" || req.GetClass() == string(c.Class) {
			resp.Classes = append(resp.Classes, classOf(c))
		}
	}
	if len(resp.GetClasses()) == 0 && req.GetClass() != "" {
		err := fmt.Errorf("%w: no class %q; belfry event types lists them", belfry.ErrNotFound, req.GetClass())
		return nil, &belfry.Error{Op: "ListClasses", Subject: req.GetClass(), Err: err}
	}
	slices.SortFunc(resp.Classes, func(a, b *belfryv1.ClassInfo) int { return strings.Compare(a.GetClass(), b.GetClass()) })
	return resp, nil
}

func classOf(c belfry.ClassInfo) *belfryv1.ClassInfo {
	p := &belfryv1.ClassInfo{
		Class: string(c.Class), Kind: c.Kind.String(), Summary: c.Summary, Subject: c.Subject, Unit: c.Unit, Data: c.Data,
		Globs: c.Globs, LiteralKinds: c.LiteralKinds, Remote: c.Remote, Volatile: c.Volatile, Optional: c.Optional, Custom: c.Custom,
		Source: c.Source,
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(c.Data))
	m, ok := d.(protoreflect.MessageDescriptor)
	if err != nil || !ok || c.Custom { // a custom class has the fields that its sender gives it
		return p
	}
	for i := range m.Fields().Len() {
		p.Fields = append(p.Fields, string(m.Fields().Get(i).Name()))
	}
	return p
}

// SendEvent posts an event of a class below user.
func (e *eventService) SendEvent(ctx context.Context, req *belfryv1.SendEventRequest) (*belfryv1.SendEventResponse, error) {
	start := time.Now()
	results := e.s.send(ctx, []*belfryv1.SendEventRequest{req}, &posting{})
	if err := results[0].Err; err != nil {
		return nil, err
	}
	view := e.s.opts.Cluster.View()
	return &belfryv1.SendEventResponse{
		NodeName: nodeName(view, view.Self), Posted: max(1, req.GetRepeat()), Matched: uint32(max(0, results[0].Matched)),
		Took: durationpb.New(time.Since(start)),
	}, nil
}

// A posting is what one request after the other of a stream is worked on in: a
// thousand events a time need not each be made anew. The zero value is ready.
type posting struct {
	results  []event.Sent
	admitted []event.Named
	sent     []event.Sent // of admitted

	request  belfryv1.SendEventsRequest
	response belfryv1.SendEventsResponse
	slab     []belfryv1.SendResult
}

// SendEvents posts many. A stream costs one request, but each event of a user
// is charged as if it came alone.
func (e *eventService) SendEvents(stream grpc.BidiStreamingServer[belfryv1.SendEventsRequest, belfryv1.SendEventsResponse]) error {
	p := &posting{}
	for {
		err := stream.RecvMsg(&p.request)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n := len(p.request.GetEvents()); n > maxEvents {
			return &belfry.Error{Op: "SendEvents", Err: fmt.Errorf("%w: %d events in one request; at most %d", belfry.ErrLimit, n, maxEvents)}
		}
		if err := stream.Send(p.answer(e.s.send(stream.Context(), p.request.GetEvents(), p))); err != nil {
			return err
		}
	}
}

// answer is valid until the next call.
func (p *posting) answer(all []event.Sent) *belfryv1.SendEventsResponse {
	if len(all) > len(p.slab) {
		p.slab = make([]belfryv1.SendResult, len(all))
		p.response.Results = make([]*belfryv1.SendResult, len(all))
		for i := range p.slab {
			p.response.Results[i] = &p.slab[i]
		}
	}
	p.response.Results = p.response.Results[:len(all)]
	for i, sent := range all {
		result := &p.slab[i]
		result.Matched, result.Refusal = uint32(max(0, sent.Matched)), nil
		if sent.Err != nil {
			result.Refusal = refusalOf(sent.Err)
		}
	}
	return &p.response
}

// send posts those of a request that may be posted, together, and says of each
// what became of it. The result is valid until the next call.
func (s *Server) send(ctx context.Context, requests []*belfryv1.SendEventRequest, p *posting) []event.Sent {
	p.results, p.admitted = slices.Grow(p.results[:0], len(requests))[:len(requests)], slices.Grow(p.admitted[:0], len(requests))
	results := p.results
	clear(results)
	subject, now, judged := subjectFrom(ctx), time.Now(), ""
	for i, req := range requests {
		named, err := s.admitSend(subject, req, now, &judged)
		if results[i].Err = err; err == nil {
			p.admitted = append(p.admitted, named)
		}
	}
	if len(p.admitted) == 0 {
		return results
	}
	sent, whole := s.opts.Events.Send(ctx, p.admitted, p.sent)
	p.sent = sent
	if whole != nil { // the loop may still come to them
		p.admitted, p.sent = nil, nil
	}
	for i, n := 0, 0; i < len(requests); i++ {
		if results[i].Err != nil {
			continue
		}
		err := whole
		if whole == nil {
			results[i].Matched, err = sent[n].Matched, sent[n].Err
		}
		if n++; err != nil {
			results[i].Err = sendError(requests[i], err)
		}
	}
	return results
}

func sendError(req *belfryv1.SendEventRequest, err error) error {
	return &belfry.Error{Op: opSend, Subject: selector(belfry.Registration{Class: req.GetClass(), Subject: req.GetSubject()}), Err: err}
}

// admitSend judges one event, and charges whoever sends it. judged is the class
// that the subject may send as far as this request goes, and mostly is the next
// one's too.
func (s *Server) admitSend(subject Subject, req *belfryv1.SendEventRequest, now time.Time, judged *string) (named event.Named, err error) {
	if !strings.HasPrefix(req.GetClass(), "user.") {
		return named, sendError(req, fmt.Errorf("%w: %q is not for users to send; choose user.NAME", belfry.ErrUsage, req.GetClass()))
	}
	if *judged != req.GetClass() {
		if err := s.judgeSend(subject, req); err != nil {
			return named, err
		}
		*judged = req.GetClass()
	}
	var data []byte
	if req.GetData() != nil {
		if data, err = (proto.MarshalOptions{Deterministic: true}).Marshal(req.GetData()); err != nil {
			return named, sendError(req, fmt.Errorf("%w: data: %w", belfry.ErrUsage, err))
		}
	}
	if len(data) > maxData {
		return named, sendError(req, fmt.Errorf("%w: the data has %d bytes; at most %d", belfry.ErrLimit, len(data), maxData))
	}
	if req.GetRepeat() > maxRepeat {
		return named, sendError(req, fmt.Errorf("%w: repeat %d; at most 1,000,000,000", belfry.ErrLimit, req.GetRepeat()))
	}
	if !s.senders.take(subject, now) {
		s.limited.Add(1)
		return named, sendError(req, fmt.Errorf("%w: %s sends more than %d events a second; slow down, or send equal ones at once with repeat", belfry.ErrLimit, subject, sendRate))
	}
	return event.Named{Class: belfry.Class(req.GetClass()), Subject: req.GetSubject(), Time: now, Data: data, Repeat: req.GetRepeat()}, nil
}
