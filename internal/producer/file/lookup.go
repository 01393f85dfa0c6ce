package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// An identity tells whether a path still names the same object. Inode numbers
// are used again soon; the time of birth tells the objects apart, where the
// file system has one.
type identity struct {
	major, minor uint32
	ino          uint64
	birth        unix.StatxTimestamp // zero: the file system keeps none
}

// instance is dev:ino@btime.
func (i identity) instance() string {
	return fmt.Sprintf("%d.%d:%d@%d.%09d", i.major, i.minor, i.ino, i.birth.Sec, i.birth.Nsec)
}

func identityOf(st *unix.Statx_t) identity {
	i := identity{major: st.Dev_major, minor: st.Dev_minor, ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		i.birth = st.Btime
	}
	return i
}

// InstanceOf is the identifier of the file or directory behind a descriptor,
// which may be one of O_PATH, as this producer would associate it.
func InstanceOf(fd int) (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return "", fmt.Errorf("%w: statx: %w", belfry.ErrUnknown, err)
	}
	return identityOf(&st).instance(), nil
}

// A meta is what statx(2) says of a path.
type meta struct {
	identity
	dir        bool
	size       int64
	changed    unix.StatxTimestamp // status change: every write moves it
	attributes attributes          // its lists are empty where the class does not need them
}

// look finds out what is at path, without following a symbolic link there. It
// refuses what a watch of this class can not be of.
func look(path string, class belfry.Class) (meta, error) {
	if class == AttributeClass {
		return lookClosely(path)
	}
	return lookAt(unix.AT_FDCWD, path, path, class)
}

// lookAt is look of what name means at a directory's descriptor; empty: of the
// descriptor itself.
func lookAt(at int, name, path string, class belfry.Class) (meta, error) {
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(at, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return meta{}, explain(path, err)
	}
	m := meta{
		identity: identityOf(&st),
		dir:      st.Mode&unix.S_IFMT == unix.S_IFDIR,
		size:     int64(min(st.Size, 1<<63-1)),
		changed:  st.Ctime,
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case kind == unix.S_IFLNK:
		to, _ := os.Readlink(path)
		return meta{}, fmt.Errorf("%w: %s is a symbolic link to %s; name that", belfry.ErrUnsupported, path, to)
	case m.dir && class == FileClass:
		return meta{}, fmt.Errorf("%w: %s is a directory; write %s:%s, or %s:%s/*", belfry.ErrUsage, path, DirClass, path, FileClass, strings.TrimSuffix(path, "/"))
	case !m.dir && class == DirClass:
		return meta{}, fmt.Errorf("%w: %s is no directory; write %s:%s", belfry.ErrUsage, path, FileClass, path)
	case !m.dir && kind != unix.S_IFREG:
		return meta{}, fmt.Errorf("%w: %s is a device, socket or pipe; only files and directories can be watched", belfry.ErrUnsupported, path)
	}
	m.attributes = attributes{mode: st.Mode &^ unix.S_IFMT, uid: st.Uid, gid: st.Gid}
	return m, nil
}

// unwatched are file systems whose changes inotify does not see: they are made
// up when they are read, or made on other machines (statfs(2) for the numbers).
var unwatched = map[int64]string{
	unix.PROC_SUPER_MAGIC:  "procfs",
	unix.SYSFS_MAGIC:       "sysfs",
	unix.DEBUGFS_MAGIC:     "debugfs",
	unix.TRACEFS_MAGIC:     "tracefs",
	unix.SECURITYFS_MAGIC:  "securityfs",
	unix.NFS_SUPER_MAGIC:   "nfs",
	unix.SMB_SUPER_MAGIC:   "smb",
	unix.SMB2_SUPER_MAGIC:  "smb",
	unix.CIFS_SUPER_MAGIC:  "cifs",
	unix.CEPH_SUPER_MAGIC:  "ceph",
	unix.AFS_SUPER_MAGIC:   "afs",
	unix.CODA_SUPER_MAGIC:  "coda",
	unix.V9FS_MAGIC:        "9p",
	unix.OCFS2_SUPER_MAGIC: "ocfs2",
}

// supported refuses paths on file systems that tell nothing.
func supported(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return explain(path, err)
	}
	if name, ok := unwatched[int64(st.Type)&0xffffffff]; ok {
		return fmt.Errorf("%w: %s is on %s, which tells nothing of its changes; watch a file on a local disk", belfry.ErrUnsupported, path, name)
	}
	return nil
}

// explain names the sentinel for an error of the kernel's.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: %s does not exist; create it, or wait for it (--wait)", belfry.ErrNoEvent, path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the agent may not read %s; let it, or run it as another user", belfry.ErrPermission, path)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: %s: no watch is left; raise fs.inotify.max_user_watches", belfry.ErrLimit, path)
	case errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: %s: %w; name an existing path", belfry.ErrUsage, path, err)
	}
	return fmt.Errorf("%w: %s: %w", belfry.ErrUnknown, path, err)
}
