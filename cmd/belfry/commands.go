package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/internal/config"
)

// commands are the tree of ecosystem.md 3, as far as it exists.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		newAgentCommand(a),
		newCACommand(a),
		newClientCommand(a),
		newCompletionCommand(a),
		newConfigCommand(a),
		newDemoCommand(a),
		newDoctorCommand(a),
		newEventCommand(a),
		newHandlerCommand(a),
		newInitCommand(a),
		newJoinCommand(a),
		newLeaveCommand(a),
		newLicenseCommand(a),
		newLinkCommand(a),
		newNodeCommand(a),
		newRegistrationCommand(a),
		newRepositoryCommand(a),
		newRoleCommand(a),
		newSimCommand(a),
		newStatusCommand(a),
		newTokenCommand(a),
		newTopCommand(a),
		newUpCommand(a),
		newVersionCommand(a),
		newWatchCommand(a),
		newWitnessCommand(a),
	}
}

// group runs a command that only holds others: its name alone shows what it
// holds, anything else is a command that there is not.
func (a *app) group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 && cmd.HasParent() {
		return usagef("say what to do: %s", strings.Join(subcommands(cmd), ", "))
	}
	if len(args) == 0 {
		return cmd.Help()
	}
	known := subcommands(cmd)
	a.command = commandName(cmd)
	if near, ok := config.Nearest(args[0], known); ok {
		return usagef("unknown command %q; did you mean %s?", args[0], near)
	}
	return usagef("unknown command %q; one of %s", args[0], strings.Join(known, ", "))
}

func subcommands(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	slices.Sort(names)
	return names
}

// commandName is what stands in errors: "node why", or "" for belfry itself.
func commandName(cmd *cobra.Command) string {
	_, name, _ := strings.Cut(cmd.CommandPath(), " ")
	return name
}

// newGroup is a command that only holds others.
func newGroup(a *app, use, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: a.group}
	group.AddCommand(commands...)
	return group
}

// badValue is how the flag library words a value that it can not read.
const badValue = `^invalid argument "(.*)" for "(?:-\w, )?(--[a-z-]+)" flag: (.*)$`

// flagError words what the flag library found wrong.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	if m := regexp.MustCompile(badValue).FindStringSubmatch(text); m != nil {
		return usagef("%s %s: %s", m[2], m[1], valueFault(m[3]))
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: "); ok {
		return usagef("%s needs a value; belfry %s --help tells more", name, commandName(cmd))
	}
	for _, prefix := range []string{"unknown flag: ", "unknown shorthand flag: "} {
		name, ok := strings.CutPrefix(text, prefix)
		if !ok {
			continue
		}
		if near, found := config.Nearest(name, flagNames(cmd)); found {
			return usagef("unknown flag %s; did you mean %s?", name, near)
		}
		return usagef("unknown flag %s; belfry %s --help lists them", name, commandName(cmd))
	}
	return usagef("%s; belfry %s --help tells more", text, commandName(cmd))
}

// valueFault says what would be right where the library only says what is wrong.
func valueFault(text string) string {
	switch {
	case strings.HasPrefix(text, "time: "):
		return "not a duration; write for example 5s or 250ms"
	case strings.HasPrefix(text, "strconv.ParseBool"):
		return "not a truth value; write true or false"
	case strings.HasPrefix(text, "strconv."):
		return "not a whole number, or too large; write digits"
	}
	return text
}

// exactly wants n arguments; what names them.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < n:
			return usagef("%s is missing", what)
		case len(args) > n:
			return usagef("%q is one argument too many", args[n])
		}
		return nil
	}
}

// none wants no arguments.
func none(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q is one argument too many; this command takes none", args[0])
	}
	return nil
}
