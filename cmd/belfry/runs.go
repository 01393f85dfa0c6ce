package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cloudevents"
)

// handlerView is one handler in JSON.
type handlerView struct {
	Name        string   `json:"name" doc:"as in the settings file"`
	State       string   `json:"state" doc:"registered or refused"`
	Error       string   `json:"error" doc:"why it is refused; empty: it is not"`
	On          []string `json:"on" doc:"selectors of its events"`
	Scope       string   `json:"scope" doc:"local or cluster"`
	RunOn       string   `json:"run_on" doc:"every, origin or one"`
	Exec        string   `json:"exec" doc:"the program, without its arguments"`
	Open        uint32   `json:"open" doc:"notifications that are worked on, or wait to be tried again"`
	Queued      uint64   `json:"queued" doc:"notifications that wait behind them"`
	Done        uint64   `json:"done" doc:"runs that ended well, since the agent started"`
	Failed      uint64   `json:"failed" doc:"runs that did not, likewise"`
	DeadLetters uint32   `json:"dead_letters" doc:"notifications that it gave up"`
	Last        *runView `json:"last" doc:"the newest run, without its output; null: there is none"`
}

// handlerListView is handler list in JSON.
type handlerListView struct {
	Handlers []handlerView `json:"handlers" doc:"by name"`
}

// runView is one run in JSON.
type runView struct {
	ID            uint64   `json:"id" doc:"grows with each run; 0: it is not kept"`
	Handler       string   `json:"handler" doc:"its handler"`
	Node          string   `json:"node" doc:"where the event happened"`
	Class         string   `json:"class" doc:"of the event; empty: a gap over several events"`
	Subject       string   `json:"subject" doc:"of the event"`
	Kind          string   `json:"kind" doc:"of the notification"`
	FirstSequence uint64   `json:"first_sequence" doc:"the first number that it stands for"`
	Sequence      uint64   `json:"sequence" doc:"the last number that it stands for"`
	Count         uint64   `json:"count" doc:"occurrences that it stands for"`
	Attempt       uint32   `json:"attempt" doc:"1 is the first"`
	Started       *instant `json:"started" doc:"when it began"`
	TookSeconds   *float64 `json:"took_seconds" doc:"how long it took"`
	Result        string   `json:"result" doc:"done, retry (it is tried again) or dead (it was given up)"`
	Error         string   `json:"error" doc:"why it did not end well"`
	Exit          *int32   `json:"exit" doc:"exit status; null: it did not end by itself"`
	Output        string   `json:"output" doc:"what it printed, the first 64 KiB"`
}

// runListView is handler runs in JSON.
type runListView struct {
	Runs []runView `json:"runs" doc:"newest first"`
}

func newHandlerCommand(a *app) *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "List this node's handlers and how they are doing",
		Long: `List the handlers in this node's settings file: a handler runs a command for each
notification of its events, in order, once for each sequence number, and one
run at a time for each event. What fails is tried again with growing pauses; what is
given up is a dead letter.`,
		Example: "  belfry handler list\n  belfry handler list -o wide",
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.ask(cmd.Context(), a.handlerList) },
	}
	return newGroup(a, "handler", "Look at the commands that run for events, and try them", list, newHandlerRuns(a), newHandlerTest(a), newHandlerRetry(a))
}

func newHandlerRuns(a *app) *cobra.Command {
	var failed bool
	var limit int
	cmd := &cobra.Command{
		Use:     "runs [HANDLER]",
		Short:   "List the last runs, newest first",
		Example: "  belfry handler runs page\n  belfry handler runs --failed -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > 1000 {
				return usagef("-n %d: 1 to 1000 runs are possible", limit)
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.handlerRuns(ctx, c, strings.Join(args, ""), failed, limit)
			})
		},
	}
	cmd.Flags().BoolVar(&failed, "failed", false, "only those that did not end well")
	cmd.Flags().IntVarP(&limit, "number", "n", 20, "at most so many")
	return cmd
}

