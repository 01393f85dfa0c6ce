package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cloudevents"
)

// handlerGrace is how long a command has to end after SIGTERM.
const handlerGrace = 5 * time.Second

// A handler runs a shell command for one notification after the other.
type handler struct {
	command string
	cluster string // name, for the event's source
	out     *os.File
	errOut  io.Writer
}

// handle runs the command for n and waits for its end. It gets the event in
// its environment and, as a CloudEvent, on its input. It has a process group
// of its own, so that all of it ends when ctx does.
func (h handler) handle(ctx context.Context, n *belfry.Notification) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", h.command)
	cmd.Env = append(os.Environ(), cloudevents.Environment(n)...)
	cmd.Stdin = bytes.NewReader(append(cloudevents.Append(nil, h.cluster, n), '\n'))
	cmd.Stdout, cmd.Stderr = h.out, h.errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = handlerGrace
	return cmd.Run()
}
