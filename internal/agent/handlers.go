package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/sink"
	"github.com/belfry-ha/belfry/internal/sink/exec"
)

const (
	// handlerState is the file with cursors, runs and dead letters, in the state
	// directory.
	handlerState = "state.db"
	// handlerWindow is how many notifications of different events a handler may
	// have open (events.md 10).
	handlerWindow = 64
	// registerRetry is between two attempts to register a handler that was refused.
	registerRetry = 10 * time.Second
)

// handlers are the handlers of the settings file that run, by name.
type handlers struct {
	agent *Agent

	turns *turns // of those that run on one node

	storeMu sync.Mutex
	store   *sink.Store // nil: not open

	mu      sync.Mutex
	running map[string]*handler
	stopped bool
}

// A handler is one that runs, or tries to.
type handler struct {
	spec    config.Handler
	log     *slog.Logger
	runner  atomic.Pointer[sink.Runner] // nil: not registered
	refused atomic.Pointer[error]       // why not
	done    atomic.Uint64               // runs that ended well
	failed  atomic.Uint64               // runs that did not
	cancel  context.CancelFunc
	ended   chan struct{}
}

// startHandlers starts the handlers of the settings.
func (a *Agent) startHandlers() error {
	a.onStop("handlers", func(context.Context) error {
		a.handlers.set(nil, true)
		return a.handlers.close()
	})
	if _, err := os.Stat(filepath.Join(a.opts.Config.State, handlerState)); err == nil {
		a.handlers.forgetOthers(a.opts.Config.Handlers)
	}
	a.followHandlers(a.opts.Config.Handlers, true)
	return nil
}

// forgetOthers forgets where handlers were that are in the settings no longer.
func (h *handlers) forgetOthers(specs []config.Handler) {
	store, err := h.open()
	if err == nil {
		var names []string
		for _, s := range specs {
			names = append(names, s.Name)
		}
		err = store.KeepPlaces(names)
	}
	if err != nil {
		h.agent.log.Error("places of old handlers are not forgotten", "component", "handlers", "err", err)
	}
}

// open opens the state file with the first handler. A file that can not be
// opened costs the handlers, and not the node.
func (h *handlers) open() (*sink.Store, error) {
	h.storeMu.Lock()
	defer h.storeMu.Unlock()
	if h.store != nil {
		return h.store, nil
	}
	store, err := sink.OpenStore(filepath.Join(h.agent.opts.Config.State, handlerState))
	h.store = store
	return store, err
}

func (h *handlers) close() error {
	h.storeMu.Lock()
	defer h.storeMu.Unlock()
	if h.store == nil {
		return nil
	}
	return h.store.Close()
}

// set makes exactly these handlers run. One whose settings did not change goes
// on, with its registrations, its queue and what it works on: nothing runs
// because a file was read again.
func (h *handlers) set(specs []config.Handler, stop bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return
	}
	h.stopped = stop
	var ending []*handler
	for name, old := range h.running {
		i := slices.IndexFunc(specs, func(s config.Handler) bool { return s.Name == name })
		if i < 0 || !specs[i].Equal(old.spec) {
			old.cancel()
			ending = append(ending, old)
			delete(h.running, name)
		}
	}
	for _, old := range ending { // its successor has the same cursors
		<-old.ended
	}
	if len(ending) > 0 && !stop {
		h.forgetOthers(specs)
	}
	for _, spec := range specs {
		if h.running[spec.Name] == nil {
			h.running[spec.Name] = h.start(spec)
		}
	}
}

func (h *handlers) start(spec config.Handler) *handler {
	ctx, cancel := context.WithCancel(h.agent.ended)
	one := &handler{
		spec: spec, log: h.agent.log.With("component", "handlers"),
		cancel: cancel, ended: make(chan struct{}),
	}
	h.agent.group.Go(func() error {
		defer close(one.ended)
		defer cancel()
		h.run(ctx, one)
		return nil
	})
	return one
}

// run registers a handler, again and again if that is refused, and delivers
// until ctx ends.
func (h *handlers) run(ctx context.Context, one *handler) {
	for ctx.Err() == nil {
		err := h.deliver(ctx, one)
		if ctx.Err() != nil {
			return
		}
		if last := one.refused.Load(); last == nil || (*last).Error() != err.Error() {
			one.log.Error("handler not registered", "handler", one.spec.Name, "err", err, "again_in", registerRetry)
		}
		one.refused.Store(&err)
		select {
		case <-ctx.Done():
		case <-time.After(registerRetry):
		}
	}
}

var errHandlerEnded = fmt.Errorf("%w: every event of it has ended", belfry.ErrNoEvent)

