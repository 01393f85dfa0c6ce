package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
)

// lockState makes sure that one agent uses a state directory at a time. The
// lock goes with the process, so nothing stale can be left behind.
func lockState(state string) (*os.File, error) {
	path := filepath.Join(state, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	// An open file description lock, because a POSIX one would be shared by
	// two agents in one process (fcntl(2)).
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, &belfry.Error{Op: "agent", Subject: state, Err: fmt.Errorf("%w: another agent uses this state directory; stop it or name another with the setting state", belfry.ErrExist)}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// nextIncarnation counts this start and has it on disk before anything is
// sent under it (cluster.md 3).
func nextIncarnation(state string) (belfry.Incarnation, error) {
	path := incarnationFile(state)
	var last uint64
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist): // the first start
	case err != nil:
		return 0, fmt.Errorf("incarnation: %w", err)
	default:
		if last, err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 32); err != nil {
			return 0, fmt.Errorf("incarnation: %s holds %q, not a number; write one above every incarnation that belfry node list shows of this node", path, strings.TrimSpace(string(data)))
		}
	}
	next := belfry.Incarnation(last + 1)
	return next, keepIncarnation(state, next)
}

// keepIncarnation has the newest number that was used on disk: the next start
// takes the one after it.
func keepIncarnation(state string, newest belfry.Incarnation) error {
	return security.ReplaceFile(incarnationFile(state), []byte(strconv.FormatUint(uint64(newest), 10)+"\n"))
}

func incarnationFile(state string) string { return filepath.Join(state, "incarnation") }
