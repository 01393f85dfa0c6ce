package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/agent"
)

// The exit statuses of ecosystem.md 3.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitNoAgent = 3
	exitNotNow  = 4
	exitTimeout = 5
	exitGap     = 6
	exitSignal  = 128 // and the signal's number
)

// failure is an error whose text says it all: what is wrong; what would be
// right. It wraps the sentinel that gives the exit status.
type failure struct {
	text string
	is   error
}

func (f failure) Error() string { return f.text }

func (f failure) Unwrap() error { return f.is }

func usagef(format string, args ...any) error {
	return failure{fmt.Sprintf(format, args...), belfry.ErrUsage}
}

func failf(sentinel error, format string, args ...any) error {
	return failure{fmt.Sprintf(format, args...), sentinel}
}

// signalled is why a command ended that a signal stopped.
type signalled syscall.Signal

func (s signalled) Error() string { return syscall.Signal(s).String() }

// status is an error that gives its exit status itself. Empty text: nothing
// is printed.
type status struct {
	code int
	name string // the code in JSON
	text string
}

func (s status) Error() string { return s.text }

// errorObject is the error in JSON.
type errorObject struct {
	Code    string `json:"code" doc:"name of the kind of error: USAGE, NO_AGENT, TIMEOUT, …"`
	Message string `json:"message" doc:"what is wrong; what would be right"`
	Op      string `json:"op" doc:"the operation that failed: the command, or the agent's name for it"`
	Node    string `json:"node" doc:"id of the node it concerns; empty: the one that was asked"`
	Subject string `json:"subject" doc:"what it concerns: a path, class:subject, peer/network; may be empty"`
}

// finish prints err, if there is one, and is the exit status.
func (a *app) finish(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	var sig signalled
	if errors.As(context.Cause(ctx), &sig) {
		return exitSignal + int(sig)
	}
	if errors.Is(err, syscall.EPIPE) { // the reader has seen enough
		return exitSignal + int(syscall.SIGPIPE)
	}
	code, object := a.describe(err)
	if object.Message == "" {
		return code
	}
	object.Message, object.Subject = agent.HideTokens(object.Message), agent.HideTokens(object.Subject)
	if a.form.isJSON() {
		line, _ := json.Marshal(object) // strings only
		fmt.Fprintf(a.errOut, "%s\n", line)
		return code
	}
	name := "belfry: "
	if a.command != "" {
		name += a.command + ": "
	}
	for line := range strings.SplitSeq(object.Message, "\n") {
		fmt.Fprintln(a.errOut, name+line)
	}
	return code
}

// describe gives the exit status of err and its JSON form.
func (a *app) describe(err error) (int, errorObject) {
	object := errorObject{Code: belfry.Code(err), Message: withoutSentinel(err), Op: a.command}
	var own status
	switch {
	case errors.As(err, &own):
		object.Code, object.Message = own.name, own.text
		return own.code, object
	case errors.Is(err, context.DeadlineExceeded):
		object.Code, object.Message = "TIMEOUT", "time ran out; --timeout gives more"
		return exitTimeout, object
	}
	if object.Code == "UNKNOWN" && !errors.Is(err, belfry.ErrUnknown) {
		object.Code = "FAILED" // of this machine: a full disk, a broken file
	}
	var e *belfry.Error
	if errors.As(err, &e) {
		object.Message, object.Subject = withoutSentinel(e.Err), e.Subject
		if e.Op != "" {
			object.Op = e.Op
		}
		if !e.Node.IsZero() {
			object.Node = e.Node.String()
		}
		aboutFlag := strings.HasPrefix(object.Message, "--")
		if e.Subject != "" && !aboutFlag && !strings.Contains(object.Message, e.Subject) {
			object.Message = e.Subject + ": " + object.Message
		}
	}
	object.Message += remedy(err)
	return exitStatus(err), object
}

// remedy is what helps where a file of this machine can not be read or written;
// empty: the error says so itself.
func remedy(err error) string {
	switch {
	case !errors.As(err, new(*fs.PathError)) && !errors.As(err, new(*os.LinkError)):
		return ""
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "; make room on that file system and try again"
	case errors.Is(err, syscall.EROFS):
		return "; that file system is read-only: mount it for writing, or name another directory"
	case errors.Is(err, fs.ErrPermission):
		return "; try again as the owner of that file, or as root"
	}
	return ""
}

// withoutSentinel is the text of err without the words "wrong use", which the
// exit status says.
func withoutSentinel(err error) string {
	return strings.TrimPrefix(err.Error(), belfry.ErrUsage.Error()+": ")
}

// exitStatus is the table of ecosystem.md 2.
func exitStatus(err error) int {
	for _, row := range []struct {
		status    int
		sentinels []error
	}{
		{exitUsage, []error{belfry.ErrUsage, belfry.ErrNoThreshold}},
		{exitNoAgent, []error{belfry.ErrNoAgent}},
		{exitNotNow, []error{belfry.ErrConflict, belfry.ErrRestricted, belfry.ErrNotMember, belfry.ErrUnknown}},
	} {
		for _, sentinel := range row.sentinels {
			if errors.Is(err, sentinel) {
				return row.status
			}
		}
	}
	return exitFailed
}

// flagNames reads the names from the help text, because the type of a flag
// belongs to a module that this folder does not use.
func flagNames(cmd *cobra.Command) (names []string) {
	for word := range strings.FieldsSeq(cmd.Flags().FlagUsages()) {
		if strings.HasPrefix(word, "--") {
			names = append(names, word)
		}
	}
	return names
}
