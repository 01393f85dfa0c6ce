package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// demoTimeout bounds the whole demonstration.
const demoTimeout = 2 * time.Minute

func newDemoCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on real input: numbered, timed steps",
		Long: `Show the main job on real input: three agents are started as processes of
their own, real processes are killed, real files change, the configuration changes
and its repository moves, products are unlocked, an agent is killed and comes back;
in the end a node vanishes under two clients of a TCP service, of which the one
that has a witness goes on at another node, and the other one waits.

As root, with ip and nft, the agents run in a network namespace of their own, in
which one direction of a link and then a whole network are cut; where that is not
possible these steps are skipped, with the reason, and are not counted as happened.
Each step says what happened and how long it took. The exit code is 0 when no step
failed, else 1. -o json prints a step a line.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), demoTimeout)
			defer cancel()
			return runDemo(ctx, a.out.file, !a.form.isTable())
		},
	}
	cmd.AddCommand(newDemoServiceCommand(a), newDemoClientCommand(a))
	return cmd
}

// A step is one line of the demonstration.
type step struct {
	Number  int            `json:"step"`
	Name    string         `json:"name"`
	OK      bool           `json:"ok"`                // it happened, in its time
	Skipped string         `json:"skipped,omitempty"` // why it was not tried
	Seconds float64        `json:"seconds"`           // how long the step took
	Figures map[string]any `json:"figures,omitempty"`
	Error   string         `json:"error,omitempty"`
}

// A demo runs steps until one does not happen.
type demo struct {
	out     io.Writer
	json    bool
	number  int
	skipped int // of number
	network demoNetwork
	cluster *localCluster
	input   *demoInput
	main    *consumer // at a
	stalled *consumer // at a; does not read for a while
	before  verdicts  // before anything was cut
	vendor  *demoVendor

	witnessed demoWitnessed
}

// A skipReason is why a step is not possible on this machine: no failure, and
// not passed either.
type skipReason string

func (r skipReason) Error() string { return string(r) }

// figure is one thing that a step measured, in the order it is shown.
type figure struct {
	name  string
	value any // string, int, uint64, float64 or time.Duration
}

func runDemo(ctx context.Context, out io.Writer, asJSON bool) error {
	d := &demo{out: out, json: asJSON}
	begin := time.Now()
	defer d.close()
	for _, s := range d.steps() {
		if err := d.step(ctx, s.name, s.limit, s.run); err != nil {
			return err
		}
	}
	if !asJSON {
		fmt.Fprintf(out, "\n%s, in %.1fs\n", d.summary(), time.Since(begin).Seconds())
	}
	return nil
}

// summary counts what happened, which what was skipped has not.
func (d *demo) summary() string {
	if d.skipped == 0 {
		return fmt.Sprintf("all %d steps happened", d.number)
	}
	return fmt.Sprintf("%d of %d steps happened, %d skipped", d.number-d.skipped, d.number, d.skipped)
}

// A stage is one step that is still to come.
type stage struct {
	name  string
	limit time.Duration
	run   func(context.Context) ([]figure, error)
}

// steps are all of them in order. What cuts links comes before the agent that
// is killed: its links go down with it, and down twice within a minute is
// flapping.
func (d *demo) steps() []stage {
	return []stage{
		{"three agents start and see each other up", 10 * time.Second, d.start},
		{"a consumer at a registers, with scope cluster", 5 * time.Second, d.register},
		{"a file system above its threshold at b is reported at a", 5 * time.Second, d.filesystem},
		{"a process at b is killed, a is told", 5 * time.Second, d.killProcess},
		{"a file changes at c, a is told", 5 * time.Second, d.changeFile},
		{"10,000 duplicates at b while the consumer at a does not read", 15 * time.Second, d.duplicates},
		{"a tunable is changed at a: b and c read it from the repository", 5 * time.Second, d.changeTunable},
		{"the repository's file is moved: it is found again by its identifier", 15 * time.Second, d.moveRepository},
		{"a product is unlocked at a: b and c unlock it by themselves", 5 * time.Second, d.unlockProduct},
		{"a link from a to b is cut in one direction: both ends say which, nobody is down", 25 * time.Second, d.cutDirection},
		{"net1 is cut: its links are down, no peer and no node is", 25 * time.Second, d.cutNetwork},
		{"net1 is healed: all links work again, no verdict has changed", 25 * time.Second, d.healNetwork},
		{"agent c is killed with SIGKILL, a is told", 5 * time.Second, d.killAgent},
		{"another product is unlocked at a while c is down", 5 * time.Second, d.unlockWithoutC},
		{"agent c comes back, its registrations with it, and unlocks the product at its start", 10 * time.Second, d.comeBack},
		{"an event at c is received at a again", 5 * time.Second, d.eventAgain},
		{"two clients at a use a TCP service at b; one of them has a witness", 10 * time.Second, d.useService},
		{"b vanishes while both are idle: the one is told and goes on at c, the other waits", 10 * time.Second, d.killHolder},
	}
}

func (d *demo) close() {
	for _, c := range []*consumer{d.main, d.stalled} {
		if c != nil {
			c.close()
		}
	}
	if d.input != nil {
		d.input.close()
	}
	d.witnessed.close()
	if d.cluster != nil {
		d.cluster.stop()
	}
}

// step runs one step within its limit and prints what it found.
func (d *demo) step(ctx context.Context, name string, limit time.Duration, run func(context.Context) ([]figure, error)) error {
	d.number++
	s := step{Number: d.number, Name: name}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	figures, err := run(limited)
	s.Seconds = time.Since(begin).Seconds()
	s.OK = err == nil
	var reason skipReason
	switch {
	case errors.As(err, &reason):
		s.Skipped, err = string(reason), nil
		d.skipped++
	case errors.Is(err, context.DeadlineExceeded):
		s.Error = fmt.Sprintf("did not happen within %v (%s)", limit, strings.ReplaceAll(err.Error(), "\n", ", "))
	case err != nil:
		s.Error = err.Error()
	}
	if printErr := d.print(s, figures); printErr != nil {
		return printErr
	}
	if err != nil {
		return status{code: exitFailed, name: "FAILED", text: fmt.Sprintf("step %d, %s: %s", s.Number, s.Name, s.Error)}
	}
	return nil
}

func (d *demo) print(s step, figures []figure) error {
	if d.json {
		s.Figures = map[string]any{}
		for _, f := range figures {
			if took, ok := f.value.(time.Duration); ok {
				s.Figures[f.name+"_seconds"] = took.Seconds()
			} else {
				s.Figures[f.name] = f.value
			}
		}
		line, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(d.out, "%s\n", line)
		return err
	}
	mark := "ok"
	switch {
	case s.Skipped != "":
		mark = "skipped: " + s.Skipped
	case !s.OK:
		mark = "FAILED: " + s.Error
	}
	var shown []string
	for _, f := range figures {
		value := f.value
		if took, ok := value.(time.Duration); ok {
			value = shortDuration(took)
		}
		shown = append(shown, fmt.Sprintf("%s=%v", f.name, value))
	}
	_, err := fmt.Fprintf(d.out, "%d  %s\n   %s after %.2fs  %s\n", s.Number, s.Name, mark, s.Seconds, strings.Join(shown, " "))
	return err
}

// shortDuration has three digits, which is all that one run can claim.
func shortDuration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
