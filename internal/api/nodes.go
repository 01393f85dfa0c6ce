package api

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
)

type nodeService struct {
	belfryv1.UnimplementedNodeServiceServer
	s *Server
}

// GetStatus answers from memory.
func (n *nodeService) GetStatus(ctx context.Context, _ *belfryv1.GetStatusRequest) (*belfryv1.GetStatusResponse, error) {
	view := n.s.opts.Cluster.View()
	resp := &belfryv1.GetStatusResponse{
		ClusterId: view.ID.String(), ClusterName: view.Name,
		NodeId: view.Self.String(), NodeName: nodeName(view, view.Self),
		NodesTotal: uint32(len(view.Nodes)), LinksTotal: uint32(len(view.Links)),
		Time: timestamppb.New(view.Time), Generation: view.Generation,
		Nodes: nodesOf(view),
	}
	resp.Journal, resp.Producers = n.s.opts.Journal.Status(), n.s.opts.Producers()
	resp.Repository, resp.Licenses, resp.Witness = n.s.opts.Repository(), n.s.licensesStatus(), n.s.opts.WitnessStatus(ctx)
	var oldest time.Duration
	for i := range view.Nodes {
		if view.Nodes[i].Verdict == belfry.VerdictUp {
			resp.NodesUp++
		}
		oldest = max(oldest, factAge(view, &view.Nodes[i]))
	}
	for _, l := range view.Links {
		if l.Works {
			resp.LinksUp++
		}
	}
	resp.OldestFact = durationpb.New(oldest)
	return resp, nil
}

// ListNodes pages through the members by name.
func (n *nodeService) ListNodes(_ context.Context, req *belfryv1.ListNodesRequest) (*belfryv1.ListNodesResponse, error) {
	nodes, next, err := page(nodesOf(n.s.opts.Cluster.View()), req.GetPageSize(), req.GetPageToken(),
		func(n **belfryv1.Node) string { return (*n).GetName() + "\x00" + (*n).GetId() })
	if err != nil {
		return nil, &belfry.Error{Op: "ListNodes", Err: err}
	}
	return &belfryv1.ListNodesResponse{Nodes: nodes, NextPageToken: next}, nil
}

// GetNode is one member with the evidence of its verdict.
func (n *nodeService) GetNode(_ context.Context, req *belfryv1.GetNodeRequest) (*belfryv1.GetNodeResponse, error) {
	view := n.s.opts.Cluster.View()
	id, err := findNode(view, req.GetNode())
	if err != nil {
		return nil, &belfry.Error{Op: "GetNode", Subject: req.GetNode(), Err: err}
	}
	resp := &belfryv1.GetNodeResponse{}
	for i := range view.Nodes {
		if view.Nodes[i].ID == id {
			resp.Node = nodeOf(view, &view.Nodes[i])
		}
	}
	for _, e := range n.s.opts.Cluster.Why(id) {
		by := e.By
		if by.IsZero() {
			by = view.Self
		}
		resp.Evidence = append(resp.Evidence, &belfryv1.Evidence{
			Time: timestamp(e.Time), By: nodeName(view, by), Link: e.Link, Text: e.Text,
		})
	}
	return resp, nil
}

func nodesOf(view ClusterView) []*belfryv1.Node {
	nodes := make([]*belfryv1.Node, len(view.Nodes))
	for i := range view.Nodes {
		nodes[i] = nodeOf(view, &view.Nodes[i])
	}
	slices.SortFunc(nodes, func(a, b *belfryv1.Node) int {
		return strings.Compare(a.GetName()+"\x00"+a.GetId(), b.GetName()+"\x00"+b.GetId())
	})
	return nodes
}

func nodeOf(view ClusterView, n *cluster.NodeStatus) *belfryv1.Node {
	agent := view.Agents[n.ID]
	p := &belfryv1.Node{
		Id: n.ID.String(), Name: n.Name, Number: uint32(n.Number), Incarnation: uint32(n.Incarnation),
		Verdict: n.Verdict.String(), Cause: n.Cause.String(), Since: timestamp(n.Since),
		Observers: uint32(n.Observers), LinksUp: uint32(n.LinksUp), LinksTotal: uint32(n.LinksTotal),
		Interval: duration(n.Interval), MaxWait: duration(n.MaxWait),
		Addresses: agent.Addresses, Pid: agent.PID, Version: agent.Version, Started: timestamp(agent.Started),
		Report: reportOf(view, n.ID),
	}
	p.Duplicate = timestamp(view.Duplicates[n.ID])
	if n.ID == view.Self {
		p.Self = true
	} else {
		stream := view.Streams[n.ID]
		p.Stream = &belfryv1.PeerStream{Up: stream.Up, Since: timestamp(stream.Since), Error: stream.Error, PeerDials: stream.PeerDials}
		if stream.ClockOffset != nil {
			p.Stream.ClockOffset = durationpb.New(*stream.ClockOffset)
		}
	}
	p.Note = noteOf(view, n)
	if p.Self {
		return p
	}
	p.LastHeard = timestamp(n.LastHeard)
	if !n.LastHeard.IsZero() {
		p.Age = durationpb.New(factAge(view, n))
	}
	return p
}

// streamNote is from when on it is worth a note that a stream is missing: longer
// than it takes to open one.
const streamNote = 10 * time.Second

// noteOf is what is most worth knowing of a node.
func noteOf(view ClusterView, n *cluster.NodeStatus) string {
	stream, known := view.Streams[n.ID]
	_, twice := view.Duplicates[n.ID]
	switch {
	case twice:
		return "a second agent runs with its identity"
	case n.ID == view.Self:
		return "this node"
	case n.Verdict == belfry.VerdictStalled && n.Cause == belfry.CauseRestarting:
		return "its agent was stopped, or starts again"
	case !n.PostAt.IsZero():
		return "determined, not posted"
	case known && !stream.Up && n.Verdict == belfry.VerdictUp && view.Time.Sub(stream.Since) > streamNote:
		return "no stream: see belfry doctor streams"
	}
	return ""
}

// reportOf is nil for a member that did not answer the last poll.
func reportOf(view ClusterView, node belfry.NodeID) *belfryv1.MemberReport {
	r, ok := view.Reports[node]
	if !ok {
		return nil
	}
	return &belfryv1.MemberReport{
		Asked:           timestamp(r.Asked),
		ClockOffset:     durationpb.New(r.ClockOffset),
		Generation:      r.Generation,
		AskerGeneration: r.AskerGeneration,
		Authority:       hex.EncodeToString(r.Authority[:]),
		CertificateEnd:  timestamp(r.CertificateEnd),
	}
}

// factAge is how old the newest fact about a node is; 0 for this node and for
// one that was never heard.
func factAge(view ClusterView, n *cluster.NodeStatus) time.Duration {
	if n.ID == view.Self || n.LastHeard.IsZero() {
		return 0
	}
	return max(0, view.Time.Sub(n.LastHeard))
}

// timestamp is nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// duration is nil for zero.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
