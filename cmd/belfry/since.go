package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const sinceHelp = "write a duration (2h), a time (2026-11-26T12:00:00Z, or 12:00 of today), a cursor of a notification"

// parseSince reads CURSOR, DURATION, TIME or SEQ, as seen now; empty: none.
func parseSince(flag, text string, now time.Time) (s belfry.Since, err error) {
	if text == "" {
		return s, nil
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return belfry.Since{Sequence: n, HasSequence: true}, nil
	}
	if t, ok := parseTime(text, now); ok {
		return belfry.Since{Time: t}, nil
	}
	if s.Cursor, err = belfry.ParseCursor(text); err != nil {
		return s, usagef("--%s %s: %s or a sequence number", flag, text, sinceHelp)
	}
	return s, nil
}

// parseTime reads a duration before now, a time of day, a day or a whole time.
func parseTime(text string, now time.Time) (time.Time, bool) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), true
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return t, true
		}
	}
	for _, form := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), true
		}
	}
	return time.Time{}, false
}

// pastFlags are the flags of event list and event replay.
type pastFlags struct {
	since, until string
	watch        watchFlags
	last         int
	handler      string
}

func (f *pastFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.since, "since", "", "from here on: a duration, a time or a cursor (default all that is kept)")
	cmd.Flags().StringVar(&f.until, "until", "", "up to here: a duration or a time (default now)")
}

func (f *pastFlags) times(now time.Time) (since belfry.Since, until time.Time, err error) {
	if since, err = parseSince("since", f.since, now); err != nil {
		return since, until, err
	}
	if f.until == "" {
		return since, until, nil
	}
	until, ok := parseTime(f.until, now)
	if !ok {
		return since, until, usagef("--until %s: write a duration (2h) or a time (2026-11-26T12:00:00Z, or 12:00 of today)", f.until)
	}
	return since, until, nil
}

func newEventList(a *app) *cobra.Command {
	f := &pastFlags{watch: watchFlags{coalesce: "by-code"}}
	cmd := &cobra.Command{
		Use:   "list [SELECTOR...]",
		Short: "List what happened, from this node's journal",
		Long: `List what happened, from this node's journal: events of this node, and those of
others that this node was told of. Without a selector all of them.

Recorded is what somebody watched at the time, what the setting journal.active
names, and every event that was posted with event emit; not what is too frequent
("belfry event types CLASS" says volatile). A line that begins with "-- gap" stands
for what is missing, with its number if that can be known: a part of the journal
that is gone, a disk that was full, or a time in which no agent ran.`,
		Example: `  belfry event list --since 1h
  belfry event list node.state process.exit --since 2026-11-26T12:00:00Z --until 13:00
  belfry event list 'user.*' --last 20 -o jsonl`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("last") && f.last < 1 {
				return usagef("--last %d: lists nothing; use 1 or more", f.last)
			}
			return a.eventList(cmd.Context(), f, args, cmd.Flags().Changed("scope"))
		},
		ValidArgsFunction: a.completeClass,
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.watch.scope, "scope", "cluster", "local or cluster: whose events")
	flags.StringSliceVar(&f.watch.nodes, "node", nil, "only events of these nodes")
	flags.StringVar(&f.watch.edge, "edge", "both", "both, failing or recovered: which changes")
	flags.StringVar(&f.watch.where, "where", "", "only where this expression is true, for example 'data.to == \"down\"'")
	flags.IntVar(&f.last, "last", 0, "only so many, the newest")
	return cmd
}

// eventList prints what the journal has, as watch would have.
func (a *app) eventList(ctx context.Context, f *pastFlags, args []string, scoped bool) error {
	selectors, err := parseSelectors(args)
	if err != nil {
		return err
	}
	base, err := f.watch.registration(scoped)
	if err != nil {
		return err
	}
	since, until, err := f.times(time.Now())
	if err != nil {
		return err
	}
	return a.withPast(ctx, func(ctx context.Context, c *client.Client) error {
		w := &watcher{app: a, flags: &f.watch}
		if w.classes, err = catalogueOf(ctx, c); err != nil {
			return err
		}
		if err := w.askHome(ctx, c); err != nil {
			return err
		}
		all, err := w.past(base, selectors)
		if err != nil {
			return err
		}
		past, err := c.Events(ctx, all, since, until)
		if err != nil {
			return err
		}
		defer past.Close()
		return w.list(past, f.last)
	})
}

