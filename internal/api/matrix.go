package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	// matrixTime is how long all nodes together have to answer.
	matrixTime = 2 * time.Second
	// matrixAsks is how many nodes are asked at once.
	matrixAsks = 32
)

// GetLinkMatrix asks all nodes for their link databases at once. Those that
// are down are not asked, so that a dead node costs no time.
func (l *linkService) GetLinkMatrix(ctx context.Context, req *belfryv1.GetLinkMatrixRequest) (*belfryv1.GetLinkMatrixResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, matrixTime)
	defer cancel()
	view := l.s.opts.Cluster.View()
	rows := make([]*belfryv1.LinkMatrixRow, len(view.Nodes))
	var asked sync.WaitGroup
	slots := make(chan struct{}, matrixAsks)
	for i := range view.Nodes {
		n := &view.Nodes[i]
		if n.ID != view.Self && (n.Verdict == belfry.VerdictDown || n.Verdict == belfry.VerdictLeft) {
			rows[i] = &belfryv1.LinkMatrixRow{Node: n.Name, Error: n.Verdict.String()}
			continue
		}
		asked.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			rows[i] = l.matrixRow(ctx, n.ID, n.Name, req.GetNetwork(), n.ID == view.Self)
		})
	}
	asked.Wait()
	slices.SortFunc(rows, func(a, b *belfryv1.LinkMatrixRow) int { return strings.Compare(a.GetNode(), b.GetNode()) })
	if err := knownNetwork(req.GetNetwork(), view, rows); err != nil {
		return nil, &belfry.Error{Op: "GetLinkMatrix", Subject: req.GetNetwork(), Err: err}
	}
	return &belfryv1.GetLinkMatrixResponse{Rows: rows}, nil
}

// knownNetwork refuses a network on which no node has a link.
func knownNetwork(network string, view ClusterView, rows []*belfryv1.LinkMatrixRow) error {
	if network == "" || slices.ContainsFunc(rows, func(r *belfryv1.LinkMatrixRow) bool { return len(r.GetCells()) > 0 }) {
		return nil
	}
	var networks []string
	for i := range view.Links {
		networks = append(networks, view.Links[i].Network)
	}
	slices.Sort(networks)
	return fmt.Errorf("%w: no link on network %q; one of %s", belfry.ErrNotFound, network, strings.Join(slices.Compact(networks), ", "))
}

// matrixRow asks one node, page by page.
func (l *linkService) matrixRow(ctx context.Context, id belfry.NodeID, name, network string, self bool) *belfryv1.LinkMatrixRow {
	row := &belfryv1.LinkMatrixRow{Node: name}
	for req := (&belfryv1.ListLinksRequest{Brief: true}); ; {
		var resp *belfryv1.ListLinksResponse
		var err error
		if self {
			resp, err = l.s.LocalLinks(ctx, req)
		} else {
			resp, err = l.s.opts.Cluster.PeerLinks(ctx, id, req)
		}
		if err != nil {
			return &belfryv1.LinkMatrixRow{Node: name, Error: err.Error()}
		}
		for _, r := range resp.GetLinks() {
			if network == "" || r.GetNetwork() == network {
				row.Cells = append(row.Cells, &belfryv1.LinkMatrixCell{
					Peer: r.GetPeer(), Network: r.GetNetwork(), State: r.GetState(), LossRatio: r.GetLossRatio(),
					RttKnown: r.GetRttKnown(), Rtt: r.GetRtt(), Jitter: r.GetJitter(), TwoWay: r.GetTwoWay(),
				})
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			row.Answered = true
			return row
		}
	}
}
