package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/agent"
)

// The methods that are called.
const (
	watchChanges   = belfryv1.WitnessService_WatchChanges_FullMethodName
	registerClient = belfryv1.WitnessService_RegisterClient_FullMethodName
)

// cluster is agents a, b and c; clients are registered at a for b.
type cluster struct {
	agents  *side.Agents
	tls     *tls.Config
	address string // of a
	client  *client.Client
	held    bool // an operator holds b unavailable
}

// startCluster takes as many registrations of one client as the parts together
// make.
func startCluster(ctx context.Context) (_ *cluster, err error) {
	c := &cluster{}
	if c.agents, err = side.StartAgents(ctx, 3); err != nil {
		return nil, err
	}
	if err = c.agents.Configure(ctx, "a", "witness: {max_per_principal: 20000, max_per_source: 20000}\n"); err != nil {
		return nil, errors.Join(err, c.agents.Stop())
	}
	if c.tls, err = agent.ClientTLS(c.agents.State("client")); err == nil {
		if c.client, err = client.Dial(ctx, c.agents.Socket("a")); err == nil {
			c.address, err = c.streams(ctx)
		}
	}
	if err != nil {
		_ = c.agents.Stop()
		return nil, err
	}
	return c, nil
}

// streams is where a takes clients of other machines.
func (c *cluster) streams(ctx context.Context) (string, error) {
	info, err := c.client.WitnessNodes(ctx, "bench", "b", nil)
	if err != nil {
		return "", err
	}
	for _, w := range info.GetWitnesses() {
		if w.GetNode() == "a" {
			return w.GetAddresses()[0], nil
		}
	}
	return "", fmt.Errorf("a is no witness: %v", info)
}

func (c *cluster) name() string { return "Belfry" }

// wish is a registration of its own for the node b.
func wish(i int) *belfryv1.ClientRegistration {
	return &belfryv1.ClientRegistration{Client: "bench " + strconv.Itoa(i), Resources: []string{"node/b"}}
}

func (c *cluster) open(ctx context.Context, i int) (*connection, error) {
	return c.openEvery(ctx, i, time.Minute)
}

// openEvery also says how often an idle witness says so.
func (c *cluster) openEvery(ctx context.Context, i int, keepAlive time.Duration) (*connection, error) {
	conn, err := connect(ctx, c.address, c.tls)
	if err != nil {
		return nil, err
	}
	return conn, conn.call(watchChanges, &belfryv1.WatchChangesRequest{Register: wish(i), KeepAlive: durationpb.New(keepAlive)}, true)
}

func (c *cluster) begun(message []byte) (bool, error) {
	var m belfryv1.WatchChangesResponse
	err := proto.Unmarshal(message, &m)
	return m.GetRegistered() != nil, err
}

func (c *cluster) news(message []byte) (bool, error) {
	var m belfryv1.WatchChangesResponse
	err := proto.Unmarshal(message, &m)
	// A doubt comes before some verdicts, and is not what is waited for.
	return slices.ContainsFunc(m.GetChanges(), func(c *belfryv1.ResourceChange) bool { return c.GetState() != "unknown" }), err
}

// change is an operator's word at a, which goes the way of a verdict.
func (c *cluster) change(ctx context.Context) (err error) {
	c.held = !c.held
	if c.held {
		_, err = c.client.SetResource(ctx, "node/b", belfry.ResourceUnavailable, time.Hour)
	} else {
		_, err = c.client.UnsetResource(ctx, "node/b")
	}
	return err
}

func (c *cluster) pid() int { return c.agents.PIDs["a"] }

func (c *cluster) stop() error {
	_ = c.client.Close()
	return c.agents.Stop()
}

// A verdict is when a came to hold something of b.
type verdict struct {
	to belfry.Verdict
	at time.Time
}

// verdicts are those of a about b, until ctx ends.
func (c *cluster) verdicts(ctx context.Context) (<-chan verdict, error) {
	s, err := c.client.Register(ctx, belfry.Registration{Class: "node.state", Subject: "b"})
	if err != nil {
		return nil, err
	}
	all := make(chan verdict, 64)
	go func() {
		defer s.Close()
		for {
			n, err := s.Next(ctx)
			if err != nil {
				return
			}
			if n.Kind != belfry.KindOccurrence {
				continue
			}
			var data belfryv1.NodeState
			if proto.Unmarshal(n.Data, &data) == nil {
				if to, err := belfry.ParseVerdict(data.GetTo()); err == nil {
					all <- verdict{to, n.Time}
				}
			}
		}
	}()
	return all, nil
}
