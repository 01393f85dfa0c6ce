package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/sink"
)

// runVariable names a run in the environment of its command and of all that it
// starts, which is how they are found when the agent that began it is dead.
const runVariable = "BELFRY_RUN"

// leftLook is how often a process that does not end is looked at, while the next
// attempt waits.
const leftLook = time.Second

// runOf is the same for no two runs of one node.
func (s Sink) runOf(r sink.Begun) string {
	return fmt.Sprintf("%s/%s/%s/%d/%d/%d/%d", s.Node, r.Handler, r.Key.Node, r.Key.Incarnation, r.Key.Entry, r.Number, r.Attempt)
}

// EndLeft ends what an agent that was killed left of a run: SIGTERM, 5 s later
// SIGKILL, to each process. It returns when nothing of it is there any more, or with ctx. What has
// made a session of its own is left alone, as at the end of a run.
func (s Sink) EndLeft(ctx context.Context, r sink.Begun) error {
	name := []byte(runVariable + "=" + s.runOf(r))
	for {
		left, err := runsOf(name)
		if err != nil || len(left) == 0 {
			return err
		}
		err = endAll(ctx, left)
		for _, pidfd := range left {
			_ = unix.Close(pidfd)
		}
		if err != nil {
			return err
		}
	}
}

// runsOf opens the processes of a run. Each is looked at after it is held by its
// descriptor, so that another one of its number is never taken for it.
func runsOf(name []byte) (left []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, stat := range stats {
		dir := filepath.Dir(stat)
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || !names(dir, name) {
			continue
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if !names(dir, name) || ownSession(stat) {
			_ = unix.Close(pidfd)
			continue
		}
		left = append(left, pidfd)
	}
	return left, nil
}

// names tells whether a process has the name of the run in its environment. That
// of another user's process can not be read: it is no command of this agent.
func names(dir string, name []byte) bool {
	environ, err := os.ReadFile(filepath.Join(dir, "environ"))
	if err != nil {
		return false
	}
	for one := range bytes.SplitSeq(environ, []byte{0}) {
		if bytes.Equal(one, name) {
			return true
		}
	}
	return false
}

// ownSession tells whether a process is in a session that its group made, as a
// daemon is. A command is in the session of its agent.
func ownSession(stat string) bool {
	text, err := os.ReadFile(stat)
	if err != nil {
		return false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // state, parent, group, session
	return len(fields) > 3 && bytes.Equal(fields[2], fields[3])
}

// endAll waits until all have ended.
func endAll(ctx context.Context, left []int) error {
	for _, pidfd := range left {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0)
	}
	deadline := time.Now().Add(grace)
	for _, pidfd := range left {
		for !ended(pidfd, leftLook) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !time.Now().Before(deadline) {
				_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
			}
		}
	}
	return nil
}

// ended waits that long for a process.
func ended(pidfd int, wait time.Duration) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(wait.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n > 0 || err != nil
		}
	}
}
