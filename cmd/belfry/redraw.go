package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/belfry-ha/belfry"
)

const (
	watchInterval = time.Second             // between two looks where nothing happens
	watchSpacing  = 100 * time.Millisecond  // between two looks where much happens
	watchRetry    = 200 * time.Millisecond  // until an agent that is gone is asked again
	watchPatience = 2500 * time.Millisecond // for one look; a matrix takes two seconds at most
	homeAndErase  = "\x1b[H\x1b[2J"         // ECMA-48: to the first place, erase all
	home          = "\x1b[H"                // to the first place
	eraseLine     = "\x1b[K"                // to the end of the line
	eraseBelow    = "\x1b[J"                // to the end of the screen
)

// lookTime is how long one look of a watch may take. The first one has as long as
// a command that looks once: if it fails, the watch does.
func lookTime(first bool) time.Duration {
	if first {
		return defaultTimeout
	}
	return watchPatience
}

// stream is the context of a watch: it has no end by itself, but for --timeout.
func (a *app) stream(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.timeout > 0 {
		return context.WithTimeout(ctx, a.timeout)
	}
	return context.WithCancel(ctx)
}

// passes tells whether an error of the agent is one that passes by itself: it
// ended and starts again, it stops just now, or it knows the answer later.
func passes(err error) bool {
	for _, lasting := range []error{belfry.ErrUsage, belfry.ErrPermission, belfry.ErrNotFound, belfry.ErrUnsupported, belfry.ErrLimit} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	for _, passing := range []error{belfry.ErrNoAgent, belfry.ErrNotMember, belfry.ErrUnknown, io.EOF, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// plain is the text of an error, as the command would end with it.
func (a *app) plain(err error) string {
	_, object := a.describe(err)
	return object.Message
}

// draws tells whether a watch draws one picture over the other: for a person at
// a terminal. Else it writes what changes, line by line.
func (a *app) draws() bool { return a.form.isTable() && a.terminal() }

// redraw shows what look writes, each second and after each news, until ctx ends.
// While the agent is away the last picture stays, and says how old it is. The
// first look has to succeed.
func (a *app) redraw(ctx context.Context, news <-chan struct{}, look func(context.Context) error) error {
	last, seen := "", time.Time{}
	for {
		request, cancel := context.WithTimeout(ctx, lookTime(seen.IsZero()))
		err := look(request)
		cancel()
		text := a.out.buffer.String()
		a.out.buffer.Reset()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			last, seen = text, time.Now()
		case seen.IsZero() || !passes(err):
			return err
		default:
			text = fmt.Sprintf("%s\nstale since %s: %s\n", last, clock(seen), printable(a.plain(err)))
		}
		if err := a.draw(text); err != nil {
			return err
		}
		if !pause(ctx, watchSpacing, nil) || !pause(ctx, watchInterval-watchSpacing, news) {
			return ctx.Err()
		}
	}
}

// draw puts a picture over the last one, as far as there is room.
func (a *app) draw(text string) error {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if _, height, err := term.GetSize(int(a.out.file.Fd())); err == nil && height > 1 && len(lines) >= height {
		hidden := len(lines) - (height - 2)
		lines = append(lines[:height-2], fmt.Sprintf("… %s more; a higher terminal shows them, flags narrow them down", plural(hidden, "line")))
	}
	first := home
	if !a.drawn {
		first, a.drawn = homeAndErase, true
	}
	fmt.Fprint(a.out, first)
	for _, line := range lines {
		fmt.Fprint(a.out, line, eraseLine, "\n")
	}
	fmt.Fprint(a.out, eraseBelow)
	return a.out.flush()
}
