package api

import (
	"time"

	"google.golang.org/grpc"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
)

const (
	// crossingEvery is how often figures are held against thresholds: they move
	// with each heartbeat, and nobody is woken for that.
	crossingEvery = time.Second
	// versionEvery is after how many versions a caller is told of one of which no
	// link is meant, so that it can resume there: 4,096 are kept.
	versionEvery = 1024
)

// WatchLinks sends all rows that are meant, or what changed since the caller
// left, and then each change as soon as the one before it is with the
// connection. Nothing is queued for a slow reader: what it has not seen is
// computed when it is ready.
func (l *linkService) WatchLinks(req *belfryv1.WatchLinksRequest, stream grpc.ServerStreamingServer[belfryv1.WatchLinksResponse]) error {
	view := l.s.opts.Cluster.View()
	filter, err := linkFilterOf(view, req.GetFilter())
	if err != nil {
		return &belfry.Error{Op: "WatchLinks", Err: err}
	}
	w := newLinkWatch(view, filter, req)
	var crossings <-chan time.Time
	if len(filter.thresholds) > 0 {
		ticker := time.NewTicker(crossingEvery)
		defer ticker.Stop()
		crossings = ticker.C
	}
	for {
		delta, changed := l.s.opts.Cluster.LinksSince(w.from)
		rows := delta.Links
		if w.needsAll() && !delta.Whole {
			all, _ := l.s.opts.Cluster.LinksSince(0)
			rows = all.Links
		}
		if resp := w.take(delta, rows); resp != nil {
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-crossings:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// A linkKey names a row.
type linkKey struct {
	peer  belfry.NodeID
	index uint8
}

// A linkWatch is what one caller has been told.
type linkWatch struct {
	filter      *linkFilter
	self        string
	incarnation uint32
	from        uint64 // version that the caller has; 0: nothing
	told        uint64 // version that it was told last
	resumes     bool   // it had rows before that nothing is known of here
	first       bool
	has         map[linkKey]crossed // rows that it has, and what they are beyond
}

func newLinkWatch(view ClusterView, filter *linkFilter, req *belfryv1.WatchLinksRequest) *linkWatch {
	w := &linkWatch{
		filter: filter, self: nodeName(view, view.Self), incarnation: uint32(view.Incarnation),
		from: req.GetVersion(), resumes: req.GetVersion() != 0, first: true, has: map[linkKey]crossed{},
	}
	if req.GetIncarnation() != w.incarnation {
		w.from = 0
	} else if len(filter.thresholds) > 0 && w.resumes {
		w.from, w.resumes = 0, false // crossings meanwhile have no version
	}
	return w
}

// needsAll tells whether rows that did not change matter too: for what the
// caller has of them, and for what they have crossed.
func (w *linkWatch) needsAll() bool {
	return !w.filter.all() && (w.first || len(w.filter.thresholds) > 0)
}

// take is what the caller is to be told of a delta; nil: nothing. rows are those
// of the delta, or all.
func (w *linkWatch) take(delta cluster.LinkDelta, rows []cluster.LinkStatus) *belfryv1.WatchLinksResponse {
	resp := &belfryv1.WatchLinksResponse{
		NodeName: w.self, Incarnation: w.incarnation, Version: delta.Version,
		Snapshot: delta.Whole, Resync: delta.Whole && (w.first && w.resumes || w.from != 0),
	}
	news := w.first || delta.Whole && delta.Version != w.from
	if delta.Whole {
		w.has = map[linkKey]crossed{}
	}
	resuming := w.first && !delta.Whole
	for _, r := range delta.Removed {
		key := linkKey{r.Peer, r.Index}
		if _, had := w.has[key]; had || resuming || w.filter.all() {
			resp.Removed = append(resp.Removed, &belfryv1.RemovedLink{PeerId: r.Peer.String(), Peer: r.PeerName, Network: r.Network})
		}
		delete(w.has, key)
	}
	for i := range rows {
		w.row(resp, &rows[i], delta.Whole, resuming)
	}
	w.first, w.from = false, delta.Version
	if !news && len(resp.GetLinks())+len(resp.GetRemoved()) == 0 && delta.Version-w.told < versionEvery {
		return nil
	}
	w.told = delta.Version
	return resp
}

// row adds one row, if the caller has to be told of it.
func (w *linkWatch) row(resp *belfryv1.WatchLinksResponse, r *cluster.LinkStatus, whole, resuming bool) {
	key := linkKey{r.Peer, r.Index}
	before, had := w.has[key]
	beyond := w.filter.beyond(r, before)
	changed := whole || r.Version > w.from
	switch {
	case w.filter.means(r, beyond):
		w.has[key] = beyond
		if changed || !had && !resuming || beyond != before {
			resp.Links = append(resp.Links, linkOf(r))
		}
	case had || resuming && changed:
		delete(w.has, key)
		resp.Removed = append(resp.Removed, &belfryv1.RemovedLink{
			PeerId: r.Peer.String(), Peer: r.PeerName, Network: r.Network, State: r.State.String(),
		})
	}
}
