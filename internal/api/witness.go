package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/witness"
)

// Witness is the witness loop as the API sees it. It is safe for concurrent use;
// its errors wrap sentinels.
type Witness interface {
	// Ask sends a message and waits for its answer. When ctx ends the call does.
	Ask(ctx context.Context, r witness.Request) (witness.Answer, error)
	// NodeInformation is the witnesses by rank; incomplete: fewer than two.
	NodeInformation(ctx context.Context, q witness.Question) (all []witness.Witness, incomplete bool, err error)
	// Listing is what this node's witness holds.
	Listing(ctx context.Context) (WitnessListing, error)
	// Settings are how long an idle wait lasts, and an unused registration.
	Settings() (keepAlive, unused time.Duration)
	// PeerWitness asks another node: it waits, as long as ctx allows.
	PeerWitness(ctx context.Context, node belfry.NodeID, method string, req, resp proto.Message) error
}

// A WitnessListing is what one witness holds.
type WitnessListing struct {
	Registrations []witness.Status
	Resources     []witness.ResourceStatus
	Draining      bool
}

// noWitness is the witness of an agent that has none.
type noWitness struct{}

var errNoWitness = fmt.Errorf("%w: this agent is no witness; register at another one", belfry.ErrUnsupported)

func (noWitness) Ask(context.Context, witness.Request) (witness.Answer, error) {
	return witness.Answer{}, errNoWitness
}

func (noWitness) NodeInformation(context.Context, witness.Question) ([]witness.Witness, bool, error) {
	return nil, true, errNoWitness
}

func (noWitness) Listing(context.Context) (WitnessListing, error) {
	return WitnessListing{}, errNoWitness
}

func (noWitness) Settings() (keepAlive, unused time.Duration) { return 0, 0 }

func (noWitness) PeerWitness(context.Context, belfry.NodeID, string, proto.Message, proto.Message) error {
	return errNoWitness
}

// The bounds of what a caller may wish for.
const (
	waitDefault  = 30 * time.Second
	waitMost     = 2 * time.Minute
	keepAliveMin = time.Second
	keepAliveMax = time.Minute
)

type witnessService struct {
	belfryv1.UnimplementedWitnessServiceServer
	s      *Server
	newest atomic.Pointer[changeStamp]
}

// ownerOf is who a registration belongs to. It outlives its connection, so that
// the client can go on with another one.
func ownerOf(ctx context.Context) witness.Owner {
	subject := subjectFrom(ctx)
	o := witness.Owner{Protocol: "native", Principal: subject.String(), Source: subject.String()}
	if from, ok := peer.FromContext(ctx); ok && from.Addr != nil {
		if addr, err := netip.ParseAddrPort(from.Addr.String()); err == nil {
			o.Source = addr.Addr().Unmap().String()
		}
	}
	return o
}

// GetNodeInformation answers from memory, and registers if that is asked for.
func (w *witnessService) GetNodeInformation(ctx context.Context, req *belfryv1.GetNodeInformationRequest) (*belfryv1.GetNodeInformationResponse, error) {
	const op = "GetNodeInformation"
	q := witness.Question{Client: req.GetClient(), Accessed: req.GetAccessed()}
	var err error
	if q.Resources, err = resourcesOf(req.GetResources()); err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	all, incomplete, err := w.s.opts.Witness.NodeInformation(ctx, q)
	if err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	resp := &belfryv1.GetNodeInformationResponse{Witnesses: witnessNodes(all), Incomplete: incomplete, NodeName: w.s.nodeName()}
	switch {
	case req.GetRegister() == nil && req.GetDelegate():
		return nil, &belfry.Error{Op: op, Err: fmt.Errorf("%w: delegate without register; say what is to be registered", belfry.ErrUsage)}
	case req.GetRegister() == nil:
	case req.GetDelegate():
		resp.Registered, err = w.delegate(ctx, op, all, req.GetRegister())
	default:
		resp.Registered, err = w.register(ctx, op, req.GetRegister())
	}
	return resp, err
}

