package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/term"

	"github.com/belfry-ha/belfry/internal/config"
)

// newLogger writes where settings say: the journal under systemd, text on a
// terminal, JSON elsewhere. level can be changed while it is used.
func newLogger(w io.Writer, settings config.Log, level *slog.LevelVar) (*slog.Logger, error) {
	level.Set(logLevel(settings.Level))
	options := &slog.HandlerOptions{Level: level}
	format := settings.Format
	if format == "auto" {
		format = autoFormat(w)
	}
	switch format {
	case "journal":
		return slog.New(&journalHandler{level: level}), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("%w %q", errLogFormat, format)
}

func autoFormat(w io.Writer) string {
	if to, err := journal.StderrIsJournalStream(); err == nil && to {
		return "journal"
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return "text"
	}
	return "json"
}

// A journalHandler sends records to journald with a field for each attribute,
// BELFRY_PEER for peer (ecosystem.md 6). A record that journald does not take
// is lost: there is nowhere else to say so.
type journalHandler struct {
	level slog.Leveler
	attrs []slog.Attr
	group string
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := map[string]string{"SYSLOG_IDENTIFIER": "belfry"}
	var text strings.Builder
	text.WriteString(r.Message)
	add := func(a slog.Attr) bool {
		value := a.Value.Resolve().String()
		fields[journalField(h.group+a.Key)] = value
		fmt.Fprintf(&text, " %s=%s", a.Key, value)
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	return journal.Send(text.String(), journalPriority(r.Level), fields)
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	return &c
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.group += name + "_"
	return &c
}

// journalField is a name that journald accepts: capitals, digits and _.
func journalField(key string) string {
	return "BELFRY_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

func journalPriority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
