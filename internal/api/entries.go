package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// What one page of a listing holds at most.
const (
	maxConsumersListed = 10000     // the least that an entry with more of them has
	maxReasonsListed   = 512 << 10 // bytes of refusals
)

// ListEntries lists this node's entries, or asks the node that is named.
func (e *eventService) ListEntries(ctx context.Context, req *belfryv1.ListEntriesRequest) (*belfryv1.ListEntriesResponse, error) {
	view := e.s.opts.Cluster.View()
	if req.GetNode() != "" {
		id, err := findNode(view, req.GetNode())
		if err != nil {
			return nil, &belfry.Error{Op: "ListEntries", Subject: req.GetNode(), Err: err}
		}
		if id != view.Self {
			return e.s.opts.Cluster.PeerEntries(ctx, id, req)
		}
	}
	return e.s.LocalEntries(ctx, req)
}

// A listed row is an entry, or, after all of them, a want.
type listed struct {
	entry *event.EntryStatus
	want  *event.WantStatus
}

// key sorts the rows. No class begins with a tilde.
func (l *listed) key() string {
	if l.want != nil {
		return fmt.Sprintf("~%s\x00%s\x00%010d", l.want.Class, l.want.Subject, l.want.Number)
	}
	return fmt.Sprintf("%s\x00%s\x00%020d", l.entry.Class, l.entry.Subject, l.entry.Entry)
}

// LocalEntries is the listing of this node, for itself and for nodes that ask.
// It judges nobody; req.Node is ignored.
func (s *Server) LocalEntries(ctx context.Context, req *belfryv1.ListEntriesRequest) (*belfryv1.ListEntriesResponse, error) {
	status, err := s.opts.Events.Status(ctx)
	if err != nil {
		return nil, &belfry.Error{Op: "ListEntries", Err: err}
	}
	rows := make([]listed, 0, len(status.Entries)+len(status.Wants))
	for i := range status.Entries {
		rows = append(rows, listed{entry: &status.Entries[i]})
	}
	for i := range status.Wants {
		rows = append(rows, listed{want: &status.Wants[i]})
	}
	slices.SortFunc(rows, func(a, b listed) int { return strings.Compare(a.key(), b.key()) })
	rows, next, err := page(rows, req.GetPageSize(), req.GetPageToken(), (*listed).key)
	if err != nil {
		return nil, &belfry.Error{Op: "ListEntries", Err: err}
	}
	if n := fitting(rows); n < len(rows) {
		rows, next = rows[:n], pageToken(rows[n-1].key())
	}
	view := s.opts.Cluster.View()
	resp := &belfryv1.ListEntriesResponse{NodeId: view.Self.String(), NodeName: nodeName(view, view.Self), NextPageToken: next}
	for _, row := range rows {
		if row.want != nil {
			resp.ClusterRegistrations = append(resp.ClusterRegistrations, clusterRegistrationOf(view, row.want))
		} else {
			resp.Entries = append(resp.Entries, entryOf(row.entry))
		}
	}
	if req.GetPageToken() == "" { // they stand on the first page only
		for i := range status.Interests {
			resp.Interests = append(resp.Interests, interestsOf(&status.Interests[i]))
		}
	}
	return resp, nil
}

// fitting is how many rows, at least one, stay below maxResponse with all
// their consumers, nodes and reasons.
func fitting(rows []listed) int {
	parts, reasons := 0, 0
	for i, row := range rows {
		if row.want == nil {
			parts += len(row.entry.Consumers)
		} else {
			parts += len(row.want.Consumers) + len(row.want.Coverage)
			for _, c := range row.want.Coverage {
				if c.Err != nil {
					reasons += len(c.Err.Error())
				}
			}
		}
		if i > 0 && (parts > maxConsumersListed || reasons > maxReasonsListed) {
			return i
		}
	}
	return len(rows)
}

func entryOf(e *event.EntryStatus) *belfryv1.RegistrationEntry {
	p := &belfryv1.RegistrationEntry{
		Entry: uint64(e.Entry), Class: string(e.Class), Subject: e.Subject,
		State: e.State.String(), Since: timestamp(e.Since), Identifier: e.Instance,
		Sequence: e.Sequence, HeldBy: e.Held.String(), ConsumersTotal: uint32(len(e.Consumers)),
	}
	if e.Pattern {
		p.State, p.Since = "pattern", nil
	}
	p.Consumers = consumersOf(e.Consumers)
	return p
}

func consumersOf(all []event.ConsumerStatus) (list []*belfryv1.EntryConsumer) {
	for _, c := range all[:min(len(all), maxConsumersListed)] {
		list = append(list, &belfryv1.EntryConsumer{
			Kind: c.Kind, Name: c.Name, Registration: c.Registration,
			Queued: uint32(max(0, c.Queued)), Gaps: c.Gaps, Observed: c.Observed,
		})
	}
	return list
}

func clusterRegistrationOf(view ClusterView, w *event.WantStatus) *belfryv1.ClusterRegistration {
	return &belfryv1.ClusterRegistration{
		Number: w.Number, Class: w.Class, Subject: w.Subject, Coverage: coverageOf(view, w.Coverage),
		Consumers: consumersOf(w.Consumers), ConsumersTotal: uint32(len(w.Consumers)),
	}
}

func interestsOf(i *event.InterestStatus) *belfryv1.PeerInterests {
	p := &belfryv1.PeerInterests{
		NodeId: i.Node.String(), NodeName: i.Name, Version: i.Version, Interests: uint32(max(0, i.Interests)),
		State: "parked", Since: timestamp(i.Since),
		Unacknowledged: uint32(max(0, i.Unacknowledged)), Queued: uint32(max(0, i.Queued)),
	}
	if i.Live {
		p.State = "live"
	}
	return p
}
