package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
)

type linkService struct {
	belfryv1.UnimplementedLinkServiceServer
	s *Server
}

// ListLinks lists this node's rows, or asks the node that is named.
func (l *linkService) ListLinks(ctx context.Context, req *belfryv1.ListLinksRequest) (*belfryv1.ListLinksResponse, error) {
	if req.GetNode() != "" {
		view := l.s.opts.Cluster.View()
		id, err := findNode(view, req.GetNode())
		if err != nil {
			return nil, &belfry.Error{Op: "ListLinks", Subject: req.GetNode(), Err: err}
		}
		if id != view.Self {
			return l.s.opts.Cluster.PeerLinks(ctx, id, req)
		}
	}
	return l.s.LocalLinks(ctx, req)
}

// LocalLinks pages through this node's rows by peer and index, for itself and
// for nodes that ask. It judges nobody; req.Node is ignored.
func (s *Server) LocalLinks(_ context.Context, req *belfryv1.ListLinksRequest) (*belfryv1.ListLinksResponse, error) {
	view := s.opts.Cluster.View()
	filter, err := linkFilterOf(view, req.GetFilter())
	if err != nil {
		return nil, &belfry.Error{Op: "ListLinks", Err: err}
	}
	rows := slices.DeleteFunc(slices.Clone(view.Links), func(r cluster.LinkStatus) bool { return !filter.means(&r, filter.beyond(&r, 0)) })
	if req.GetPeer() != "" {
		id, err := findNode(view, req.GetPeer())
		if err != nil {
			return nil, &belfry.Error{Op: "ListLinks", Subject: req.GetPeer(), Err: err}
		}
		rows = slices.DeleteFunc(rows, func(r cluster.LinkStatus) bool { return r.Peer != id })
	}
	key := func(r *cluster.LinkStatus) string {
		return fmt.Sprintf("%s\x00%s\x00%02x", r.PeerName, r.Peer, r.Index)
	}
	rows = slices.SortedFunc(slices.Values(rows), func(a, b cluster.LinkStatus) int { return strings.Compare(key(&a), key(&b)) })
	rows, next, err := page(rows, req.GetPageSize(), req.GetPageToken(), key)
	if err != nil {
		return nil, &belfry.Error{Op: "ListLinks", Err: err}
	}
	resp := &belfryv1.ListLinksResponse{NodeName: nodeName(view, view.Self), Version: view.LinksVersion, NextPageToken: next}
	for i := range rows {
		link := linkOf(&rows[i])
		if !req.GetBrief() {
			addPast(link, &rows[i])
		}
		resp.Links = append(resp.Links, link)
	}
	return resp, nil
}

// linkOf is a row without its past.
func linkOf(r *cluster.LinkStatus) *belfryv1.Link {
	l := &belfryv1.Link{
		PeerId: r.Peer.String(), Peer: r.PeerName, Network: r.Network, Local: r.Local.String(), Remote: r.Remote.String(),
		State: r.State.String(), Reason: r.Reason, Since: timestamp(r.Since), Version: r.Version, Rx: r.Rx, TwoWay: r.TwoWay,
		Interface: r.Interface, SpeedMbits: r.Speed, MtuBytes: uint32(max(0, r.MTU)), Carrier: r.Carrier,
		Sent: r.Sent, LastSent: timestamp(r.LastTx), LastReceived: timestamp(r.LastRx), LastEcho: timestamp(r.LastEcho),
		LossRatio: float64(r.RecentLoss) / 255, Loss_10SRatio: share(r.Loss10), Loss_60SRatio: share(r.Loss60), Loss_600SRatio: share(r.Loss600),
		RttKnown: r.Known, Rtt: duration(r.MRT), RttDeviation: duration(r.D), RttLast: duration(r.Measured), Jitter: duration(r.Jitter),
		RttMin: duration(r.RTTMin), RttP50: duration(r.RTTP50), RttP99: duration(r.RTTP99),
		Interval: duration(r.Interval), Announced: duration(r.Announced), MaxWait: duration(r.MaxWait),
		MaxDeviation: uint32(max(0, r.MaxDeviation)), Deviation: uint32(max(0, r.Deviation)),
		Received: r.Received, Lost: r.Lost, Reordered: r.Reordered, Duplicate: r.Duplicate,
		Ups: r.Ups, Downs: r.Downs, FlapPenalty: uint32(max(0, r.FlapPenalty)),
	}
	if r.PeerAge >= 0 {
		l.PeerState, l.PeerLossRatio, l.PeerAge = r.PeerState.String(), float64(r.PeerLoss)/255, durationpb.New(r.PeerAge)
	}
	return l
}

// addPast adds how a link came to be what it is.
func addPast(l *belfryv1.Link, r *cluster.LinkStatus) {
	for _, d := range r.Delays {
		l.Delays = append(l.Delays, durationpb.New(d))
	}
	for _, h := range r.History {
		l.History = append(l.History, &belfryv1.Adaptation{
			Time: timestamp(h.At), Interval: duration(h.Interval), MaxWait: duration(h.MaxWait), MaxDeviation: uint32(max(0, h.MaxDeviation)),
			Rtt: duration(h.MRT), RttDeviation: duration(h.D), Jitter: duration(h.Jitter), LossRatio: float64(h.Loss) / 255, Why: h.Why,
		})
	}
	for _, t := range r.Transitions {
		l.Transitions = append(l.Transitions, &belfryv1.LinkTransition{
			Time: timestamp(t.At), From: t.From.String(), To: t.To.String(), Reason: t.Reason,
		})
	}
}

// share is 0 where nothing was expected.
func share(r cluster.Ratio) float64 {
	if r.Expected == 0 {
		return 0
	}
	return float64(r.Lost) / float64(r.Expected)
}
