package file

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// The masks of what the targets of a class name.
var masks = map[belfry.Class]uint32{FileClass: fileMask, AttributeClass: attributeMask, DirClass: nameMask}

// Attributes are what file.attribute tells changes of. Times, link count and
// other extended attributes than these are none of them.
type attributes struct {
	mode     uint16 // the twelve bits of inode(7): permissions, sticky, set-ids
	uid, gid uint32
	// The lists as the kernel gives them (linux/posix_acl_xattr.h); empty: none
	// beyond what the mode says.
	access, inherited string
}

// lookClosely is look with the lists. It holds what it looks at, so that they
// are all of one object.
func lookClosely(path string) (meta, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return meta{}, explain(path, err)
	}
	defer unix.Close(fd)
	m, err := lookAt(fd, "", path, AttributeClass)
	if err != nil {
		return meta{}, err
	}
	a := &m.attributes
	if a.access, err = readACL(fd, "system.posix_acl_access"); err == nil && m.dir {
		a.inherited, err = readACL(fd, "system.posix_acl_default")
	}
	if err != nil {
		return meta{}, explain(path, err)
	}
	return m, nil
}

// readACL reads a list of what an O_PATH descriptor holds: by its name in
// /proc, because fgetxattr(2) refuses such descriptors.
func readACL(fd int, name string) (string, error) {
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	buffer := make([]byte, 512) // 63 entries
	for {
		n, err := unix.Getxattr(path, name, buffer)
		switch {
		case err == nil:
			return string(buffer[:n]), nil
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP): // none, or the file system has none
			return "", nil
		case errors.Is(err, unix.ERANGE) && len(buffer) < 64<<10: // XATTR_SIZE_MAX
			buffer = make([]byte, 64<<10)
		default:
			return "", err
		}
	}
}

// altered posts in what the attributes differ from those known before.
func (s *session) altered(now time.Time, t *target) error {
	m, err := look(t.path, t.class)
	if err != nil || m.identity != t.held.identity {
		return nil // its name is gone, of which the directory tells more
	}
	before := t.held.attributes
	t.held.attributes = m.attributes
	return s.differ(now, t, before)
}

// succeed begins the successor of what was replaced: in what it differs, the
// attributes of the path have changed.
func (s *session) succeed(now time.Time, t *target, before attributes) error {
	if err := s.begin(now, t, true); err != nil {
		return err
	}
	return s.differ(now, t, before)
}

// differ posts one occurrence for each kind of difference. A system call may
// make two of them: chown takes the set-ids away, chmod changes the mask of an
// access list.
func (s *session) differ(now time.Time, t *target, before attributes) error {
	a := t.held.attributes
	for _, change := range []struct {
		what what
		is   bool
	}{
		{aclChanged, a.access != before.access || a.inherited != before.inherited},
		{ownerChanged, a.uid != before.uid || a.gid != before.gid},
		{modeChanged, a.mode != before.mode},
	} {
		if !change.is {
			continue
		}
		data := attributeData(changes[change.what].name, limit(t.path, 3<<10), a, before)
		if err := s.occurred(t, t.occurrence(now, change.what), data); err != nil {
			return err
		}
	}
	return nil
}

func attributeData(what, path string, now, before attributes) *belfryv1.FileAttribute {
	return &belfryv1.FileAttribute{
		What: what, Path: path,
		Mode: fmt.Sprintf("%04o", now.mode), Uid: now.uid, Gid: now.gid, Acl: now.access != "" || now.inherited != "",
		OldMode: fmt.Sprintf("%04o", before.mode), OldUid: before.uid, OldGid: before.gid,
	}
}
