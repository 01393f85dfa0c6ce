package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// WitnessNodes is the witnesses of the cluster in the order in which to try them.
// Accessed is the node, or an address of one, that the program uses; empty: the
// agent's own. ErrUsage for what is no resource.
func (c *Client) WitnessNodes(ctx context.Context, program, accessed string, resources []string) (*belfryv1.GetNodeInformationResponse, error) {
	resp, err := c.witness.GetNodeInformation(ctx, &belfryv1.GetNodeInformationRequest{Client: program, Accessed: accessed, Resources: resources})
	return resp, c.errorOf(err)
}

// ListWitness is registrations and resources of a node, by name or id; empty:
// of all nodes. ErrNotFound if it is not a member.
func (c *Client) ListWitness(ctx context.Context, req *belfryv1.ListWitnessRequest) (*belfryv1.ListWitnessResponse, error) {
	resp, err := c.witness.ListWitness(ctx, req)
	return resp, c.errorOf(err)
}

// MoveClients asks clients to use other nodes or addresses. ErrUsage if nothing
// says which are meant, or where to.
func (c *Client) MoveClients(ctx context.Context, req *belfryv1.MoveClientsRequest) (*belfryv1.MoveClientsResponse, error) {
	resp, err := c.witness.MoveClients(ctx, req)
	return resp, c.errorOf(err)
}

// DrainNode empties a node of clients, or lets it fill again. ErrNotFound if it
// is not a member.
func (c *Client) DrainNode(ctx context.Context, req *belfryv1.DrainNodeRequest) (*belfryv1.DrainNodeResponse, error) {
	resp, err := c.witness.DrainNode(ctx, req)
	return resp, c.errorOf(err)
}

// EndRegistrations ends registrations at all witnesses. ErrUsage if nothing says
// which are meant.
func (c *Client) EndRegistrations(ctx context.Context, req *belfryv1.EndRegistrationsRequest) (*belfryv1.EndRegistrationsResponse, error) {
	resp, err := c.witness.EndRegistrations(ctx, req)
	return resp, c.errorOf(err)
}

// SetResource holds a resource in a state at all witnesses for a time, 1 s to
// 168 h, whatever is reported. ErrUsage for what makes no sense.
func (c *Client) SetResource(ctx context.Context, resource string, state belfry.ResourceState, d time.Duration) ([]*belfryv1.WitnessMatch, error) {
	return c.setResource(ctx, &belfryv1.SetResourceRequest{Resource: resource, State: state.String(), Duration: durationpb.New(d)})
}

// ResourceClients is the registrations, at all witnesses, that would be told of it.
// ErrUsage for what is no resource.
func (c *Client) ResourceClients(ctx context.Context, resource string) ([]*belfryv1.WitnessMatch, error) {
	return c.setResource(ctx, &belfryv1.SetResourceRequest{Resource: resource, DryRun: true})
}

func (c *Client) setResource(ctx context.Context, req *belfryv1.SetResourceRequest) ([]*belfryv1.WitnessMatch, error) {
	resp, err := c.witness.SetResource(ctx, req)
	return resp.GetMatches(), c.errorOf(err)
}

// UnsetResource ends that: what is reported counts again.
func (c *Client) UnsetResource(ctx context.Context, resource string) ([]*belfryv1.WitnessMatch, error) {
	return c.setResource(ctx, &belfryv1.SetResourceRequest{Resource: resource})
}

// errSilent ends a stay at a witness that says nothing.
var errSilent = fmt.Errorf("%w: the witness is silent", belfry.ErrNoAgent)

// errSentAway ends a stay at a witness that ends itself.
var errSentAway = fmt.Errorf("%w: the witness sends its clients elsewhere", belfry.ErrRestricted)

// errRenewed ends a stay at a witness that is to be told something new.
var errRenewed = fmt.Errorf("%w: the registration is made again", belfry.ErrStale)

// A watching is one stream of one witness.
type watching struct {
	*post
	client     *Client
	stream     belfryv1.WitnessService_WatchChangesClient
	silence    *time.Timer
	registered *belfryv1.RegisterClientResponse // guarded by Witness.mu; only the post's goroutine writes it
}

// stay registers at one witness and tells what it says, until it dies, is silent
// or sends the client away. With delegated the registration is there already. registered
// is nil if it never came to that.
func (p *post) stay(ctx context.Context, c candidate, delegated *belfryv1.RegisterClientResponse) (registered *belfryv1.RegisterClientResponse, err error) {
	conn, err := p.reach(ctx, c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	in := &watching{post: p, client: conn}
	streaming, cancel := outlast(ctx, in.entering)
	defer cancel(nil)
	p.mu.Lock()
	p.leave = cancel
	at := p.at
	p.mu.Unlock()
	request := &belfryv1.WatchChangesRequest{KeepAlive: durationpb.New(p.config.KeepAlive)}
	if delegated == nil {
		request.Register = p.registration(at)
	} else {
		request.Registration = delegated.GetRegistration()
	}
	p.holds = c.target // whatever becomes of the answer
	in.stream, err = conn.witness.WatchChanges(streaming, request)
	if err != nil {
		return nil, conn.errorOf(err)
	}
	in.silence = time.AfterFunc(p.patience(registerWait), func() { cancel(errSilent) })
	defer in.silence.Stop()
	if delegated == nil || in.enter(ctx, delegated) {
		err = in.read(ctx)
	}
	if ctx.Err() != nil || errors.Is(err, errSentAway) {
		p.unregister(ctx, conn)
	}
	p.mu.Lock()
	p.leave, p.node = nil, ""
	p.mu.Unlock()
	p.telling.Lock()
	p.told.left(p.number)
	p.telling.Unlock()
	if cause := context.Cause(streaming); errors.Is(cause, errSilent) || errors.Is(cause, errRenewed) {
		err = cause
	}
	return in.registered, err
}

// registration is what a witness is told, with all that the program knows. Of a
// holder that it has not used before that is that it can be used.
func (p *post) registration(at string) *belfryv1.ClientRegistration {
	p.telling.Lock()
	defer p.telling.Unlock()
	if p.meant != at {
		p.meant = at
		p.told.use()
	}
	r := &belfryv1.ClientRegistration{
		Key: p.key, Client: p.config.Name, Resources: p.config.Resources, At: at,
		Eager: p.config.Eager, AllowMissing: p.config.AllowMissing, LastMove: p.told.lastMove(),
	}
	for _, name := range p.config.Resources {
		if l, ok := p.told.known[name]; ok {
			r.Known = append(r.Known, &belfryv1.KnownResource{
				Resource: name, State: l.State.String(), AtState: l.At.String(),
				Version: &belfryv1.ResourceVersion{
					Origin: l.Version.Origin.String(), Incarnation: uint32(l.Version.Incarnation), Seq: l.Version.Seq, Reported: l.Version.Reported,
				},
			})
		}
	}
	return r
}

// entering tells whether the registration has not been answered yet.
func (in *watching) entering() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.registered == nil
}

