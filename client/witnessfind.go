package client

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// How a post finds the witnesses that it may register at.

// find is the witnesses that may be tried, and the registration at the first of them
// that was made in the same call; nil: none was. What a delegated registration is
// refused for the next call tells.
func (p *post) find(ctx context.Context) ([]candidate, *belfryv1.RegisterClientResponse, error) {
	if p.config.Delegate && p.config.TLS != nil {
		for _, seed := range p.config.Seeds {
			if candidates, registered := p.delegate(ctx, seed); registered != nil {
				return candidates, registered, nil
			}
		}
	}
	candidates, err := p.discover(ctx)
	return candidates, nil, err
}

// delegate is one request for discovery and registration (US8949402 claim 6).
func (p *post) delegate(ctx context.Context, seed string) ([]candidate, *belfryv1.RegisterClientResponse) {
	ctx, over := outlast(ctx, func() bool { return true })
	defer over(nil)
	ctx, cancel := context.WithTimeout(ctx, p.patience(registerWait))
	defer cancel()
	c, err := p.dial(ctx, seed)
	if err != nil {
		return nil, nil
	}
	defer c.Close()
	p.mu.Lock()
	at := p.at
	p.mu.Unlock()
	info, err := c.witness.GetNodeInformation(ctx, &belfryv1.GetNodeInformationRequest{
		Client: p.config.Name, Accessed: at, Resources: p.config.Resources, Register: p.registration(at), Delegate: true,
	})
	if err != nil {
		return nil, nil
	}
	p.mu.Lock()
	p.seeds[info.GetNodeName()] = seed
	p.mu.Unlock()
	return p.reachable(info.GetWitnesses()), info.GetRegistered()
}

// discover takes the first ranking that comes. Without certificates all seeds are
// asked at once, since the others say which node they are. With them one answer is
// enough, so the seeds are asked in random order, the next one when the last has
// failed or is slow: thousands of clients whose witness has died would else fill the
// doors of all agents with handshakes that nobody needs.
func (p *post) discover(ctx context.Context) ([]candidate, error) {
	sealed := p.config.TLS != nil
	left, wait, stagger := slices.Clone(p.config.Seeds), seedWait, time.Duration(0)
	if sealed {
		mathrand.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
		wait, stagger = registerWait, seedStagger
	}
	p.mu.Lock()
	at := p.at
	p.mu.Unlock()
	answers := make(chan seedAnswer, len(left))
	ctx, cancel := context.WithTimeout(ctx, p.patience(wait))
	defer cancel()
	slow := time.NewTimer(0)
	defer slow.Stop()
	var ranking []*belfryv1.WitnessNode
	var failed error
	answered, asked := false, 0
	defer func() { // of those that are not needed any more
		go func() {
			for range asked {
				if a := <-answers; a.err == nil {
					_ = a.conn.Close()
				}
			}
		}()
	}()
	for asked+len(left) > 0 && (!answered || !sealed) {
		next := slow.C
		if len(left) == 0 {
			next = nil
		}
		select {
		case <-next:
			seed := left[0]
			left, asked = left[1:], asked+1
			go func() { answers <- p.askSeed(ctx, seed, at) }()
			slow.Reset(stagger)
		case a := <-answers:
			asked--
			if a.err != nil {
				failed = a.err
				slow.Reset(0)
				continue
			}
			p.mu.Lock()
			p.seeds[a.info.GetNodeName()] = a.seed
			p.mu.Unlock()
			answered = true
			if ranking == nil {
				ranking = a.info.GetWitnesses()
			}
			if sealed {
				p.asked = &askedSeed{a.info.GetNodeName(), a.conn}
			} else {
				_ = a.conn.Close()
			}
		}
	}
	candidates := p.reachable(ranking)
	if len(candidates) == 0 && answered {
		return nil, fmt.Errorf("%w: no witness can be reached; each agent that answers is draining, or its address needs a certificate", belfry.ErrRestricted)
	}
	if len(candidates) > 0 {
		failed = nil
	}
	return candidates, failed
}

// A seedAnswer is what one seed says of the witnesses.
type seedAnswer struct {
	seed string
	conn *Client // open, unless err says why not
	info *belfryv1.GetNodeInformationResponse
	err  error
}

func (w *Witness) askSeed(ctx context.Context, seed, at string) seedAnswer {
	c, err := w.dial(ctx, seed)
	if err != nil {
		return seedAnswer{seed: seed, err: err}
	}
	info, err := c.WitnessNodes(ctx, w.config.Name, at, w.config.Resources)
	if err != nil {
		return seedAnswer{seed: seed, err: errors.Join(err, c.Close())}
	}
	return seedAnswer{seed, c, info, nil}
}

// An askedSeed is the connection to an agent that has said which witnesses there are.
// If it is one of them it need not be dialled again.
type askedSeed struct {
	node string
	conn *Client
}

// reach is a connection to a witness.
func (p *post) reach(ctx context.Context, c candidate) (*Client, error) {
	if p.asked != nil && p.asked.node == c.node {
		conn := p.asked.conn
		p.asked = nil
		return conn, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.patience(registerWait))
	defer cancel()
	return p.dial(ctx, c.target)
}

// dismiss closes the connection to the agent that was asked, if it is not used.
func (p *post) dismiss() {
	if p.asked != nil {
		_ = p.asked.conn.Close()
		p.asked = nil
	}
}

// reachable are the witnesses of a ranking that can be dialled, in its order.
func (w *Witness) reachable(ranking []*belfryv1.WitnessNode) (all []candidate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range ranking {
		target := w.seeds[n.GetNode()]
		if target == "" && w.config.TLS != nil && len(n.GetAddresses()) > 0 {
			target = n.GetAddresses()[0]
		}
		if target != "" {
			all = append(all, candidate{n.GetNode(), target})
		}
	}
	return all
}

// others are the witnesses to try when one is left, without that one.
func (w *Witness) others(ranking []*belfryv1.WitnessNode, left candidate) []candidate {
	return slices.DeleteFunc(w.reachable(ranking), func(c candidate) bool { return c.node == left.node })
}
