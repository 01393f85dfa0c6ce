package agent

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
)

// maxLinks is how many symbolic links the kernel follows in one path
// (path_resolution(7)).
const maxLinks = 40

// A trailWalk goes along a path one component at a time, each opened below the
// descriptor of the one before and never followed by the kernel. What is judged
// is therefore what was opened, whatever is renamed or linked anew meanwhile.
type trailWalk struct {
	trail security.Trail
	fd    int      // of where it is, O_PATH
	todo  []string // components, the next one last
	links int
}

// walkTrail goes along an absolute path, links at its end included. The
// descriptor is of the last object, for the caller to close. The error, which
// wraps ErrUnknown, says that something on the way can not be told.
func walkTrail(path string) (security.Trail, int, error) {
	w := &trailWalk{fd: -1}
	err := w.root()
	w.push(path)
	for err == nil && len(w.todo) > 0 && !w.trail.Missing {
		err = w.step()
	}
	if err != nil {
		if w.fd >= 0 {
			_ = unix.Close(w.fd)
		}
		return security.Trail{}, -1, fmt.Errorf("%w: %s: %w", belfry.ErrUnknown, path, err)
	}
	return w.trail, w.fd, nil
}

// push puts the components of a path before those that are still to do.
func (w *trailWalk) push(path string) {
	parts := strings.Split(path, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if parts[i] != "" {
			w.todo = append(w.todo, parts[i])
		}
	}
}

// root goes to the root.
func (w *trailWalk) root() error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return w.enter(fd)
}

// enter makes fd the place where the walk is.
func (w *trailWalk) enter(fd int) error {
	o, err := objectOf(fd)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
	}
	w.fd = fd
	w.trail.Objects = append(w.trail.Objects, o)
	return nil
}

// step takes the next component.
func (w *trailWalk) step() error {
	name := w.todo[len(w.todo)-1]
	w.todo = w.todo[:len(w.todo)-1]
	fd, err := unix.Openat(w.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		w.trail.Missing = true
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		defer unix.Close(fd)
		return w.follow(fd, &st)
	}
	return w.enter(fd)
}

// follow takes the target of a link in its place. Those of procfs do not lead
// where their text says.
func (w *trailWalk) follow(fd int, st *unix.Stat_t) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if w.links++; w.links > maxLinks || fs.Type == unix.PROC_SUPER_MAGIC {
		return unix.ELOOP
	}
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", text)
	if err != nil {
		return err
	}
	target := string(text[:n])
	w.trail.Objects = append(w.trail.Objects, security.Object{Kind: security.KindLink, UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777})
	w.push(target)
	if strings.HasPrefix(target, "/") {
		return w.root()
	}
	return nil
}

// objectOf is what the kernel says of who may use the object of a descriptor.
func objectOf(fd int) (security.Object, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return security.Object{}, err
	}
	o := security.Object{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		o.Kind = security.KindDirectory
	}
	var err error
	o.ACL, err = aclOf(fd)
	return o, err
}

// aclOf goes by way of /proc: fgetxattr(2) takes no descriptor of O_PATH.
func aclOf(fd int) ([]byte, error) {
	const attribute = "system.posix_acl_access"
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	size, err := unix.Getxattr(path, attribute, nil)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	acl := make([]byte, size)
	n, err := unix.Getxattr(path, attribute, acl)
	if err != nil {
		return nil, err
	}
	return acl[:n], nil
}
