package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// verdicts are when each node's verdict began, by name; all of them are up.
type verdicts map[string]time.Time

// cutDirection drops what a sends to b on net2, and takes that back. The
// network that is cut later is the other one, because a link that is cut twice
// within a minute is flapping, as it should be.
func (d *demo) cutDirection(ctx context.Context) (_ []figure, err error) {
	if d.network.missing != "" {
		return nil, skipReason(d.network.missing)
	}
	if d.before, err = d.allUp(ctx); err != nil {
		return nil, err
	}
	a, b := d.cluster.nodes[0].Networks[1], d.cluster.nodes[1].Networks[1]
	cut := time.Now()
	if err := d.network.drop(ctx, fmt.Sprintf("ip saddr %v ip daddr %v", a.Heartbeat.Addr(), b.Heartbeat.Addr())); err != nil {
		return nil, err
	}
	oneWay := map[string]string{"a/b": belfry.LinkOneWayIn.String(), "b/a": belfry.LinkOneWayOut.String()}
	if _, err := d.waitLinks(ctx, a.Name, oneWay); err != nil {
		return nil, err
	}
	seen := time.Since(cut)
	if err := d.noVerdictChanged(ctx); err != nil {
		return nil, err
	}
	healed := time.Now()
	if err := d.network.heal(ctx); err != nil {
		return nil, err
	}
	if _, err := d.waitLinks(ctx, a.Name, nil); err != nil {
		return nil, err
	}
	return []figure{
		{"network", a.Name},
		{"a_of_b", oneWay["a/b"]},
		{"b_of_a", oneWay["b/a"]},
		{"nodes_up", len(d.before)},
		{"latency", seen},
		{"healed_after", time.Since(healed)},
	}, nil
}