func newHandlerTest(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "test HANDLER",
		Short: "Run a handler once, for an event that did not happen",
		Long: `Run a handler once, for an event that did not happen, and show what came of it.
It leaves no trace in the handler's queue or history. With --event the event is
one that "belfry watch -o json" or -o jsonl has printed; else one is made up from the
handler's first selector. What it ends with is the exit status: 0 for a run that
is done, 1 for any other.`,
		Example: "  belfry handler test page\n  belfry watch node.state --count 1 -o json | belfry handler test page --event -",
		Args:    exactly(1, "the handler's name, as handler list shows it,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &belfryv1.TestHandlerRequest{Handler: args[0]}
			if file != "" {
				if err := a.readEvent(file, req); err != nil {
					return err
				}
			}
			return a.longAsk(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				run, err := c.TestHandler(ctx, req)
				if err != nil {
					return err
				}
				return a.showRun(run)
			})
		},
	}
	cmd.Flags().StringVar(&file, "event", "", "FILE with the event in JSON; - is standard input")
	return cmd
}

func newHandlerRetry(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "retry RUN",
		Short:   "Deliver a dead letter once more",
		Long:    "Deliver a dead letter once more, and show what came of it. It stays a dead letter\nif that fails, too; the exit status is then 1.",
		Example: "  belfry handler runs --failed\n  belfry handler retry 41",
		Args:    exactly(1, "the number of the run, as handler runs shows it,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || id == 0 {
				return usagef("%s: no number of a run; belfry handler runs --failed lists them", args[0])
			}
			return a.longAsk(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				run, err := c.RetryRun(ctx, id)
				if err != nil {
					return err
				}
				return a.showRun(run)
			})
		},
	}
}

// longAsk waits for a command that may take as long as its handler allows,
// unless --timeout says otherwise.
func (a *app) longAsk(ctx context.Context, call func(context.Context, *client.Client) error) error {
	if a.timeout == 0 {
		a.timeout = time.Hour + defaultTimeout
	}
	return a.ask(ctx, call)
}

// maxEventFile bounds what --event reads.
const maxEventFile = 64 << 10

// readEvent takes the first notification that a watch has printed.
func (a *app) readEvent(file string, req *belfryv1.TestHandlerRequest) error {
	in := io.Reader(os.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return usagef("--event: %v", err)
		}
		defer f.Close()
		in = f
	}
	var n struct {
		Class, Subject, Node string
		Code                 int32
		Edge                 *string
		Value                *float64
		Data                 json.RawMessage
	}
	if err := json.NewDecoder(io.LimitReader(in, maxEventFile)).Decode(&n); err != nil || n.Class == "" {
		return usagef("--event %s: not a notification in JSON%s; belfry watch -o json prints them", file, jsonFault(err))
	}
	req.Class, req.Subject, req.NodeName, req.Code = n.Class, n.Subject, n.Node, n.Code
	if n.Edge != nil {
		req.Edge = *n.Edge
	}
	if n.Value != nil {
		req.Value = *n.Value
	}
	if len(n.Data) == 0 || string(n.Data) == "null" || string(n.Data) == "{}" {
		return nil
	}
	var err error
	if req.Data, err = cloudevents.Data(belfry.Class(n.Class), n.Data); err != nil {
		return usagef("--event %s: %s", file, withoutSentinel(err))
	}
	return nil
}

func viewOfHandlerRun(r *belfryv1.Run) *runView {
	return &runView{
		ID: r.GetId(), Handler: r.GetHandler(), Node: r.GetNodeName(), Class: r.GetClass(), Subject: r.GetSubject(), Kind: r.GetKind(),
		FirstSequence: r.GetFirstSequence(), Sequence: r.GetSequence(), Count: r.GetCount(), Attempt: r.GetAttempt(),
		Started: jsonTime(when(r.GetStarted())), TookSeconds: jsonSeconds(r.GetTook().AsDuration()), Result: r.GetResult(),
		Error: r.GetError(), Exit: r.Exit, Output: strings.ToValidUTF8(string(r.GetOutput()), "\uFFFD"),
	}
}

func (a *app) handlerList(ctx context.Context, c *client.Client) error {
	list, err := c.Handlers(ctx)
	if err != nil {
		return err
	}
	views := make([]handlerView, len(list))
	for i, h := range list {
		views[i] = handlerView{
			Name: h.GetName(), State: "registered", Error: h.GetError(), On: append([]string{}, h.GetOn()...), Scope: h.GetScope(), RunOn: h.GetRunOn(),
			Exec: h.GetExec(), Open: h.GetOpen(), Queued: h.GetQueued(), Done: h.GetDone(), Failed: h.GetFailed(), DeadLetters: h.GetDeadLetters(),
		}
		if h.GetError() != "" {
			views[i].State = "refused"
		}
		if h.GetLast() != nil {
			views[i].Last = viewOfHandlerRun(h.GetLast())
		}
	}
	return a.show(document{
		value: handlerListView{Handlers: views},
		rows:  rowsOf(views),
		table: func(o *output, wide bool) { handlerTable(o, list, views, time.Now(), wide) },
	})
}

