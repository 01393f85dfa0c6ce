package api

import (
	"google.golang.org/grpc"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// WatchLinks sends all rows, or what changed since the caller left, and then
// each change as soon as the one before it is with the connection. Nothing is
// queued for a slow reader: what it has not seen is computed when it is ready.
func (l *linkService) WatchLinks(req *belfryv1.WatchLinksRequest, stream grpc.ServerStreamingServer[belfryv1.WatchLinksResponse]) error {
	view := l.s.opts.Cluster.View()
	self, incarnation := nodeName(view, view.Self), uint32(view.Incarnation)
	from, resumed := req.GetVersion(), req.GetVersion() != 0
	if req.GetIncarnation() != incarnation {
		from = 0
	}
	for first := true; ; first = false {
		delta, changed := l.s.opts.Cluster.LinksSince(from)
		resp := &belfryv1.WatchLinksResponse{
			NodeName: self, Incarnation: incarnation, Version: delta.Version,
			Snapshot: delta.Whole, Resync: delta.Whole && (first && resumed || from != 0),
		}
		for i := range delta.Links {
			resp.Links = append(resp.Links, linkOf(&delta.Links[i]))
		}
		for _, r := range delta.Removed {
			resp.Removed = append(resp.Removed, &belfryv1.RemovedLink{PeerId: r.Peer.String(), Peer: r.PeerName, Network: r.Network})
		}
		if first || delta.Whole && delta.Version != from || len(resp.GetLinks())+len(resp.GetRemoved()) > 0 {
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
		from = delta.Version
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
