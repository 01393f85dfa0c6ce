package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// demoResource is what the client with a witness follows.
const demoResource = "service/demo"

// demoWitnessed are the processes of the last steps.
type demoWitnessed struct {
	services map[string]*demoProgram // by node
	client   *demoProgram            // at a, with a witness
	control  *demoProgram            // at a, without one
}

func (w *demoWitnessed) close() {
	for _, p := range []*demoProgram{w.services["b"], w.services["c"], w.client, w.control} {
		if p != nil {
			p.close()
		}
	}
}

// useService connects two clients to a service at b. It can be used at c as well
// from then on.
func (d *demo) useService(ctx context.Context) (_ []figure, err error) {
	w := &d.witnessed
	w.services = map[string]*demoProgram{}
	// The last port of the block of a: it is this cluster's at each address.
	port := d.cluster.nodes[0].Networks[0].Heartbeat.Port() + portBlock - 1
	at := map[string]string{}
	for _, n := range d.cluster.nodes[1:] {
		at[n.Name] = netip.AddrPortFrom(n.Networks[0].Heartbeat.Addr(), port).String()
		if w.services[n.Name], err = startDemoProgram("service", n.Name, at[n.Name]); err != nil {
			return nil, err
		}
		if _, err := w.services[n.Name].next(ctx, demoListening); err != nil {
			return nil, fmt.Errorf("%s at %s: %w", n.Name, at[n.Name], err)
		}
	}
	if err := d.declareService(ctx, "b"); err != nil {
		return nil, err
	}
	seeds := []string{"--seed", "unix:" + d.cluster.nodes[0].socket, "--seed", "unix:" + d.cluster.nodes[2].socket}
	if w.client, err = startDemoProgram(append([]string{"client", at["b"], "--resource", demoResource}, seeds...)...); err != nil {
		return nil, err
	}
	if w.control, err = startDemoProgram("client", at["b"]); err != nil {
		return nil, err
	}
	for _, p := range []*demoProgram{w.client, w.control} {
		l, err := p.next(ctx, demoAnswered)
		if err != nil {
			return nil, err
		}
		if l.By != "b" {
			return nil, fmt.Errorf("answered by %q; b was to", l.By)
		}
	}
	if err := d.declareService(ctx, "b", "c"); err != nil {
		return nil, err
	}
	witness, err := d.waitWatched(ctx)
	if err != nil {
		return nil, err
	}
	return []figure{{"resource", demoResource}, {"holders", "b,c"}, {"connected_to", at["b"]}, {"witness", witness}}, nil
}

func (d *demo) declareService(ctx context.Context, holders ...string) error {
	_, err := d.main.client.DeclareResource(ctx, &belfryv1.DeclaredResource{Name: demoResource, Holders: holders}, false)
	return err
}

// waitWatched waits until the client's witness knows that it uses b, and that c can be
// used too. It is the name of that witness.
func (d *demo) waitWatched(ctx context.Context) (witness string, err error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := d.main.client.ListWitness(ctx, &belfryv1.ListWitnessRequest{})
		for _, n := range list.GetNodes() {
			listens := slices.ContainsFunc(n.GetRegistrations(), func(r *belfryv1.WitnessRegistration) bool {
				return r.GetClient() == "demo" && r.GetAt() != "" && r.GetWaits() > 0
			})
			if listens && bothAvailable(n.GetResources()) {
				return n.GetNode(), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func bothAvailable(all []*belfryv1.WitnessResource) bool {
	return slices.ContainsFunc(all, func(r *belfryv1.WitnessResource) bool {
		available := 0
		for _, i := range r.GetInstances() {
			if i.GetState() == belfry.ResourceAvailable.String() {
				available++
			}
		}
		return r.GetName() == demoResource && available == 2
	})
}

// killHolder has b vanish: its service stands still and its agent is killed. The kernel
// would reset the connections of a service that is killed; that of a machine which has
// lost its power does not, and here both share one. So the service is only stopped.
func (d *demo) killHolder(ctx context.Context) ([]figure, error) {
	w := &d.witnessed
	killed := time.Now()
	if err := w.services["b"].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	if err := d.cluster.nodes[1].signal(syscall.SIGKILL); err != nil {
		return nil, err
	}
	lost, err := w.client.next(ctx, demoLost)
	if err != nil {
		return nil, fmt.Errorf("the client is not told: %w", err)
	}
	moved, err := w.client.next(ctx, demoAnswered)
	if err != nil {
		return nil, fmt.Errorf("the client does not go on: %w", err)
	}
	if moved.By != "c" {
		return nil, fmt.Errorf("answered by %q; c was to", moved.By)
	}
	if err := w.control.ask(ctx); err != nil {
		return nil, fmt.Errorf("the client without a witness: %w", err)
	}
	return []figure{
		{"node", "b"},
		{"told", lost.Error},
		{"told_after", lost.At.Sub(killed)},
		{"moved_to", moved.By},
		{"moved_after", moved.At.Sub(killed)},
		{"without_witness", demoWaiting},
		{"waits_since", time.Since(killed)},
	}, nil
}