// deliver is one life of a handler's consumer; it ends with an error.
func (h *handlers) deliver(ctx context.Context, one *handler) error {
	wishes, err := h.agent.wishes(one.spec)
	if err != nil {
		return err
	}
	store, err := h.open()
	if err != nil {
		return err
	}
	place, err := store.Place(one.spec.Name)
	if err != nil {
		return err
	}
	for i := range wishes { // so that what other nodes have for it since then comes, too
		wishes[i].Since = belfry.Since{Cursor: place}
	}
	if place.IsZero() { // it begins with what happens from now on
		place = journalView{h.agent.journal}.Durable()
		if err := store.SetPlace(one.spec.Name, place); err != nil {
			return err
		}
	}
	consumer := h.agent.events.Open(event.ConsumerHandler, one.spec.Name, event.Limits{OnePerEvent: true, Window: handlerWindow})
	defer consumer.Close()
	for i, wish := range wishes {
		if _, err := consumer.Register(ctx, uint32(i+1), wish); err != nil {
			return err
		}
	}
	source := h.newSource(ctx, one, consumer, wishes, place, store)
	defer source.leave()
	options := sink.Options{
		Handler: one.spec.Name, Cluster: h.agent.members.Table().Name,
		Sink: h.sinkOf(one.spec), Source: source, Store: store,
		Attempts: one.spec.Attempts, NoGaps: !one.spec.Gaps, Log: one.log, Observe: one.observe,
	}
	if one.spec.RunOn == config.RunOnOne {
		options.Share = h.turns
	}
	runner := sink.NewRunner(options)
	one.runner.Store(runner)
	one.refused.Store(nil)
	defer one.runner.Store(nil)
	one.log.Info("handler registered", "handler", one.spec.Name, "on", one.spec.On)
	if err := runner.Run(ctx); err != nil {
		return err
	}
	return errHandlerEnded
}

func (h *handlers) sinkOf(spec config.Handler) sink.Sink {
	return exec.Sink{Node: h.agent.id.node.ID.String(), Argv: spec.Exec, Timeout: spec.Timeout}
}

// observe counts the runs of this node.
func (one *handler) observe(run *sink.Run) {
	switch run.Result {
	case sink.ResultOther:
	case sink.ResultDone:
		one.done.Add(1)
	default:
		one.failed.Add(1)
	}
}

// wishes are the registrations of a handler.
func (a *Agent) wishes(spec config.Handler) ([]belfry.Registration, error) {
	base, err := a.wishOf(spec)
	if err != nil {
		return nil, err
	}
	var all []belfry.Registration
	for _, on := range spec.On {
		wish := base
		wish.Class, wish.Subject, _ = strings.Cut(on, ":")
		if wish.Threshold, err = a.thresholdOf(spec, wish.Class); err != nil {
			return nil, err
		}
		all = append(all, wish)
	}
	return all, nil
}

// wishOf is what all registrations of a handler have in common. What the
// settings checked is not checked again.
func (a *Agent) wishOf(spec config.Handler) (r belfry.Registration, err error) {
	r = belfry.Registration{
		Wait: true, Snapshot: spec.Snapshot, Filter: spec.Where, Limit: spec.Limit,
		Hold: spec.Hold, MinInterval: spec.MinInterval,
	}
	scope, err1 := belfry.ParseScope(spec.Scope)
	edge, err2 := belfry.ParseEdgeFilter(spec.Edge)
	if err := errors.Join(err1, err2); err != nil {
		return r, err
	}
	r.Scope, r.Edge = scope, edge
	if spec.Flap != "" {
		if r.Flap, err = belfry.ParseFlap(spec.Flap); err != nil {
			return r, err
		}
	}
	if spec.RunOn == config.RunOnOrigin {
		r.Scope = belfry.ScopeLocal // each node runs its own
		return r, nil
	}
	table := a.members.Table()
	for _, name := range spec.Nodes {
		i := slices.IndexFunc(table.Nodes, func(n Node) bool { return n.Name == name })
		if i < 0 {
			return r, fmt.Errorf("%w: nodes: %q is no member; the members are %s", belfry.ErrNotFound, name, strings.Join(table.nodeNames(), " "))
		}
		r.Nodes = append(r.Nodes, table.Nodes[i].ID)
	}
	return r, nil
}

// thresholdOf reads a handler's thresholds in the unit of a class.
func (a *Agent) thresholdOf(spec config.Handler, class string) (t belfry.Threshold, err error) {
	for _, part := range []struct {
		name, text string
		value      *float64
		has        *bool
	}{
		{"over", spec.Over, &t.Hi, &t.HasHi},
		{"under", spec.Under, &t.Lo, &t.HasLo},
		{"rearm", spec.Rearm, &t.Hysteresis, new(bool)},
	} {
		if part.text == "" {
			continue
		}
		unit, ok := a.unitOf(class)
		if !ok {
			return t, fmt.Errorf("%w: %s %s: %s is not measured; leave it out", belfry.ErrUsage, part.name, part.text, class)
		}
		if *part.value, ok = belfry.ParseValue(unit, part.text); !ok {
			return t, fmt.Errorf("%w: %s %q is no value of %s; write it with its unit, %s", belfry.ErrUsage, part.name, part.text, class, unit)
		}
		*part.has = true
	}
	return t, nil
}

// unitOf is the unit of a value class, or of the first one of a noun.
func (a *Agent) unitOf(class string) (string, bool) {
	noun, many := strings.CutSuffix(class, "*")
	for _, info := range a.events.Classes() {
		if info.Kind == belfry.Value && (string(info.Class) == class || many && strings.HasPrefix(string(info.Class), noun)) {
			return info.Unit, true
		}
	}
	return "", false
}
