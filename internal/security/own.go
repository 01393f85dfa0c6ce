package security

import (
	"encoding/binary"
	"slices"
)

// An ObjectKind is what stands at one place of a path.
type ObjectKind uint8

// The kinds of objects.
const (
	KindOther ObjectKind = iota // a file, or what else can be read
	KindDirectory
	KindLink // symbolic
)

// An Object is what decides who may use one part of a path.
type Object struct {
	Kind     ObjectKind
	UID, GID uint32
	Mode     uint32 // the twelve bits of inode(7): permissions, sticky, set-ids
	ACL      []byte // the attribute system.posix_acl_access as the kernel gives it; nil: there is none
}

// A Trail is what is met on the way to a file, in order: each directory that
// is searched, from the root on and as often as it is, each symbolic link that
// is followed, and last the file.
type Trail struct {
	Objects []Object
	Missing bool // the file or a directory above it is not there; the last object is the directory that lacks it
}

// Own tells whether the file is the caller's own, as far as who may observe it
// goes: it belongs to the caller's uid, or the caller can read it. Of a file
// that is not there the directory in which it would come to be is asked. What
// can not be told is not its own. It is pure.
func (t Trail) Own(c Caller) bool {
	if !c.local() || len(t.Objects) == 0 {
		return false
	}
	last := t.Objects[len(t.Objects)-1]
	if last.Kind == KindLink {
		return false
	}
	if t.Missing {
		return last.Kind == KindDirectory && t.reaches(c) && last.grants(c, mayRead|maySearch)
	}
	return last.UID == c.UID || t.reaches(c) && last.grants(c, mayRead)
}

// reaches tells whether the caller gets to the last object.
func (t Trail) reaches(c Caller) bool {
	var dir Object
	for _, o := range t.Objects[:len(t.Objects)-1] {
		switch o.Kind {
		case KindDirectory:
			if dir = o; !o.grants(c, maySearch) {
				return false
			}
		case KindLink:
			if !follows(c, dir, o) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// follows is the rule of fs.protected_symlinks (proc_sys_fs(5)), as if it were
// always on: in a sticky directory that all may write to, a link is only for
// its owner, unless the directory's owner made it.
func follows(c Caller, dir, link Object) bool {
	const sticky, othersWrite = 0o1000, 0o002
	return dir.Mode&sticky == 0 || dir.Mode&othersWrite == 0 || link.UID == c.UID || link.UID == dir.UID
}

// OwnProcess tells whether a process is the caller's: all its user ids are the
// caller's, the real, effective, saved and that of the file system, so that a
// program which runs as somebody else is not. It is pure.
func OwnProcess(c Caller, uids [4]uint32) bool {
	return c.local() && uids == [4]uint32{c.UID, c.UID, c.UID, c.UID}
}

// local: of the others a uid says nothing.
func (c Caller) local() bool {
	return c.Client == "" && !c.Fixed
}

// A permission is a set of the three bits of a mode or of an entry of an ACL.
type permission uint16

const (
	maySearch permission = 1
	mayRead   permission = 4
)

// grants is the access check of acl(5), whose order counts: only the first kind
// of entry that fits is asked. Capabilities are left out of account.
func (o Object) grants(c Caller, want permission) bool {
	if o.ACL != nil {
		list, ok := parseACL(o.ACL)
		return ok && list.grants(o, c, want)
	}
	bits := permission(o.Mode)
	switch {
	case o.UID == c.UID:
		bits >>= 6
	case slices.Contains(c.Groups, o.GID):
		bits >>= 3
	}
	return bits&want == want
}

// Tags of an ACL's entries (linux/posix_acl.h).
const (
	tagOwner      = 0x01
	tagUser       = 0x02
	tagOwnerGroup = 0x04
	tagGroup      = 0x08
	tagMask       = 0x10
	tagOthers     = 0x20
)

type (
	aclEntry struct {
		tag  uint16
		bits permission
		id   uint32 // of tagUser and tagGroup
	}
	acl []aclEntry
)

// parseACL reads the form of the extended attribute (linux/posix_acl_xattr.h):
// version 2 in four bytes, then eight bytes an entry, little-endian. One with
// an unknown tag, or without the three entries that each has, is refused.
func parseACL(b []byte) (acl, bool) {
	const head, size, version = 4, 8, 2
	if len(b) < head || (len(b)-head)%size != 0 || binary.LittleEndian.Uint32(b) != version {
		return nil, false
	}
	var list acl
	for b = b[head:]; len(b) > 0; b = b[size:] {
		e := aclEntry{binary.LittleEndian.Uint16(b), permission(binary.LittleEndian.Uint16(b[2:])), binary.LittleEndian.Uint32(b[4:])}
		switch e.tag {
		case tagOwner, tagUser, tagOwnerGroup, tagGroup, tagMask, tagOthers:
		default:
			return nil, false
		}
		list = append(list, e)
	}
	for _, tag := range []uint16{tagOwner, tagOwnerGroup, tagOthers} {
		if _, ok := list.find(tag, 0); !ok {
			return nil, false
		}
	}
	return list, true
}

// find is the first entry of a tag. Only named entries are told apart by id.
func (l acl) find(tag uint16, id uint32) (permission, bool) {
	for _, e := range l {
		if e.tag == tag && (e.id == id || tag != tagUser && tag != tagGroup) {
			return e.bits, true
		}
	}
	return 0, false
}

func (l acl) grants(o Object, c Caller, want permission) bool {
	if o.UID == c.UID {
		bits, _ := l.find(tagOwner, 0)
		return bits&want == want
	}
	mask, masked := l.find(tagMask, 0)
	if !masked {
		mask = ^permission(0)
	}
	if bits, ok := l.find(tagUser, c.UID); ok {
		return bits&mask&want == want
	}
	member := false
	for _, e := range l {
		if e.tag == tagOwnerGroup && slices.Contains(c.Groups, o.GID) || e.tag == tagGroup && slices.Contains(c.Groups, e.id) {
			if member = true; e.bits&mask&want == want {
				return true
			}
		}
	}
	others, _ := l.find(tagOthers, 0)
	return !member && others&want == want
}
