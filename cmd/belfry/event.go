package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// classListView is event types in JSON.
type classListView struct {
	Classes []classView `json:"classes" doc:"by name"`
}

// classView is one class of events in JSON.
type classView struct {
	Class    string   `json:"class" doc:"name; one that ends in .* stands for every class below it"`
	Kind     string   `json:"kind" doc:"happening, state (two edges and a snapshot) or value (with thresholds)"`
	Summary  string   `json:"summary" doc:"one line"`
	Subject  string   `json:"subject" doc:"form of the subject; empty: it has none"`
	Unit     string   `json:"unit" doc:"of a value; else empty"`
	Fields   []string `json:"fields" doc:"names below data, for --where"`
	Globs    bool     `json:"globs" doc:"the subject may be a pattern"`
	Remote   bool     `json:"remote" doc:"may be registered with scope cluster"`
	Optional bool     `json:"optional" doc:"the subject may be left out: all there are"`
	Volatile bool     `json:"volatile" doc:"not started by a pattern over classes"`
	Source   string   `json:"source" doc:"how this node finds out now, and why in no better way; empty: there is one way only, or nobody watches"`
}

// emitView is event emit in JSON.
type emitView struct {
	Class       string   `json:"class" doc:"class that was posted"`
	Subject     string   `json:"subject" doc:"its subject"`
	Node        string   `json:"node" doc:"name of the node that posted it"`
	Posted      uint64   `json:"posted" doc:"how many occurrences"`
	Matched     uint32   `json:"matched" doc:"how many registrations they matched"`
	TookSeconds *float64 `json:"took_seconds" doc:"how long the agent took"`
}

func newEventCommand(a *app) *cobra.Command {
	types := &cobra.Command{
		Use:   "types [CLASS]",
		Short: "List the classes of events that there are",
		Long: `List the classes of events that there are: what their subjects look like, in
which unit they are measured, which fields --where may use.`,
		Example: "  belfry event types\n  belfry event types process.exit",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.eventTypes(ctx, c, strings.Join(args, ""))
			})
		},
		ValidArgsFunction: a.completeClass,
	}
	var data string
	var repeat uint64
	emit := &cobra.Command{
		Use:   "emit user.NAME[:SUBJECT]",
		Short: "Post an event of your own",
		Long: `Post an event of your own. Its class begins with user; whoever is registered
for it, on this node or with scope cluster on others, receives it.`,
		Example: "  belfry event emit user.build:web\n  belfry event emit user.backup:db1 --data '{\"ok\": true, \"took\": 12.5}'",
		Args:    exactly(1, "user.NAME or user.NAME:SUBJECT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := newEmission(args[0], data, cmd.Flags().Changed("data"), repeat)
			if err != nil {
				return err
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.emit(ctx, c, e)
			})
		},
	}
	emit.Flags().StringVar(&data, "data", "", "a JSON object that goes with it, at most 4 KiB")
	emit.Flags().Uint64Var(&repeat, "repeat", 1, "post it this many times")
	return newGroup(a, "event", "List what happened and what can, post events of your own", newEventList(a), types, emit, newEventReplay(a))
}

func (a *app) eventTypes(ctx context.Context, c *client.Client, name string) error {
	classes, err := catalogueOf(ctx, c)
	if err != nil {
		return err
	}
	if name != "" {
		matching, err := classes.match(name)
		if err != nil {
			return err
		}
		classes = matching
	}
	views := make([]classView, len(classes))
	for i, info := range classes {
		views[i] = viewOfClass(info)
	}
	return a.show(document{
		value: classListView{Classes: views},
		rows:  rowsOf(views),
		table: func(o *output, wide bool) {
			if name != "" && len(views) == 1 {
				classSheet(o, views[0])
				return
			}
			classTable(o, views, wide)
		},
	})
}

func viewOfClass(info *belfryv1.ClassInfo) classView {
	return classView{
		Class: info.GetClass(), Kind: info.GetKind(), Summary: info.GetSummary(), Subject: info.GetSubject(), Unit: info.GetUnit(),
		Fields: append([]string{}, info.GetFields()...),
		Globs:  info.GetGlobs(), Remote: info.GetRemote(), Optional: info.GetOptional(), Volatile: info.GetVolatile(),
		Source: info.GetSource(),
	}
}

