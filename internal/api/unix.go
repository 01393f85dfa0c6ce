package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// maxSocketPath is the room in sockaddr_un, less the closing zero (unix(7)).
const maxSocketPath = 107

// listenUnix makes the socket file, 0660 and of the group. A file that nobody
// answers on is the rest of an agent that died, and is replaced; one that
// answers is another agent's. Nothing but a socket is ever removed.
func listenUnix(path, group string) (net.Listener, error) {
	const op = "listen"
	if len(path) > maxSocketPath {
		err := fmt.Errorf("%w: the path of a unix socket has at most %d bytes, this one has %d; choose a shorter one", belfry.ErrUsage, maxSocketPath, len(path))
		return nil, &belfry.Error{Op: op, Subject: path, Err: err}
	}
	gid, err := groupID(group)
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: path, Err: err}
	}
	if err := clearStale(path); err != nil {
		return nil, &belfry.Error{Op: op, Subject: path, Err: err}
	}
	// Until its group and mode are right nobody else may connect. The mask is
	// the process's, so the file is made under a name that only this process
	// knows, prepared, and renamed.
	making := path + ".new"
	if len(making) > maxSocketPath {
		making = path[:len(path)-1] + "~"
	}
	_ = os.Remove(making)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: making, Net: "unix"})
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: path, Err: explainListen(err)}
	}
	l.SetUnlinkOnClose(false)
	if gid >= 0 {
		err = os.Chown(making, -1, gid)
	}
	err = errors.Join(err, os.Chmod(making, 0o660))
	if err == nil {
		err = os.Rename(making, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(making)
		return nil, &belfry.Error{Op: op, Subject: path, Err: err}
	}
	return &unixListener{UnixListener: l, path: path}, nil
}

// unixListener removes its file when it is closed, unless somebody has put
// another one in its place.
type unixListener struct {
	*net.UnixListener
	path string
}

func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	if err == nil && !answers(l.path) {
		_ = os.Remove(l.path)
	}
	return err
}

func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%w: a file that is not a socket is in its place; remove it or choose another path", belfry.ErrExist)
	case answers(path):
		return fmt.Errorf("%w: another agent runs here; stop it or choose another path", belfry.ErrExist)
	}
	return os.Remove(path)
}

// answers tells whether somebody listens. A connection that is refused is the
// only sure sign that nobody does.
func answers(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return true
	}
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// groupID is -1 for no group.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("%w: no group %q on this machine; create it or set socket.group", belfry.ErrNotFound, group)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", group, err)
	}
	return gid, nil
}

func explainListen(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: its folder does not exist; create it", belfry.ErrNotFound)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: this user may not create files in its folder", belfry.ErrPermission)
	}
	return err
}