// cutNetwork drops all of net1. What a is told comes over its socket; what it
// asks the others goes over net2, to which the streams move.
func (d *demo) cutNetwork(ctx context.Context) ([]figure, error) {
	if d.network.missing != "" {
		return nil, skipReason(d.network.missing)
	}
	net1 := d.cluster.nodes[0].Networks[0]
	for _, r := range []belfry.Registration{{Class: "link.state", Subject: "*/" + net1.Name}, {Class: "contact.state", Subject: "*"}} {
		if err := d.main.register(ctx, r); err != nil {
			return nil, fmt.Errorf("%s:%s: %w", r.Class, r.Subject, err)
		}
	}
	cut := time.Now()
	prefix, err := net1.Heartbeat.Addr().Prefix(net1.Bits)
	if err != nil {
		return nil, err
	}
	if err := d.network.drop(ctx, fmt.Sprintf("ip saddr %v", prefix)); err != nil {
		return nil, err
	}
	if err := d.toldOfLinks(ctx, net1.Name, belfry.LinkDown); err != nil {
		return nil, err
	}
	told := time.Since(cut)
	general, err := d.generalStates(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.nothingElse(ctx); err != nil {
		return nil, err
	}
	return []figure{{"network", net1.Name}, {"links_down", len(general)}, {"peers", strings.Join(general, ",")}, {"nodes_up", len(d.before)}, {"latency", told}}, nil
}

// healNetwork waits until every link works, as status counts it: one that has
// lost more than its share is degraded for most of a minute, until what the cut
// took is no longer among its newest datagrams.
func (d *demo) healNetwork(ctx context.Context) ([]figure, error) {
	if d.network.missing != "" {
		return nil, skipReason(d.network.missing)
	}
	healed := time.Now()
	if err := d.network.heal(ctx); err != nil {
		return nil, err
	}
	network := d.cluster.nodes[0].Networks[0].Name
	if err := d.toldOfLinks(ctx, network, belfry.LinkUp, belfry.LinkDegraded); err != nil {
		return nil, err
	}
	told := time.Since(healed)
	degraded, err := d.waitLinks(ctx, "", nil)
	if err != nil {
		return nil, err
	}
	took := time.Since(healed)
	if err := d.nothingElse(ctx); err != nil {
		return nil, err
	}
	status, err := d.main.client.Status(ctx)
	if err != nil {
		return nil, err
	}
	return []figure{{"links_up", status.GetLinksUp()}, {"links_total", status.GetLinksTotal()}, {"degraded", degraded}, {"nodes_up", len(d.before)}, {"latency", told}, {"all_up_after", took}}, nil
}

// toldOfLinks waits until the consumer has been told that the links to both
// peers on a network are in one of the states.
func (d *demo) toldOfLinks(ctx context.Context, network string, states ...belfry.LinkState) error {
	for _, peer := range d.cluster.nodes[1:] {
		subject := peer.Name + "/" + network
		_, err := d.main.next(ctx, "link.state", func(n belfry.Notification) bool {
			return occurrence(n) && n.Event.Subject == subject && isOneOf(fieldOf(n, "to"), states)
		})
		if err != nil {
			return fmt.Errorf("link.state:%s %v: %w", subject, states, err)
		}
	}
	return nil
}

func isOneOf(name string, states []belfry.LinkState) bool {
	return slices.ContainsFunc(states, func(s belfry.LinkState) bool { return s.String() == name })
}

// generalStates are the states of a's peers in general, as PEER=STATE. One
// that is not up is an error.
func (d *demo) generalStates(ctx context.Context) (states []string, err error) {
	stream, err := d.main.client.Register(ctx, belfry.Registration{Class: "contact.state", Subject: "*", Snapshot: true})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for len(states) < len(d.cluster.nodes)-1 {
		n, err := stream.Next(ctx)
		if err != nil {
			return nil, err
		}
		if n.Kind != belfry.KindState {
			continue
		}
		if to := fieldOf(n, "to"); to != "up" {
			return nil, fmt.Errorf("%s is %s in general, though one of its two networks works", n.Event.Subject, to)
		}
		states = append(states, n.Event.Subject+"=up")
	}
	return states, nil
}

// nothingElse fails if the consumer was told that a peer or a node changed, or
// a node did. Both ways, because neither waits for the other.
func (d *demo) nothingElse(ctx context.Context) error {
	for _, n := range d.main.kept {
		since := d.before[n.Event.Subject]
		if occurrence(n) && (n.Event.Class == "contact.state" || n.Event.Class == "node.state" && n.Time.After(since)) {
			return fmt.Errorf("told that %s of %s is %s", n.Event.Class, n.Event.Subject, fieldOf(n, "to"))
		}
	}
	return d.noVerdictChanged(ctx)
}

// noVerdictChanged fails if a verdict is not the one from before the cuts.
func (d *demo) noVerdictChanged(ctx context.Context) error {
	now, err := d.allUp(ctx)
	if err == nil && !maps.EqualFunc(now, d.before, time.Time.Equal) {
		err = errors.New("a verdict has changed and come back meanwhile")
	}
	return err
}

func (d *demo) allUp(ctx context.Context) (verdicts, error) {
	nodes, err := d.main.client.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	since := verdicts{}
	for _, n := range nodes {
		if n.GetVerdict() != belfry.VerdictUp.String() {
			return nil, fmt.Errorf("%s is %s", n.GetName(), n.GetVerdict())
		}
		since[n.GetName()] = n.GetSince().AsTime()
	}
	return since, nil
}

// waitLinks waits until every node holds each of its links on a network (empty:
// on all) to be in the state that want has for NODE/PEER, else to work. It says
// how many of them work badly, each end counted.
func (d *demo) waitLinks(ctx context.Context, network string, want map[string]string) (degraded int, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		matrix, err := d.main.client.LinkMatrix(ctx, network)
		if err == nil {
			degraded, err = compareLinks(matrix, want)
		}
		if err == nil {
			return degraded, nil
		}
		if ctx.Err() == nil { // else it only says that the time is over
			last = err
		}
		select {
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// compareLinks names the first row or link that is not as it is wanted.
func compareLinks(matrix *belfryv1.GetLinkMatrixResponse, want map[string]string) (degraded int, err error) {
	for _, row := range matrix.GetRows() {
		if !row.GetAnswered() {
			return 0, fmt.Errorf("%s: %s", row.GetNode(), row.GetError())
		}
		for _, cell := range row.GetCells() {
			state := want[row.GetNode()+"/"+cell.GetPeer()]
			switch {
			case state == "" && cell.GetState() == belfry.LinkDegraded.String():
				degraded++
				continue
			case state == "":
				state = belfry.LinkUp.String()
			}
			if cell.GetState() != state {
				return 0, fmt.Errorf("%s holds its link to %s on %s %s; want %s", row.GetNode(), cell.GetPeer(), cell.GetNetwork(), cell.GetState(), state)
			}
		}
	}
	return degraded, nil
}
