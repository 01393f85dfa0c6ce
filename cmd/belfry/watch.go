package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// watchFlags are the flags of watch as they were written.
type watchFlags struct {
	scope              string
	nodes              []string
	onlyWhereMonitored bool
	threshold          thresholdFlags
	edge               string
	where              string
	coalesce           string
	limit              int
	wait               bool
	noFollow           bool
	noSnapshot         bool
	hold, minInterval  time.Duration
	flap               string
	since              string

	count  uint64
	strict bool
	exec   string
}

func newWatchCommand(a *app) *cobra.Command {
	f := &watchFlags{}
	cmd := &cobra.Command{
		Use:   "watch SELECTOR...",
		Short: "Register for events and print each notification",
		Long: `Register for events and print each notification, until interrupted.

A selector is CLASS[:SUBJECT]. "belfry event types" lists the classes and what
their subjects look like; "noun.*" is all classes of a noun. In subjects * stands
for a part of a path segment and ** for any number of segments.

Events that come faster than they are read are merged where they are equal: a
line says for how many occurrences it stands, and up to which sequence number.
What could not be kept is a line that begins with "-- gap" and says how many.

--where is asked of each occurrence, with its own data. Where occurrences of other
data had merged before it could be asked, at another node or in the journal, it is
asked of the newest, and the others are a "-- gap" line with the reason merged.`,
		Example: `  belfry watch node.state --scope cluster
  belfry watch filesystem.usage:/ --over 90% --rearm 5%
  belfry watch 'file.modify:/etc/**' -o json
  belfry watch process.exit:exe=/usr/sbin/nginx --wait --exec 'logger "nginx ended"'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("nothing to watch; name a selector, for example node.state (belfry event types lists the classes)")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("count") && f.count == 0 {
				return usagef("--count 0: would end before it begins; use 1 or more")
			}
			if cmd.Flags().Changed("exec") && strings.TrimSpace(f.exec) == "" {
				return usagef("--exec: no command; for example --exec 'echo $BELFRY_SUBJECT'")
			}
			if cmd.Flags().Changed("limit") && (f.limit < 1 || f.limit > 65536) {
				return usagef("--limit %d: a queue holds 1 to 65536 notifications", f.limit)
			}
			return a.watch(cmd.Context(), f, args, cmd.Flags().Changed("scope"))
		},
		ValidArgsFunction: a.completeClass,
	}
	f.register(cmd)
	return cmd
}

func (f *watchFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.scope, "scope", "local", "local or cluster: whose events")
	flags.StringSliceVar(&f.nodes, "node", nil, "only events of these nodes; implies --scope cluster")
	flags.BoolVar(&f.onlyWhereMonitored, "only-where-monitored", false, "only from nodes where somebody local watches the same")
	flags.StringVar(&f.threshold.over, "over", "", "notify above this value, with its unit: 90%, 10GiB, 250ms")
	flags.StringVar(&f.threshold.under, "under", "", "notify below this value, with its unit")
	flags.StringVar(&f.threshold.rearm, "rearm", "", "how far a value must come back before it counts again, with its unit")
	flags.StringVar(&f.edge, "edge", "both", "both, failing or recovered: which changes")
	flags.StringVar(&f.where, "where", "", "only where this expression is true, for example 'data.to == \"down\"'")
	flags.DurationVar(&f.hold, "hold", 0, "a state counts when it has lasted this long, for example 5s")
	flags.DurationVar(&f.minInterval, "min-interval", 0, "at most one notification of an event in this time")
	flags.StringVar(&f.flap, "flap", "", "silence for what happens more than HIGH times within WINDOW, until fewer than LOW: HIGH:LOW:WINDOW")
	flags.Lookup("flap").NoOptDefVal = belfry.DefaultFlap.String()
	flags.StringVar(&f.coalesce, "coalesce", "by-code", "by-code or never: what may merge while it waits")
	flags.IntVar(&f.limit, "limit", 0, "most notifications that wait (default 256)")
	flags.BoolVar(&f.wait, "wait", false, "begin even if there is nothing of that name yet")
	flags.BoolVar(&f.noFollow, "no-follow", false, "end when what the subject names now is gone")
	flags.BoolVar(&f.noSnapshot, "no-snapshot", false, "changes only, not the present state first")
	flags.StringVar(&f.since, "since", "", "begin in the past, with what the journal holds: a duration, a time, a cursor of a notification, or the last sequence number that is not wanted")
	flags.Uint64Var(&f.count, "count", 0, "end after this many notifications")
	flags.BoolVar(&f.strict, "strict", false, "end with exit status 6 at a gap")
	flags.StringVar(&f.exec, "exec", "", "run this shell command once per notification, in order; it finds the event in $BELFRY_CLASS, $BELFRY_SUBJECT, … and as JSON on its input")
}

// watch registers for everything that was asked for, or for nothing.
func (a *app) watch(ctx context.Context, f *watchFlags, args []string, scoped bool) error {
	selectors, err := parseSelectors(args)
	if err != nil {
		return err
	}
	base, err := f.registration(scoped)
	if err != nil {
		return err
	}
	if a.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	opening, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	c, err := a.dial(opening)
	if err != nil {
		return err
	}
	defer c.Close()
	w := &watcher{app: a, flags: f}
	if w.classes, err = catalogueOf(opening, c); err != nil {
		return err
	}
	if err := w.askNodes(opening, c); err != nil {
		return err
	}
	registrations, err := w.registrations(base, selectors)
	if err != nil {
		return err
	}
	stream, err := w.subscribe(opening, c, registrations)
	if err != nil {
		return err
	}
	defer stream.Close()
	return w.run(ctx, stream)
}

func parseSelectors(args []string) ([]selector, error) {
	selectors := make([]selector, len(args))
	for i, arg := range args {
		s, err := parseSelector(arg)
		if err != nil {
			return nil, err
		}
		if slices.Contains(selectors[:i], s) {
			return nil, usagef("%s is named twice; once is enough", s)
		}
		selectors[i] = s
	}
	return selectors, nil
}

// registration is what the flags say of every selector; scoped tells whether
// --scope was given.
func (f *watchFlags) registration(scoped bool) (belfry.Registration, error) {
	r := belfry.Registration{
		OnlyWhereMonitored: f.onlyWhereMonitored, Wait: f.wait, NoFollow: f.noFollow, Snapshot: !f.noSnapshot,
		Filter: f.where, Limit: f.limit, Hold: f.hold, MinInterval: f.minInterval,
	}
	var err error
	if r.Scope, err = belfry.ParseScope(f.scope); err != nil {
		return r, usagef("--scope %s: not known; use local or cluster", f.scope)
	}
	if r.Edge, err = belfry.ParseEdgeFilter(f.edge); err != nil {
		return r, usagef("--edge %s: not known; use both, failing or recovered", f.edge)
	}
	if r.Coalesce, err = belfry.ParseCoalesce(f.coalesce); err != nil {
		return r, usagef("--coalesce %s: not known; use by-code or never", f.coalesce)
	}
	if f.flap != "" {
		if r.Flap, err = belfry.ParseFlap(f.flap); err != nil {
			return r, usagef("--flap %s: write HIGH:LOW:WINDOW, for example %s", f.flap, belfry.DefaultFlap)
		}
	}
	if r.Since, err = parseSince("since", f.since, time.Now()); err != nil {
		return r, err
	}
	r.Snapshot = r.Snapshot && r.Since.IsZero() // what was is told instead
	if len(f.nodes) > 0 {
		if scoped && r.Scope == belfry.ScopeLocal {
			return r, usagef("--scope local and --node contradict each other; leave --scope out")
		}
		r.Scope = belfry.ScopeCluster
	}
	if r.OnlyWhereMonitored && r.Scope == belfry.ScopeLocal {
		return r, usagef("--only-where-monitored is about other nodes; add --scope cluster")
	}
	return r, nil
}

// A watcher is one run of watch.
type watcher struct {
	*app
	flags   *watchFlags
	classes catalogue
	nodes   []*belfryv1.Node // only where --node names some
	cluster string           // name, as the stream's agent has it
	node    string           // likewise: the agent's own
	got     uint64           // notifications
	cursor  belfry.Cursor
	refused refusals
}

// askNodes asks for the members only if --node names some: who has single rights
// and no role may not, and each refusal is in the agent's audit log.
func (w *watcher) askNodes(ctx context.Context, c *client.Client) error {
	if len(w.flags.nodes) == 0 {
		return nil
	}
	status, err := c.Status(ctx)
	w.nodes = status.GetNodes()
	return err
}

// chooseNodes adds the nodes that were named.
func (w *watcher) chooseNodes(r *belfry.Registration) error {
	for _, name := range w.flags.nodes {
		n, ok := findNode(name, w.nodes)
		if !ok {
			return unknownNode(name, w.nodes, belfry.ErrUsage)
		}
		id, err := belfry.ParseNodeID(n.GetId())
		if err != nil {
			return err
		}
		r.Nodes = append(r.Nodes, id)
	}
	return nil
}

// registrations makes one of each selector, checked against what there is.
func (w *watcher) registrations(base belfry.Registration, selectors []selector) ([]belfry.Registration, error) {
	if err := w.chooseNodes(&base); err != nil {
		return nil, err
	}
	var list []belfry.Registration
	for _, s := range selectors {
		classes, err := w.classes.check(s)
		if err != nil {
			return nil, err
		}
		r := base
		r.Class, r.Subject = s.class, s.subject
		if r.Threshold, err = w.flags.threshold.in(classes, s); err != nil {
			return nil, err
		}
		if err := classes.needsThreshold(s, r.Threshold); err != nil {
			return nil, err
		}
		if info := classes[0]; r.Scope == belfry.ScopeCluster && !s.manyClasses() && !info.GetRemote() {
			return nil, failf(belfry.ErrUnsupported, "%s can only be watched at its own node; leave out --scope and --node", s.class)
		}
		list = append(list, r)
	}
	return list, nil
}

// subscribe registers for all of them on one stream.
func (w *watcher) subscribe(ctx context.Context, c *client.Client, list []belfry.Registration) (*client.Stream, error) {
	options := []client.StreamOption{client.Name("watch")}
	if w.flags.exec != "" {
		options = append(options, client.Window(1)) // what comes while the command runs coalesces at the agent
	}
	stream, err := c.Subscribe(ctx, options...)
	if err != nil {
		return nil, err
	}
	w.cluster, w.node = stream.Home()
	for _, r := range list {
		registered, err := stream.Register(ctx, r)
		if err != nil {
			stream.Close()
			return nil, registerError(r, err)
		}
		w.tellCoverage(r, registered)
	}
	if err := w.refused.err(); err != nil {
		stream.Close()
		return nil, err
	}
	return stream, nil
}

// registerError puts the flag in front of what the agent says of its value,
// and the selector in front of the rest.
func registerError(r belfry.Registration, err error) error {
	var e *belfry.Error
	if !errors.As(err, &e) {
		return err
	}
	text := withoutSentinel(e.Err)
	s := selector{class: r.Class, subject: r.Subject}.String()
	switch {
	case strings.HasPrefix(text, "--"), strings.Contains(text, s):
	case r.Filter != "" && errors.Is(e, belfry.ErrUsage) && !strings.Contains(text, "subject"):
		text = "--where: " + text
	default:
		text = s + ": " + text
	}
	return &belfry.Error{Node: e.Node, Subject: s, Err: failure{text, e.Err}}
}

// run hands on one notification after the other.
func (w *watcher) run(ctx context.Context, stream *client.Stream) error {
	for {
		n, err := stream.Next(ctx)
		if err == nil {
			if n.Kind == belfry.KindCoverage {
				if err := w.tellRefused(&n); err != nil {
					return err
				}
				if !w.verbose {
					continue // about the registration, not about an event
				}
			}
			w.cursor = stream.Cursor()
			err = w.deliver(ctx, &n)
		}
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return status{exitTimeout, "TIMEOUT", w.progress("time ran out after " + w.timeout.String())}
		case errors.Is(err, io.EOF):
			return w.ended()
		case err != nil:
			return err
		case n.Kind == belfry.KindCoverage:
			continue
		}
		w.got++
		if n.Kind == belfry.KindGap && w.flags.strict {
			return status{exitGap, "GAP", "a gap; without --strict the watch goes on"}
		}
		if w.flags.count > 0 && w.got == w.flags.count {
			return nil
		}
	}
}

// ended is the end of a watch whose events are all gone.
func (w *watcher) ended() error {
	if w.flags.count == 0 {
		return nil
	}
	return failf(belfry.ErrNoEvent, "%s", w.progress("every event that was watched has ended"))
}

func (w *watcher) progress(what string) string {
	if w.flags.count == 0 {
		return fmt.Sprintf("%s, with %s", what, plural(w.got, "notification"))
	}
	return fmt.Sprintf("%s, with %d of %s", what, w.got, plural(w.flags.count, "notification"))
}

// deliver prints n or runs the command for it; the line is out before the
// next notification is asked for.
func (w *watcher) deliver(ctx context.Context, n *belfry.Notification) error {
	if w.flags.exec != "" {
		run := handler{command: w.flags.exec, cluster: w.cluster, out: os.Stdout, errOut: w.errOut}
		if err := run.handle(ctx, n); err != nil {
			if ctx.Err() != nil {
				return ctx.Err() // it did not fail by itself
			}
			w.notef("--exec: %v, for %s", err, nameOf(n))
		}
		return nil
	}
	if err := w.print(n); err != nil {
		return err
	}
	return w.out.flush()
}