// read tells what comes on the stream, until it ends.
func (in *watching) read(ctx context.Context) error {
	for {
		resp, err := in.stream.Recv()
		if err != nil {
			return in.client.errorOf(err)
		}
		in.silence.Stop() // the program may take its time
		if r := resp.GetRegistered(); r != nil && !in.enter(ctx, r) {
			return ctx.Err()
		}
		for _, c := range resp.GetChanges() {
			if err := in.take(ctx, c); err != nil {
				return err
			}
		}
		in.silence.Reset(2*in.config.KeepAlive + time.Second)
	}
}

// enter takes the answer of a registration; false: ctx has ended.
func (in *watching) enter(ctx context.Context, r *belfryv1.RegisterClientResponse) bool {
	in.arrive(r)
	return in.begin(ctx, r)
}

// arrive notes where the registration is.
func (in *watching) arrive(r *belfryv1.RegisterClientResponse) {
	in.dismiss()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.registered = r
	in.node, in.missing = r.GetNodeName(), false
	if !in.began {
		in.began, in.err = true, net.ErrClosed
		in.opened <- nil
	}
}

// begin tells of the states at the beginning, and of what changed meanwhile.
func (in *watching) begin(ctx context.Context, r *belfryv1.RegisterClientResponse) bool {
	in.telling.Lock()
	defer in.telling.Unlock()
	if !in.say(ctx, WitnessEvent{Kind: WitnessAt, Node: r.GetNodeName()}) {
		return false
	}
	for _, p := range r.GetResources() {
		change, err := resourceChange(p.GetChange())
		if err != nil {
			continue // of a witness that knows more kinds of states
		}
		first, news := in.told.begin(in.number, &change, p.GetChanged())
		if !news {
			continue
		}
		kind := WitnessChange
		if first {
			kind = WitnessState
		}
		if !in.say(ctx, WitnessEvent{Kind: kind, Node: r.GetNodeName(), Change: change}) {
			return false
		}
	}
	return true
}

// take tells of one change.
func (in *watching) take(ctx context.Context, c *belfryv1.ResourceChange) error {
	in.telling.Lock()
	defer in.telling.Unlock()
	node := in.registered.GetNodeName()
	if c.GetReregister() {
		return errSentAway
	}
	change, err := resourceChange(c)
	if err != nil {
		return nil //nolint:nilerror // of a witness that knows more kinds of states: the next one counts
	}
	kind := WitnessChange
	if change.Move != nil {
		kind = WitnessMove
		if !in.told.move(change.Move.ID) {
			return nil
		}
	} else if !in.told.change(in.number, &change) {
		return nil
	}
	if !in.say(ctx, WitnessEvent{Kind: kind, Node: node, Change: change}) {
		return ctx.Err()
	}
	return nil
}

// resourceChange reads what a witness says.
func resourceChange(c *belfryv1.ResourceChange) (change belfry.ResourceChange, err error) {
	change = belfry.ResourceChange{
		Seq: c.GetSeq(), Count: c.GetCount(), Resource: belfry.Resource(c.GetResource()), HasAt: c.GetAtState() != "",
		Holder: c.GetHolder(), Addresses: c.GetAddresses(), First: c.GetFirst().AsTime(), Last: c.GetLast().AsTime(),
		AtAffected: c.GetAtAffected(), Flapped: c.GetFlapped(), Reregister: c.GetReregister(),
	}
	if m := c.GetMove(); m != nil {
		change.Move = &belfry.Move{ID: m.GetId(), To: m.GetTo(), Addresses: m.GetAddresses()}
		change.Move.Reason, err = belfry.ParseMoveReason(m.GetReason())
		return change, err
	}
	if change.Level.State, err = belfry.ParseResourceState(c.GetState()); err != nil {
		return change, err
	}
	if change.HasAt {
		if change.Level.At, err = belfry.ParseResourceState(c.GetAtState()); err != nil {
			return change, err
		}
	}
	v := c.GetVersion()
	change.Level.Version = belfry.ResourceVersion{Incarnation: belfry.Incarnation(v.GetIncarnation()), Seq: v.GetSeq(), Reported: v.GetReported()}
	change.Level.Version.Origin, err = belfry.ParseNodeID(v.GetOrigin())
	return change, err
}
