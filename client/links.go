package client

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// LinkFilter says which links are meant: those that are of one of each list that
// is not empty and, where there are thresholds, beyond at least one of them. The
// zero filter means all.
type LinkFilter struct {
	Peers      []string // names or ids
	Networks   []string
	Interfaces []string // of the node whose links they are
	States     []belfry.LinkState
	LossOver   *float64      // share of the newest 64 heartbeats; from 0 to less than 1; nil: no threshold
	RTTOver    time.Duration // mean round trip, up to 1 minute; 0: no threshold
	JitterOver time.Duration // up to 1 minute; 0: no threshold
}

func (f *LinkFilter) message() *belfryv1.LinkFilter {
	m := &belfryv1.LinkFilter{Peers: f.Peers, Networks: f.Networks, Interfaces: f.Interfaces, LossOverRatio: f.LossOver}
	for _, s := range f.States {
		m.States = append(m.States, s.String())
	}
	if f.RTTOver != 0 {
		m.RttOver = durationpb.New(f.RTTOver)
	}
	if f.JitterOver != 0 {
		m.JitterOver = durationpb.New(f.JitterOver)
	}
	return m
}

// Links is the link database of the agent's node by peer; peer, a name or id,
// narrows it. ErrNotFound if peer is not a member.
func (c *Client) Links(ctx context.Context, peer string) (*belfryv1.ListLinksResponse, error) {
	return c.LinksOf(ctx, "", peer)
}

// LinksOf is the link database of another node, by name or id, which is asked
// for it: what it hears, not what this one does. An empty node is the agent's
// own. ErrNotFound if node or peer is not a member.
func (c *Client) LinksOf(ctx context.Context, node, peer string) (*belfryv1.ListLinksResponse, error) {
	return c.listLinks(ctx, &belfryv1.ListLinksRequest{Node: node, Peer: peer})
}

// LinksWhere is what a filter means of the link database of a node, by name or
// id; an empty node is the agent's own. ErrNotFound if the node or a peer is not
// a member, ErrUsage if a value of the filter makes no sense.
func (c *Client) LinksWhere(ctx context.Context, node string, filter LinkFilter) (*belfryv1.ListLinksResponse, error) {
	return c.listLinks(ctx, &belfryv1.ListLinksRequest{Node: node, Filter: filter.message()})
}

// listLinks gathers all pages.
func (c *Client) listLinks(ctx context.Context, req *belfryv1.ListLinksRequest) (*belfryv1.ListLinksResponse, error) {
	var all *belfryv1.ListLinksResponse
	for {
		resp, err := c.links.ListLinks(ctx, req)
		if err != nil {
			return nil, c.errorOf(err)
		}
		if all == nil {
			all = resp
		} else {
			all.Links = append(all.Links, resp.GetLinks()...)
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			all.NextPageToken = ""
			return all, nil
		}
	}
}

// WatchLinks is what a filter means of the link database of the agent's node, and
// then what changes of it, until ctx ends or the agent does, which the last value
// says. Incarnation and version are those of the last response of an earlier call
// with the same filter, to go on there; zero: from the beginning. ErrUsage if a
// value of the filter makes no sense, ErrNotFound if a peer is not a member.
func (c *Client) WatchLinks(ctx context.Context, filter LinkFilter, incarnation uint32, version uint64) iter.Seq2[*belfryv1.WatchLinksResponse, error] {
	return func(yield func(*belfryv1.WatchLinksResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.links.WatchLinks(ctx, &belfryv1.WatchLinksRequest{Incarnation: incarnation, Version: version, Filter: filter.message()})
		for err == nil {
			var resp *belfryv1.WatchLinksResponse
			if resp, err = stream.Recv(); err == nil && !yield(resp, nil) {
				return
			}
		}
		yield(nil, c.errorOf(err))
	}
}
