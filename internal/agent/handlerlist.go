package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/sink"
)

var _ api.Handlers = (*handlers)(nil)

// maxListedRuns is the most runs in one answer.
const maxListedRuns = 1000

// Handlers lists the handlers of this node, by name.
func (h *handlers) Handlers(ctx context.Context) ([]*belfryv1.Handler, error) {
	queued, err := h.queued(ctx)
	if err != nil {
		return nil, err
	}
	store, storeErr := h.open()
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]*belfryv1.Handler, 0, len(h.running))
	for name, one := range h.running {
		p := &belfryv1.Handler{
			Name: name, On: one.spec.On, Scope: one.spec.Scope, RunOn: one.spec.RunOn, Exec: one.spec.Exec[0],
			Queued: queued[name], Done: one.done.Load(), Failed: one.failed.Load(),
		}
		if err := one.refused.Load(); err != nil {
			p.Error = (*err).Error()
		}
		if runner := one.runner.Load(); runner != nil {
			p.Open = uint32(runner.Open())
		}
		list = append(list, p)
		if storeErr != nil {
			continue // it stands in Error
		}
		p.DeadLetters = uint32(store.Dead(name))
		runs, err := store.Runs(name, false, 1)
		if err != nil {
			return nil, err
		}
		if len(runs) > 0 {
			p.Last = runOf(&runs[0])
			p.Last.Output = nil
		}
	}
	slices.SortFunc(list, func(a, b *belfryv1.Handler) int { return strings.Compare(a.GetName(), b.GetName()) })
	return list, nil
}

// queued is how many notifications wait in the queue of each handler.
func (h *handlers) queued(ctx context.Context) (map[string]uint64, error) {
	status, err := h.agent.events.Status(ctx)
	if err != nil {
		return nil, err
	}
	type registration struct {
		name   string
		number uint32
	}
	seen, queued := map[registration]bool{}, map[string]uint64{}
	for _, e := range status.Entries {
		for _, c := range e.Consumers {
			at := registration{c.Name, c.Registration}
			if c.Kind == "handler" && !seen[at] { // a pattern stands at each of its entries
				seen[at] = true
				queued[c.Name] += uint64(c.Queued)
			}
		}
	}
	return queued, nil
}

// Runs lists runs of one handler, or of all, newest first.
func (h *handlers) Runs(handler string, failed bool, limit int) ([]*belfryv1.Run, error) {
	if handler != "" {
		if _, err := h.find(handler); err != nil {
			return nil, err
		}
	}
	if limit == 0 {
		limit = 100
	}
	store, err := h.open()
	if err != nil {
		return nil, err
	}
	runs, err := store.Runs(handler, failed, min(limit, maxListedRuns))
	if err != nil {
		return nil, err
	}
	list := make([]*belfryv1.Run, len(runs))
	for i := range runs {
		list[i] = runOf(&runs[i])
	}
	return list, nil
}

func (h *handlers) find(name string) (*handler, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if one := h.running[name]; one != nil {
		return one, nil
	}
	var known []string
	for n := range h.running {
		known = append(known, n)
	}
	slices.Sort(known)
	near := ""
	if n, ok := config.Nearest(name, known); ok {
		near = "; did you mean " + n + "?"
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("%w: this node has no handlers; they stand in its settings file", belfry.ErrNotFound)
	}
	return nil, fmt.Errorf("%w: no handler %q%s", belfry.ErrNotFound, name, near)
}

// Test runs a handler once for an event that did not happen.
func (h *handlers) Test(ctx context.Context, req *belfryv1.TestHandlerRequest) (*belfryv1.Run, error) {
	one, err := h.find(req.GetHandler())
	if err != nil {
		return nil, err
	}
	n := belfry.Notification{
		NodeName: req.GetNodeName(), Code: req.GetCode(), Value: req.GetValue(), Data: req.GetData(),
		First: 1, Last: 1, Count: 1, Time: time.Now(),
	}
	class, subject, _ := strings.Cut(one.spec.On[0], ":")
	n.Event.Class, n.Event.Subject = belfry.Class(req.GetClass()), req.GetSubject()
	if n.Event.Class == "" {
		n.Event.Class, n.Event.Subject = belfry.Class(class), subject
	}
	if n.NodeName == "" {
		n.NodeName = h.agent.id.node.Name
	}
	if req.GetEdge() != "" {
		if n.Edge, err = belfry.ParseEdge(req.GetEdge()); err != nil {
			return nil, err
		}
	}
	n.FirstTime = n.Time
	run := sink.Try(ctx, h.sinkOf(one.spec), sink.Delivery{
		Handler: one.spec.Name, Cluster: h.agent.members.Table().Name, Attempt: 1, Notification: n,
	})
	return runOf(run), nil
}

// Retry delivers a dead letter once more.
func (h *handlers) Retry(ctx context.Context, id uint64) (*belfryv1.Run, error) {
	store, err := h.open()
	if err != nil {
		return nil, err
	}
	letter, err := store.DeadLetter(id)
	if err != nil {
		return nil, err
	}
	one, err := h.find(letter.Handler)
	if err != nil {
		return nil, err
	}
	runner := one.runner.Load()
	if runner == nil {
		return nil, fmt.Errorf("%w: handler %s is not registered; belfry handler list says why", belfry.ErrRestricted, letter.Handler)
	}
	run, err := runner.Retry(ctx, letter)
	if err != nil {
		return nil, err
	}
	return runOf(run), nil
}

// Replay runs a handler over the past, one after the other.
func (h *handlers) Replay(ctx context.Context, handler string, since belfry.Since, until time.Time, each func(*belfryv1.Run) error) error {
	one, err := h.find(handler)
	if err != nil {
		return err
	}
	runner := one.runner.Load()
	if runner == nil {
		return fmt.Errorf("%w: handler %s is not registered; belfry handler list says why", belfry.ErrRestricted, handler)
	}
	wishes, err := h.agent.wishes(one.spec)
	if err != nil {
		return err
	}
	for i := range wishes { // what is past is over
		wishes[i].Hold, wishes[i].MinInterval, wishes[i].Flap = 0, 0, belfry.Flap{}
	}
	at, err := h.agent.journal.flush(ctx)
	if err != nil {
		return err
	}
	past, err := h.agent.journal.past(wishes, since, at)
	if err != nil {
		return err
	}
	defer past.Close()
	past.quiet = true
	for {
		n, _, err := past.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n.Time.After(until), n.Kind == belfry.KindGap && !one.spec.Gaps:
			continue
		}
		run, err := runner.Again(ctx, n)
		if err != nil {
			return err
		}
		if err := each(runOf(run)); err != nil {
			return err
		}
	}
}

func runOf(r *sink.Run) *belfryv1.Run {
	n := &r.Notification
	p := &belfryv1.Run{
		Id: r.ID, Handler: r.Handler, NodeName: n.NodeName, Class: string(n.Event.Class), Subject: n.Event.Subject, Kind: n.Kind.String(),
		FirstSequence: n.First, Sequence: n.Last, Count: n.Count, Attempt: uint32(r.Attempt),
		Started: timestamppb.New(r.Started), Took: durationpb.New(r.Took), Result: string(r.Result), Error: r.Error, Output: r.Output,
	}
	if n.Gap != nil {
		p.Count = n.Gap.Total
	}
	if r.Exit != nil {
		p.Exit = new(int32(*r.Exit))
	}
	return p
}
