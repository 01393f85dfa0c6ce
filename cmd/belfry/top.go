package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// topFrames is the most pictures a second; the terminal gets only what differs
// from the last one.
const topFrames = 10

func newTopCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "top",
		Short: "Show nodes, links and events live",
		Long: `Show nodes, links and events live, on a terminal of 80 columns and 24 lines or
more, until q is pressed. It is what the agent's node holds: its verdicts, the
links that it hears itself, and the events of nodes and links as it saw them.

` + topKeys + `
A change is shown within a second. While no agent answers, the first line says
since when all below it is stale. Handlers have no pane: belfry handler list.`,
		Example: "  belfry top\n  belfry top --server node1.example:7432\n  NO_COLOR=1 belfry top",
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.top(cmd.Context()) },
	}
}

// top shows the cluster until a key or ctx ends it.
func (a *app) top(ctx context.Context) error {
	if !a.form.isTable() {
		return usagef("-o %s: top is for people; belfry status --watch writes every form", a.form)
	}
	in, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) || !a.terminal() {
		return usagef("standard input and output are not a terminal; use belfry status --watch")
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
	feed := newTopFeed(c)
	if feed.classes, err = catalogueOf(opening, c); err != nil {
		return err
	}
	return a.showTop(ctx, in, feed)
}

// showTop runs the program and its feed, and returns when both have ended.
func (a *app) showTop(ctx context.Context, in *os.File, feed *topFeed) error {
	model := newTopModel(feed.classes, a.out.colored)
	model.fetch = func(t topTarget) tea.Cmd {
		return func() tea.Msg { return detailsOf(ctx, feed.client, t) }
	}
	program := tea.NewProgram(model, tea.WithInput(in), tea.WithOutput(a.out.file),
		tea.WithFPS(topFrames), tea.WithoutSignalHandler(), tea.WithEnvironment(a.topEnvironment()))
	// Not WithContext: a program that is killed closes its input while it reads it.
	defer context.AfterFunc(ctx, program.Quit)()
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		feed.run(watching, func(answer topAnswer) { program.Send(answer) })
	}()
	_, err := program.Run()
	stop()
	<-done
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	return ctx.Err()
}

// topEnvironment is the environment without what --color overrules.
func (a *app) topEnvironment() []string {
	environ := os.Environ()
	if a.color == "always" {
		environ = slices.DeleteFunc(environ, func(s string) bool { return strings.HasPrefix(s, "NO_COLOR=") })
	}
	return environ
}

// detailsOf asks for all that is known of a node or link. It has no colours:
// it stays on the screen when it is stale.
func detailsOf(ctx context.Context, c *client.Client, t topTarget) topDetails {
	ctx, cancel := context.WithTimeout(ctx, topPatience)
	defer cancel()
	o := &output{}
	d := topDetails{target: t}
	switch t.pane {
	case paneNodes:
		answer, err := c.Node(ctx, t.key)
		if d.err = err; err == nil {
			now := time.Now()
			n := answer.GetNode()
			whyTable(o, answer, now)
			fmt.Fprintln(o)
			nodeSheet(nodeShowView{viewOfNode(n, now), viewsOfEvidence(answer.GetEvidence())}, now, n).write(o)
		}
	case paneLinks:
		peer, network, _ := strings.Cut(t.key, "/")
		answer, err := c.Links(ctx, peer)
		if d.err = err; err == nil {
			links := slices.DeleteFunc(answer.GetLinks(), func(l *linkRow) bool { return l.GetNetwork() != network })
			if len(links) == 0 {
				d.err = failf(belfry.ErrNotFound, "the link has ended")
			}
			linkSheets(o, links, time.Now(), false)
		}
	}
	d.lines = linesOf(o)
	return d
}

// linesOf is what was gathered, by lines.
func linesOf(o *output) []string {
	return strings.Split(strings.TrimRight(o.buffer.String(), "\n"), "\n")
}