// delegate registers at the first of the witnesses, for who asks here: as the same
// principal, who has to watch it there (US8949402 claim 6).
func (w *witnessService) delegate(ctx context.Context, op string, ranking []witness.Witness, r *belfryv1.ClientRegistration) (*belfryv1.RegisterClientResponse, error) {
	switch {
	case len(ranking) == 0:
		return nil, &belfry.Error{Op: op, Err: fmt.Errorf("%w: there is no witness now; try again", belfry.ErrRestricted)}
	case ranking[0].Node == w.s.opts.Cluster.View().Self:
		return w.register(ctx, op, r)
	}
	msg, err := w.registerMessage(ctx, r)
	if err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	r.Key = msg.Key.String() // said twice it is one
	resp := &belfryv1.RegisterClientResponse{}
	request := &belfryv1.DelegatedRegistration{Principal: msg.Owner.Principal, Registration: r}
	if err := w.s.opts.Witness.PeerWitness(ctx, ranking[0].Node, WitnessDelegated, request, resp); err != nil {
		return nil, &belfry.Error{Op: op, Subject: ranking[0].Name, Err: err}
	}
	return resp, nil
}

// WitnessDelegated is the call between members that registers for a client of the
// one that asks, which has judged it.
const WitnessDelegated = belfryv1.WitnessService_RegisterClient_FullMethodName + "/for"

// Delegated is for WitnessDelegated.
func (l LocalWitness) Delegated(ctx context.Context, req *belfryv1.DelegatedRegistration) (*belfryv1.RegisterClientResponse, error) {
	w := &witnessService{s: l.s}
	msg, err := readRegistration(req.GetRegistration())
	if err != nil {
		return nil, err
	}
	msg.Owner = witness.Owner{Protocol: "native", Principal: req.GetPrincipal()}
	return w.registered(ctx, "RegisterClient", msg)
}

// nodeName is this node's.
func (s *Server) nodeName() string {
	view := s.opts.Cluster.View()
	return nodeName(view, view.Self)
}

// RegisterClient waits for the word of the holders, 500 ms at most.
func (w *witnessService) RegisterClient(ctx context.Context, req *belfryv1.RegisterClientRequest) (*belfryv1.RegisterClientResponse, error) {
	return w.register(ctx, "RegisterClient", req.GetRegistration())
}

func (w *witnessService) register(ctx context.Context, op string, r *belfryv1.ClientRegistration) (*belfryv1.RegisterClientResponse, error) {
	msg, err := w.registerMessage(ctx, r)
	if err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	return w.registered(ctx, op, msg)
}

// registered is the answer to a registration.
func (w *witnessService) registered(ctx context.Context, op string, msg witness.Register) (*belfryv1.RegisterClientResponse, error) {
	a, err := w.s.opts.Witness.Ask(ctx, msg)
	if err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	all, _, err := w.s.opts.Witness.NodeInformation(ctx, witness.Question{Client: msg.Client, Accessed: msg.At, Resources: msg.Resources})
	if err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	keepAlive, unused := w.s.opts.Witness.Settings()
	resp := &belfryv1.RegisterClientResponse{
		Registration: msg.Key.String(), NodeName: w.s.nodeName(), Witnesses: witnessNodes(all),
		KeepAlive: durationpb.New(keepAlive), Unused: durationpb.New(unused),
	}
	for _, p := range a.States {
		resp.Resources = append(resp.Resources, &belfryv1.PresentResource{Change: w.changeOf(&p.Change), Changed: p.Changed})
	}
	return resp, nil
}

// registerMessage reads what a client sent, who has to have the right to observe
// those resources that are events.
func (w *witnessService) registerMessage(ctx context.Context, r *belfryv1.ClientRegistration) (witness.Register, error) {
	msg, err := readRegistration(r)
	if err != nil {
		return msg, err
	}
	msg.Owner = ownerOf(ctx)
	for _, name := range msg.Resources {
		if class, subject := name.Event(); class != "" {
			observed := belfry.Registration{Class: string(class), Subject: subject, Scope: belfry.ScopeCluster}
			if err := w.s.judgeClass(subjectFrom(ctx), observed); err != nil {
				return msg, err
			}
		}
	}
	return msg, nil
}

