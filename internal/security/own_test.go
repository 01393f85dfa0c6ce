package security

import (
	"encoding/binary"
	"testing"
)

// aclOf is the attribute with these entries.
func aclOf(entries ...aclEntry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, uint16(e.bits))
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func TestOwnIsWhatBelongsToTheCallerOrWhatItCanRead(t *testing.T) {
	t.Parallel()
	dir := func(uid, gid, mode uint32) Object { return Object{Kind: KindDirectory, UID: uid, GID: gid, Mode: mode} }
	file := func(uid, gid, mode uint32) Object { return Object{UID: uid, GID: gid, Mode: mode} }
	link := func(uid uint32) Object { return Object{Kind: KindLink, UID: uid, Mode: 0o777} }
	withACL := func(o Object, entries ...aclEntry) Object { o.ACL = aclOf(entries...); return o }
	trail := func(objects ...Object) Trail { return Trail{Objects: objects} }
	missing := func(objects ...Object) Trail { return Trail{Objects: objects, Missing: true} }
	root := dir(0, 0, 0o755)
	tmp := dir(0, 0, 0o1777)
	caller := Caller{UID: 1000, Groups: []uint32{100, 1000}}
	base := func(owner, group, mask, others permission, named ...aclEntry) []aclEntry {
		return append(named, aclEntry{tagOwner, owner, 0}, aclEntry{tagOwnerGroup, group, 0}, aclEntry{tagMask, mask, 0}, aclEntry{tagOthers, others, 0})
	}
	for _, test := range []struct {
		name  string
		trail Trail
		want  bool
	}{
		{"its own file", trail(root, file(1000, 1000, 0o600)), true},
		{"its own file that it may not read", trail(root, file(1000, 1000, 0)), true},
		{"its own file where it can not get to", trail(dir(0, 0, 0o700), file(1000, 1000, 0o600)), true},
		{"all may read", trail(root, dir(0, 0, 0o711), file(0, 0, 0o604)), true},
		{"all but not through the directory", trail(root, dir(0, 0, 0o750), file(0, 0, 0o644)), false},
		{"all but not through one further up", trail(dir(0, 0, 0o700), root, file(0, 0, 0o644)), false},
		{"a directory that can be listed and not searched", trail(dir(0, 0, 0o744), file(0, 0, 0o644)), false},
		{"nobody else may read", trail(root, file(0, 0, 0o600)), false},
		{"nobody else may read but execute", trail(root, file(0, 0, 0o711)), false},
		{"its group may read", trail(root, file(0, 100, 0o640)), true},
		{"another group may read", trail(root, file(0, 101, 0o640)), false},
		{"all but its group", trail(root, file(0, 100, 0o604)), false},
		{"all but its group may search", trail(dir(0, 100, 0o705), file(0, 0, 0o644)), false},
		{"all but the owner may search", trail(dir(1000, 0, 0o077), file(0, 0, 0o644)), false},
		{"a directory that can be read", trail(root, dir(0, 0, 0o744)), true},
		{"a directory that can only be searched", trail(root, dir(0, 0, 0o711)), false},
		{"through a link of somebody", trail(root, link(1001), root, file(0, 0, 0o644)), true},
		{"through a link to where it can not get", trail(root, link(1000), root, dir(0, 0, 0o700), file(0, 0, 0o644)), false},
		{"through its link in a sticky directory", trail(root, tmp, link(1000), root, file(0, 0, 0o644)), true},
		{"through root's link in a sticky directory", trail(root, tmp, link(0), root, file(0, 0, 0o644)), true},
		{"through somebody's link in a sticky directory", trail(root, tmp, link(1001), root, file(0, 0, 0o644)), false},
		{"a link that was not followed", trail(root, link(1000)), false},
		{"a file used as a directory", trail(root, file(0, 0, 0o755), file(0, 0, 0o644)), false},
		{"nothing", Trail{}, false},
		{"not there, where it could see it come", missing(root, dir(0, 0, 0o755)), true},
		{"not there, where it could only ask for it", missing(root, dir(0, 0, 0o711)), false},
		{"not there, in a directory of its own that it can not read", missing(root, dir(1000, 0, 0o300)), false},
		{"not there, where it can not get to", missing(dir(0, 0, 0o700), dir(0, 0, 0o755)), false},
		{"not there, below a file", missing(root, file(1000, 0, 0o644)), false},

		{"by ACL: its uid", trail(root, withACL(file(0, 0, 0o640), base(6, 0, 4, 0, aclEntry{tagUser, 4, 1000})...)), true},
		{"by ACL: its uid, masked", trail(root, withACL(file(0, 0, 0o600), base(6, 0, 0, 0, aclEntry{tagUser, 4, 1000})...)), false},
		{"by ACL: another uid", trail(root, withACL(file(0, 0, 0o640), base(6, 0, 4, 0, aclEntry{tagUser, 4, 1001})...)), false},
		{"by ACL: all but its uid", trail(root, withACL(file(0, 0, 0o644), base(6, 4, 4, 4, aclEntry{tagUser, 0, 1000})...)), false},
		{"by ACL: its uid is denied what its group has", trail(root, withACL(file(0, 100, 0o640), base(6, 4, 4, 0, aclEntry{tagUser, 0, 1000})...)), false},
		{"by ACL: a named group", trail(root, withACL(file(0, 0, 0o640), base(6, 0, 4, 0, aclEntry{tagGroup, 4, 100})...)), true},
		{"by ACL: one of two groups", trail(root, withACL(file(0, 100, 0o640), base(6, 0, 4, 0, aclEntry{tagGroup, 4, 1000})...)), true},
		{"by ACL: a named group, masked", trail(root, withACL(file(0, 0, 0o604), base(6, 4, 0, 4, aclEntry{tagGroup, 4, 100})...)), false},
		{"by ACL: all but a named group", trail(root, withACL(file(0, 0, 0o644), base(6, 4, 4, 4, aclEntry{tagGroup, 0, 100})...)), false},
		{"by ACL: the mode's group is the mask", trail(root, withACL(file(0, 100, 0o660), base(6, 0, 6, 0)...)), false},
		{"by ACL: the owner's group", trail(root, withACL(file(0, 100, 0o660), base(6, 4, 6, 0)...)), true},
		{"by ACL: others are not masked", trail(root, withACL(file(0, 0, 0o604), base(6, 0, 0, 4)...)), true},
		{"by ACL: others without a mask", trail(root, withACL(file(0, 0, 0o604), aclEntry{tagOwner, 6, 0}, aclEntry{tagOwnerGroup, 0, 0}, aclEntry{tagOthers, 4, 0})), true},
		{"by ACL of a directory", trail(withACL(dir(0, 0, 0o710), base(7, 0, 1, 0, aclEntry{tagUser, 1, 1000})...), file(0, 0, 0o644)), true},
		{"by ACL of a directory that it owns", trail(withACL(dir(1000, 0, 0o071), base(0, 7, 7, 1, aclEntry{tagUser, 7, 1000})...), file(0, 0, 0o644)), false},
		{"an ACL without others", trail(root, withACL(file(0, 0, 0o644), aclEntry{tagOwner, 6, 0}, aclEntry{tagOwnerGroup, 4, 0})), false},
		{"an ACL with an unknown tag", trail(root, withACL(file(0, 0, 0o644), base(6, 4, 4, 4, aclEntry{0x40, 4, 0})...)), false},
		{"an ACL cut short", trail(root, Object{Mode: 0o644, ACL: []byte{2, 0, 0, 0, 1}}), false},
		{"an empty ACL", trail(root, Object{Mode: 0o644, ACL: []byte{}}), false},
		{"an ACL of another version", trail(root, Object{Mode: 0o644, ACL: append([]byte{3}, aclOf(base(6, 4, 4, 4)...)[1:]...)}), false},
	} {
		if got := test.trail.Own(caller); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
	readable := trail(root, file(1000, 0, 0o644))
	for name, c := range map[string]Caller{
		"a client of another machine": {Client: "web", UID: 1000},
		"a session of the web":        {Fixed: true, UID: 1000},
	} {
		if readable.Own(c) || OwnProcess(c, [4]uint32{1000, 1000, 1000, 1000}) {
			t.Errorf("%s has something of its own", name)
		}
	}
}

func TestAProcessIsItsOwnWithAllItsUIDs(t *testing.T) {
	t.Parallel()
	c := Caller{UID: 1000}
	if !OwnProcess(c, [4]uint32{1000, 1000, 1000, 1000}) {
		t.Error("its process is not its own")
	}
	for i := range 4 {
		uids := [4]uint32{1000, 1000, 1000, 1000}
		uids[i] = 0
		if OwnProcess(c, uids) {
			t.Errorf("a process with uids %v is its own", uids)
		}
	}
}

func FuzzACL(f *testing.F) {
	f.Add(aclOf(aclEntry{tagOwner, 6, 0}, aclEntry{tagUser, 4, 1000}, aclEntry{tagOwnerGroup, 4, 0}, aclEntry{tagMask, 4, 0}, aclEntry{tagOthers, 0, 0}))
	f.Add([]byte{2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, ok := parseACL(b); ok && string(aclOf(list...)) != string(b) {
			t.Errorf("%x is read as %v", b, list)
		}
	})
}
