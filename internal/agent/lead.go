package agent

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Lead has a request carried out by the leader: here, or there by a call of
// the same method. Who that is may change while it is looked for. An error of
// its own patience says who was asked, and whether the change may be in force.
func (a *Agent) Lead(ctx context.Context, method string, request proto.Message, here func(context.Context) error, response proto.Message) error {
	patience := leaderTimeout + replicateTimeout
	if a.storage != nil {
		patience = leaderTimeout + majorityTimeout // as long as whoever leads waits
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if a.storage != nil {
		a.storage.lookedFor(waiting)
	}
	for end := time.Now().Add(leaderTimeout); ; {
		lead := a.leader()
		if lead.ID == a.id.node.ID {
			return overdue(ctx, here(waiting), method, lead.Name, patience)
		}
		err := noStreamTo(method, lead.Name)
		if a.streams.Connected(lead.ID) {
			if err = a.forward(waiting, lead.ID, method, request, response); err == nil {
				a.takeOver(waiting, lead.ID, response)
			}
			if !isNotLeader(err) {
				return overdue(ctx, err, method, lead.Name, patience)
			}
			a.unfit.note(lead.ID, time.Now()) // where the storage decides, another one may do it
		}
		if time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-waiting.Done():
			return err // why it had to look for another one
		case <-time.After(leaderRetry):
		}
	}
}

func noStreamTo(method, name string) error {
	err := fmt.Errorf("%w: node %s makes the changes, and there is no stream to it; try again", belfry.ErrUnknown, name)
	return &belfry.Error{Op: path.Base(method), Subject: name, Err: err}
}

// overdue is err, unless that is no more than that the time in which a change is
// made has run out.
func overdue(caller context.Context, err error, method, name string, patience time.Duration) error {
	if caller.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	err = fmt.Errorf("%w: node %s, which makes the changes, has not answered within %s; the change may be in force: look, and ask again if it is not", belfry.ErrUnknown, name, patience)
	return &belfry.Error{Op: path.Base(method), Subject: name, Err: err}
}

// takeOver has the generation that another node made for this one in force when
// the command ends (C6). Where it lies on storage nobody brings it, and whoever
// made it waits for nodes that are up: its notice does not reach one that is
// stopped and was started again, which would find the generation seconds later.
func (a *Agent) takeOver(ctx context.Context, lead belfry.NodeID, response proto.Message) {
	made, ok := response.(interface{ GetGeneration() uint64 })
	if !ok || made.GetGeneration() == 0 || a.storage == nil || a.storage.state.Load().mode != repository.Ready {
		return
	}
	a.storage.tell(repository.Greeted{Node: lead, Generation: made.GetGeneration()})
	ctx, cancel := context.WithTimeout(ctx, replicateTimeout)
	defer cancel()
	a.awaitHeld(ctx, made.GetGeneration())
}

// forward keeps the number of changes that wait for the leader below what it
// serves one member at a time. ErrLimit: it was not asked.
func (a *Agent) forward(ctx context.Context, lead belfry.NodeID, method string, request, response proto.Message) error {
	select {
	case a.forwarding <- struct{}{}:
		defer func() { <-a.forwarding }()
	case <-ctx.Done():
		name := a.nameOf(lead)
		err := fmt.Errorf("%w: %d changes of this node wait for node %s, which makes them; it was not asked for this one, so try again", belfry.ErrLimit, cap(a.forwarding), name)
		return &belfry.Error{Op: path.Base(method), Subject: name, Err: err}
	}
	err := a.ask(ctx, lead, method, request, response)
	var call *belfry.Error
	if errors.As(err, &call) && call.Subject == method && call.Err != nil {
		err = call.Err // what it says, as if this node had said it
	}
	if errors.Is(err, belfry.ErrUnknown) { // it was asked, and what it did is not known
		err = fmt.Errorf("%w; the change may be in force: look, and ask again if it is not", err)
	}
	return err
}