func readRegistration(r *belfryv1.ClientRegistration) (msg witness.Register, err error) {
	msg = witness.Register{
		Client: r.GetClient(), At: r.GetAt(),
		Eager: r.GetEager(), AllowMissing: r.GetAllowMissing(), LastMove: r.GetLastMove(),
	}
	if r.GetKey() == "" {
		rand.Read(msg.Key[:])
	} else if msg.Key, err = witness.ParseKey(r.GetKey()); err != nil {
		return msg, err
	}
	if msg.Resources, err = resourcesOf(r.GetResources()); err != nil {
		return msg, err
	}
	for _, k := range r.GetKnown() {
		known, err := knownOf(k)
		if err != nil {
			return msg, err
		}
		msg.Known = append(msg.Known, known)
	}
	return msg, nil
}

// UnregisterClient ends a registration.
func (w *witnessService) UnregisterClient(ctx context.Context, req *belfryv1.UnregisterClientRequest) (*belfryv1.UnregisterClientResponse, error) {
	const op = "UnregisterClient"
	key, err := witness.ParseKey(req.GetRegistration())
	if err == nil {
		_, err = w.s.opts.Witness.Ask(ctx, witness.Unregister{Owner: ownerOf(ctx), Key: key})
	}
	if err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	return &belfryv1.UnregisterClientResponse{}, nil
}

// WaitChanges is one long poll.
func (w *witnessService) WaitChanges(ctx context.Context, req *belfryv1.WaitChangesRequest) (*belfryv1.WaitChangesResponse, error) {
	const op = "WaitChanges"
	key, err := witness.ParseKey(req.GetRegistration())
	wait := waitDefault
	if d := req.GetTimeout(); d != nil {
		wait = d.AsDuration()
	}
	if err == nil && (wait <= 0 || wait > waitMost) {
		err = fmt.Errorf("%w: timeout %s; more than 0, up to %s", belfry.ErrUsage, wait, waitMost)
	}
	if err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	a, err := w.s.opts.Witness.Ask(ctx, witness.Wait{Owner: ownerOf(ctx), Key: key, For: wait})
	if err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	return &belfryv1.WaitChangesResponse{Changes: w.changesOf(a.Changes), TimedOut: len(a.Changes) == 0}, nil
}

// WatchChanges asks for the next changes when those before are with the
// connection: what a slow reader has not taken merges in the registry.
func (w *witnessService) WatchChanges(req *belfryv1.WatchChangesRequest, stream grpc.ServerStreamingServer[belfryv1.WatchChangesResponse]) error {
	const op = "WatchChanges"
	err := w.watch(stream.Context(), op, req, stream.Send)
	if of := (*belfry.Error)(nil); !errors.As(err, &of) && belfry.Code(err) != belfry.Code(belfry.ErrUnknown) {
		return &belfry.Error{Op: op, Err: err}
	}
	return err
}

// watch ends with an error, be it that of ctx.
func (w *witnessService) watch(ctx context.Context, op string, req *belfryv1.WatchChangesRequest, send func(*belfryv1.WatchChangesResponse) error) error {
	wait := witness.Wait{Owner: ownerOf(ctx), For: req.GetKeepAlive().AsDuration()}
	if d := req.GetKeepAlive(); d != nil && (wait.For < keepAliveMin || wait.For > keepAliveMax) {
		return fmt.Errorf("%w: keep_alive %s; %s to %s", belfry.ErrUsage, wait.For, keepAliveMin, keepAliveMax)
	}
	text := req.GetRegistration()
	if req.GetRegister() != nil {
		if text != "" {
			return fmt.Errorf("%w: registration and register; send one of them", belfry.ErrUsage)
		}
		registered, err := w.register(ctx, op, req.GetRegister())
		if err != nil {
			return err
		}
		if err := send(&belfryv1.WatchChangesResponse{Registered: registered}); err != nil {
			return err
		}
		text = registered.GetRegistration()
	}
	var err error
	if wait.Key, err = witness.ParseKey(text); err != nil {
		return err
	}
	for {
		a, err := w.s.opts.Witness.Ask(ctx, wait)
		if err != nil {
			return err
		}
		if err := send(&belfryv1.WatchChangesResponse{Changes: w.changesOf(a.Changes), KeepAlive: len(a.Changes) == 0}); err != nil {
			return err
		}
	}
}