// askHome asks for the members and for who answers, only where the list needs
// it: who has single rights and no role may not, and each refusal is in the agent's
// audit log.
func (w *watcher) askHome(ctx context.Context, c *client.Client) error {
	if len(w.flags.nodes) == 0 && w.form != formCloudEvents {
		w.node = "this node"
		return nil
	}
	status, err := c.Status(ctx)
	w.nodes, w.cluster, w.node = status.GetNodes(), status.GetClusterName(), status.GetNodeName()
	return err
}

// withPast asks without the usual limit: the past may be long.
func (a *app) withPast(ctx context.Context, do func(context.Context, *client.Client) error) error {
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
	return do(ctx, c)
}

// past are the registrations of a listing; none stands for everything.
func (w *watcher) past(base belfry.Registration, selectors []selector) ([]belfry.Registration, error) {
	if len(selectors) == 0 {
		selectors = []selector{{class: "*"}}
	}
	if err := w.chooseNodes(&base); err != nil {
		return nil, err
	}
	base.Snapshot = false
	var list []belfry.Registration
	for _, s := range selectors {
		classes, err := w.classes.check(s)
		if err != nil {
			return nil, err
		}
		r := base
		r.Class, r.Subject = s.class, s.subject
		if r.Scope == belfry.ScopeCluster && len(r.Nodes) == 0 && !s.manyClasses() && !classes[0].GetRemote() {
			r.Scope = belfry.ScopeLocal
		}
		list = append(list, r)
	}
	return list, nil
}

// list prints everything, or the newest.
func (w *watcher) list(past *client.Past, last int) error {
	type told struct {
		n      belfry.Notification
		cursor belfry.Cursor
	}
	var newest []told
	for {
		n, err := past.Next()
		switch {
		case errors.Is(err, io.EOF):
			for _, one := range newest {
				w.cursor = one.cursor
				if err := w.print(&one.n); err != nil {
					return err
				}
			}
			return w.out.flush()
		case err != nil:
			return err
		case last > 0:
			if len(newest) == last {
				newest = newest[1:]
			}
			newest = append(newest, told{n, past.Cursor()})
			continue
		}
		w.cursor = past.Cursor()
		if err := w.print(&n); err != nil {
			return err
		}
	}
}

func newEventReplay(a *app) *cobra.Command {
	f := &pastFlags{}
	cmd := &cobra.Command{
		Use:   "replay --handler H",
		Short: "Run a handler again over the past",
		Long: `Run a handler again over what the journal holds of its events, one after the
other, and print each run. It does what the handler does: pages go out again. What
the handler has done and has still to do is not changed, and nothing is kept; what
fails is not tried again.`,
		Example: "  belfry event replay --handler page --since 12:00 --until 12:30",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.handler == "" {
				return usagef("no handler; name one with --handler (belfry handler list)")
			}
			if f.since == "" {
				return usagef("no beginning; say from when on with --since, for example --since 1h")
			}
			return a.eventReplay(cmd.Context(), f)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.handler, "handler", "", "the handler to run, by name")
	return cmd
}

func (a *app) eventReplay(ctx context.Context, f *pastFlags) error {
	since, until, err := f.times(time.Now())
	if err != nil {
		return err
	}
	var runs []*belfryv1.Run
	failed := 0
	err = a.withPast(ctx, func(ctx context.Context, c *client.Client) error {
		return c.Replay(ctx, f.handler, since, until, func(run *belfryv1.Run) error {
			if run.GetResult() != "done" {
				failed++
			}
			runs = append(runs, run)
			return nil
		})
	})
	if err != nil {
		return err
	}
	if err := a.showRuns(runs); err != nil {
		return err
	}
	if failed > 0 {
		if err := a.out.flush(); err != nil {
			return err
		}
		return status{exitFailed, "FAILED", fmt.Sprintf("%d of %s failed", failed, plural(uint64(len(runs)), "run"))}
	}
	return nil
}