func classTable(o *output, classes []classView, wide bool) {
	heads := "CLASS KIND UNIT SUBJECT SUMMARY"
	if wide {
		heads = "CLASS KIND UNIT REMOTE GLOBS FIELDS SUBJECT SUMMARY"
	}
	t := newTable(heads)
	for _, c := range classes {
		if wide {
			t.add(c.Class, c.Kind, c.Unit, yesNo(c.Remote), yesNo(c.Globs), strings.Join(c.Fields, ","), c.Subject, c.Summary)
			continue
		}
		t.add(c.Class, c.Kind, c.Unit, c.Subject, c.Summary)
	}
	t.write(o)
}

func classSheet(o *output, c classView) {
	t := &table{}
	t.add("class", c.Class)
	t.add("summary", c.Summary)
	t.add("kind", c.Kind)
	t.add("unit", c.Unit)
	t.add("subject", c.Subject)
	t.add("optional", yesNo(c.Optional))
	t.add("globs", yesNo(c.Globs))
	t.add("remote", yesNo(c.Remote))
	t.add("volatile", yesNo(c.Volatile))
	t.add("fields", strings.Join(c.Fields, " "))
	if c.Source != "" {
		t.add("source", c.Source)
	}
	t.write(o)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// maxData is the most data of one occurrence (events.md 4).
const maxData = 4 << 10

// An emission is a checked event emit.
type emission struct {
	class, subject string
	data           []byte // a JSON object; nil: none
	repeat         uint64
}

func newEmission(name, data string, hasData bool, repeat uint64) (emission, error) {
	s, err := parseSelector(name)
	if err != nil {
		return emission{}, err
	}
	if !strings.HasPrefix(s.class, "user.") || strings.HasSuffix(s.class, "*") {
		example := strings.Trim(strings.TrimPrefix(s.class, "user"), ".*")
		if example == "" {
			example = "build"
		}
		return emission{}, usagef("%s: only events below user can be posted; for example user.%s", name, example)
	}
	if repeat == 0 {
		return emission{}, usagef("--repeat 0: nothing to post; use 1 or more")
	}
	e := emission{class: s.class, subject: s.subject, repeat: repeat}
	if !hasData {
		return e, nil
	}
	var object map[string]any
	if !utf8.ValidString(data) {
		return emission{}, usagef("--data: not UTF-8")
	}
	if err := json.Unmarshal([]byte(data), &object); err != nil || object == nil {
		return emission{}, usagef("--data: not a JSON object%s; for example '{\"ok\": true}'", jsonFault(err))
	}
	if len(data) > maxData {
		return emission{}, usagef("--data: %d bytes; at most %d", len(data), maxData)
	}
	e.data = []byte(data)
	return e, nil
}

// jsonFault says where JSON went wrong, if it is known.
func jsonFault(err error) string {
	switch err := err.(type) { //nolint:errorlint // as json.Unmarshal returns them
	case *json.SyntaxError:
		return fmt.Sprintf(": byte %d: %v", err.Offset, err)
	case *json.UnmarshalTypeError:
		return ", but of type " + err.Value
	}
	return ""
}

func (a *app) emit(ctx context.Context, c *client.Client, e emission) error {
	answer, err := c.Send(ctx, e.class, e.subject, e.data, e.repeat)
	if err != nil {
		return err
	}
	view := emitView{
		Class: e.class, Subject: e.subject, Node: answer.GetNodeName(), Posted: answer.GetPosted(), Matched: answer.GetMatched(),
		TookSeconds: jsonSeconds(answer.GetTook().AsDuration()),
	}
	return a.show(document{
		value: view,
		table: func(o *output, _ bool) {
			name := selector{class: e.class, subject: e.subject}
			fmt.Fprintf(o, "posted %d of %s at %s, matched %s\n", view.Posted, printable(name.String()), printable(view.Node), plural(view.Matched, "registration"))
		},
	})
}

// completeClass offers the classes to the shell.
func (a *app) completeClass(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	a.complete(cmd, func(ctx context.Context, c *client.Client) error {
		classes, err := catalogueOf(ctx, c)
		names = classes.names()
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