func handlerTable(o *output, list []*belfryv1.Handler, views []handlerView, now time.Time, wide bool) {
	heads := "HANDLER STATE ON OPEN QUEUED DONE FAILED DEAD LAST"
	if wide {
		heads += " SCOPE RUNON EXEC"
	}
	t := newTable(heads)
	for i, v := range views {
		state := cell{v.State, green}
		if v.Error != "" {
			state.color = red
		}
		dead := cell{text: strconv.FormatUint(uint64(v.DeadLetters), 10)}
		if v.DeadLetters > 0 {
			dead.color = yellow
		}
		last := "-"
		if run := list[i].GetLast(); run != nil {
			last = run.GetResult() + " " + sinceText(now, run.GetStarted().AsTime()) + " ago"
		}
		row := []cell{
			{text: v.Name},
			state,
			{text: strings.Join(v.On, " ")},
			{text: strconv.FormatUint(uint64(v.Open), 10)},
			{text: strconv.FormatUint(v.Queued, 10)},
			{text: strconv.FormatUint(v.Done, 10)},
			{text: strconv.FormatUint(v.Failed, 10)},
			dead,
			{text: last},
		}
		if wide {
			row = append(row, cell{text: v.Scope}, cell{text: v.RunOn}, cell{text: v.Exec})
		}
		t.addCells(row...)
	}
	t.write(o)
	for _, v := range views {
		if v.Error != "" {
			fmt.Fprintf(o, "%s is refused: %s\n", printable(v.Name), printable(v.Error))
		}
	}
}

func (a *app) handlerRuns(ctx context.Context, c *client.Client, handler string, failed bool, limit int) error {
	runs, err := c.Runs(ctx, handler, failed, limit)
	if err != nil {
		return err
	}
	return a.showRuns(runs)
}

func (a *app) showRuns(runs []*belfryv1.Run) error {
	views := make([]runView, len(runs))
	t := newTable("RUN HANDLER STARTED NODE EVENT SEQ COUNT ATTEMPT RESULT TOOK ERROR")
	for i, r := range runs {
		v := viewOfHandlerRun(r)
		views[i] = *v
		result := cell{v.Result, green}
		switch v.Result {
		case "dead":
			result.color = red
		case "retry":
			result.color = yellow
		}
		event := selector{class: v.Class, subject: v.Subject}.String()
		if v.Class == "" {
			event = "several"
		}
		t.addCells(
			cell{text: strconv.FormatUint(v.ID, 10)}, cell{text: v.Handler}, cell{text: r.GetStarted().AsTime().Local().Format(time.DateTime)},
			cell{text: v.Node}, cell{text: event}, cell{text: strconv.FormatUint(v.Sequence, 10)}, cell{text: strconv.FormatUint(v.Count, 10)},
			cell{text: strconv.FormatUint(uint64(v.Attempt), 10)}, result, cell{text: ago(r.GetTook().AsDuration())}, cell{text: firstLine(v.Error)},
		)
	}
	return a.show(document{value: runListView{Runs: views}, rows: rowsOf(views), table: func(o *output, _ bool) { t.write(o) }})
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// showRun prints one run; one that is not done is a failure of the command.
func (a *app) showRun(r *belfryv1.Run) error {
	v := viewOfHandlerRun(r)
	err := a.show(document{
		value: v,
		table: func(o *output, _ bool) {
			fmt.Fprintf(o, "%s: %s after %s\n", printable(v.Handler), v.Result, ago(r.GetTook().AsDuration()))
			for line := range strings.Lines(v.Output) {
				fmt.Fprintf(o, "  %s\n", printable(strings.TrimSuffix(line, "\n")))
			}
		},
	})
	if err == nil && v.Result != "done" {
		if err := a.out.flush(); err != nil {
			return err
		}
		return status{exitFailed, "FAILED", v.Handler + ": " + firstLine(v.Error)}
	}
	return err
}
