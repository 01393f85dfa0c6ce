package client

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

func TestDialSaysWhyNobodyAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing, dead := filepath.Join(dir, "missing"), filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		target string
		want   error
		text   string
	}{
		{missing, belfry.ErrNoAgent, "no agent at " + missing + ": no such file or directory; start it with systemctl start belfry, or try one with belfry up"},
		{"unix:" + missing, belfry.ErrNoAgent, "no agent at " + missing + ": no such file or directory; start it with systemctl start belfry, or try one with belfry up"},
		{dead, belfry.ErrNoAgent, "no agent at " + dead + ": connection refused; start it with systemctl start belfry, or try one with belfry up"},
		{"host", belfry.ErrUsage, `wrong use: target "host" is no path, and a host needs a client certificate; give one with WithTLS`},
	}
	for _, tt := range tests {
		_, err := Dial(t.Context(), tt.target)
		if !errors.Is(err, tt.want) || err.Error() != tt.text {
			t.Errorf("%s: %v\nwant %s", tt.target, err, tt.text)
		}
	}
}

func TestDialDoesNotTakeSilenceForAnAgent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path) // accepts by its backlog, as a stopped agent does
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v; want that time ran out", err)
	}
}
