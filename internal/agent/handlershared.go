package agent

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/repository"
)

// What is handled, and how often, can stand in the document for all nodes. The
// command never does: it is the node's own, in the entry of that name in its
// settings file, so that nobody who can write the document has a node run what
// its owner did not name (security.md, invariant 6).

// A handlerPlan keeps the two together.
type handlerPlan struct {
	mu       sync.Mutex // held until the handlers are as both say
	settings []config.Handler
}

// followHandlers makes those handlers run that settings and document say now. Other
// settings than before are given, or nil.
func (a *Agent) followHandlers(settings []config.Handler, changed bool) {
	a.plan.mu.Lock()
	defer a.plan.mu.Unlock()
	if changed {
		a.plan.settings = settings
	}
	a.handlers.set(a.planned(), false)
}

// planned are the handlers of the settings, as the document has them where it
// names one. One that the settings do not name has nothing to run here.
func (a *Agent) planned() []config.Handler {
	if a.storage == nil {
		return a.plan.settings
	}
	return sharedHandlers(a.plan.settings, a.storage.held().Document.Handlers)
}

func sharedHandlers(settings []config.Handler, shared []repository.Handler) []config.Handler {
	all := slices.Clone(settings)
	for i := range all {
		j := slices.IndexFunc(shared, func(h repository.Handler) bool { return h.Name == all[i].Name })
		if j >= 0 {
			all[i] = sharedHandler(all[i], &shared[j])
		}
	}
	return all
}

// sharedHandler has the command of one and all else of the other. Its durations
// were judged when the document was (repository.Document.Validate).
func sharedHandler(own config.Handler, h *repository.Handler) config.Handler {
	span := func(text string) time.Duration {
		d, _ := time.ParseDuration(text) // empty: none
		return d
	}
	return config.Handler{
		Name: own.Name, Exec: own.Exec,
		On: h.On, Where: h.Where, Scope: cmp.Or(h.Scope, "local"), Nodes: h.Nodes, Edge: cmp.Or(h.Edge, "both"),
		Over: h.Over, Under: h.Under, Rearm: h.Rearm, Hold: span(h.Hold), MinInterval: span(h.MinInterval), Flap: h.Flap, Limit: h.Limit,
		Snapshot: h.Snapshot, Gaps: !h.NoGaps, RunOn: cmp.Or(h.RunOn, config.RunOnEvery),
		Timeout: cmp.Or(span(h.Timeout), own.Timeout), Attempts: cmp.Or(h.Attempts, own.Attempts),
	}
}
