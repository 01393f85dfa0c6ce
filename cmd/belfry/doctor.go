package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/agent"
	"github.com/belfry-ha/belfry/internal/config"
)

// doctorView is doctor in JSON.
type doctorView struct {
	Level    string        `json:"level" doc:"the worst of the findings: ok, warning, unknown or failure"`
	Findings []findingView `json:"findings" doc:"in the order of the checks; one of a check that is fine, else one for each thing that is not"`
}

// findingView is one finding in JSON.
type findingView struct {
	Check string `json:"check" doc:"name of the check"`
	Level string `json:"level" doc:"ok, warning, failure, or unknown: the check could not be made"`
	Text  string `json:"text" doc:"what is so; unless that is fine, what to do"`
}

// severity orders the levels: what could not be looked at may be broken, but
// is not known to be.
var severity = []agent.Level{agent.LevelOK, agent.LevelWarning, agent.LevelUnknown, agent.LevelFailure}

func newDoctorCommand(a *app) *cobra.Command {
	var (
		file   string
		strict bool
	)
	cmd := &cobra.Command{
		Use:   "doctor [CHECK…]",
		Short: "Check this machine's agent, running or not, and say what to do",
		Long: `Check this machine's agent, running or not, and say what to do. Without
names all checks are made: ` + strings.Join(agent.Checks, ", ") + `.
Nothing is changed. Run it as the user of the agent. clock, streams, links,
members, limits, journal, producers, repository, licenses and witness need an agent that answers;
without one they say so and are unknown. It is asked at --socket, else at the socket of the
file that --config names, else at $BELFRY_SOCKET, else at that of the settings.

The exit status is 1 if there is a failure, with --strict also if there is a
warning or if a check could not be made. With -o nagios it is 0 ok, 1 warning,
2 critical, 3 unknown.`,
		Example: `  belfry doctor
  belfry doctor audit --config ./belfry.yaml
  belfry doctor -o nagios`,
		Args:      checkNames,
		ValidArgs: agent.Checks,
		RunE: func(cmd *cobra.Command, args []string) error {
			socket := a.socket
			if socket == "" && file == "" {
				socket = a.getenv("BELFRY_SOCKET") // else the file that is named says which agent is meant
			}
			if _, err := os.Stat(packagedSettings); file == "" && err == nil {
				file = packagedSettings
			}
			settings, err := config.Load(file, os.Environ())
			if err != nil {
				return err
			}
			if socket != "" {
				settings.Socket.Path = socket
			}
			if len(args) == 0 {
				args = agent.Checks
			}
			return a.doctor(agent.Diagnose(settings, time.Now(), args, a.askAgent(cmd.Context(), settings.Socket.Path)), strict)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "file with the agent's settings (default "+packagedSettings+" if it is there)")
	cmd.Flags().BoolVar(&strict, "strict", false, "a warning is a failure")
	return cmd
}

// askAgent asks the agent at this socket.
func (a *app) askAgent(ctx context.Context, socket string) agent.Ask {
	var status *belfryv1.GetStatusResponse
	var links []*belfryv1.Link
	ask := func(what func(context.Context, *client.Client) error) error {
		ctx, cancel := a.request(ctx)
		defer cancel()
		c, err := client.Dial(ctx, "unix:"+socket)
		if err != nil {
			return err
		}
		defer c.Close()
		return what(ctx, c)
	}
	return agent.Ask{
		Status: func() (*belfryv1.GetStatusResponse, error) {
			err := ask(func(ctx context.Context, c *client.Client) (err error) {
				status, err = c.Status(ctx)
				return err
			})
			return status, err
		},
		Links: func() ([]*belfryv1.Link, error) {
			err := ask(func(ctx context.Context, c *client.Client) error {
				all, err := c.LinksWhere(ctx, "", client.LinkFilter{})
				links = all.GetLinks()
				return err
			})
			return links, err
		},
	}
}

func checkNames(_ *cobra.Command, args []string) error {
	for _, name := range args {
		if slices.Contains(agent.Checks, name) {
			continue
		}
		if near, ok := config.Nearest(name, agent.Checks); ok {
			return usagef("unknown check %q; did you mean %s?", name, near)
		}
		return usagef("unknown check %q; one of %s", name, strings.Join(agent.Checks, ", "))
	}
	return nil
}

// doctor shows the findings; its error only carries the exit status.
func (a *app) doctor(found []agent.Finding, strict bool) error {
	view := doctorView{Findings: []findingView{}}
	worst := agent.LevelOK
	for _, f := range found {
		view.Findings = append(view.Findings, findingView{Check: f.Check, Level: f.Level.String(), Text: f.Text})
		if slices.Index(severity, f.Level) > slices.Index(severity, worst) {
			worst = f.Level
		}
	}
	view.Level = worst.String()
	if a.form == formNagios {
		return a.nagios(found, worst)
	}
	err := a.show(document{value: view, rows: rowsOf(view.Findings), table: func(o *output, _ bool) { findingTable(o, found) }})
	if err == nil {
		err = a.out.flush() // what was found comes before the status
	}
	if err == nil && (worst == agent.LevelFailure || strict && worst != agent.LevelOK) {
		return status{code: exitFailed, name: "FAILED"}
	}
	return err
}

func findingTable(o *output, found []agent.Finding) {
	colors := map[agent.Level]color{agent.LevelOK: green, agent.LevelWarning: yellow, agent.LevelFailure: red}
	t := &table{}
	for _, f := range found {
		t.addCells(cell{f.Level.String(), colors[f.Level]}, cell{text: f.Check}, cell{text: f.Text})
	}
	t.write(o)
}

// nagios writes the one line and gives the exit status that such checks have.
func (a *app) nagios(found []agent.Finding, worst agent.Level) error {
	words := [...]string{agent.LevelOK: "OK", agent.LevelWarning: "WARNING", agent.LevelFailure: "CRITICAL", agent.LevelUnknown: "UNKNOWN"}
	var wrong []string
	for _, f := range found {
		if f.Level != agent.LevelOK {
			wrong = append(wrong, f.Check+": "+printable(strings.ReplaceAll(f.Text, "|", "/"))) // what follows | is data
		}
	}
	made := map[string]bool{}
	for _, f := range found {
		made[f.Check] = true
	}
	text := plural(len(made), "check")
	if len(wrong) > 0 {
		text = strings.Join(wrong, ", ")
	}
	fmt.Fprintf(a.out, "BELFRY %s - %s\n", words[worst], text)
	if err := a.out.flush(); err != nil {
		return err
	}
	if worst == agent.LevelOK {
		return nil
	}
	return status{code: map[agent.Level]int{agent.LevelWarning: 1, agent.LevelFailure: 2, agent.LevelUnknown: 3}[worst], name: "FAILED"}
}
