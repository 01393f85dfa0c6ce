package security

import (
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
)

// A Caller is who asks, as its connection has proved it.
type Caller struct {
	Client string      // name in the client certificate; not empty: the rest but Role has no meaning
	UID    uint32      // of a local process
	Groups []uint32    // likewise
	Role   belfry.Role // that it has whatever the configuration says: [LocalRole]'s
	Fixed  bool        // it has this role only: a session of the web listener
}

// An Ask is one part of a request: each part of a compound one is judged by
// itself.
type Ask struct {
	Right  belfry.Right
	Class  string // of an event to observe or emit, or a pattern over classes; empty: no event is concerned
	Own    bool   // the event's subject is known to be the caller's own
	Remote bool   // it is observed on other nodes, where uids mean nothing
	Entry  bool   // whether any part of this right may be granted at all; the parts are asked for later
}

// Decide says whether the caller has the right, and as which role, the most
// powerful of those that it has. What is not granted is refused. It is pure and
// allocates nothing; BenchmarkDecide has its time, which grows with the caller's
// groups and what is granted to each of them.
func (p *Policy) Decide(c Caller, ask Ask) (role belfry.Role, ok bool) {
	has := setOf(c.Role)
	switch {
	case c.Fixed:
	case c.Client != "":
		has, ok = p.clients[c.Client].judge(has, ok, ask)
	default:
		has, ok = p.users[c.UID].judge(has, ok, ask)
		for _, gid := range c.Groups {
			has, ok = p.groups[gid].judge(has, ok, ask)
		}
	}
	for r := belfry.RoleReader; r <= belfry.RoleAdmin; r++ {
		if has&setOf(r) != 0 {
			role, ok = r, ok || permits(r, ask)
		}
	}
	return role, ok
}

// A roleSet has one bit for each role.
type roleSet uint8

func setOf(r belfry.Role) roleSet { return 1 << r &^ 1 }

// allowed is the table of security.md, right by right: who has it.
var allowed = [...]roleSet{
	belfry.RightObserve:         1<<belfry.RoleReader | 1<<belfry.RoleWitness | 1<<belfry.RoleOperator | 1<<belfry.RoleAdmin,
	belfry.RightOperate:         1<<belfry.RoleOperator | 1<<belfry.RoleAdmin,
	belfry.RightRegisterWitness: 1<<belfry.RoleWitness | 1<<belfry.RoleOperator | 1<<belfry.RoleAdmin,
	belfry.RightConfigure:       1<<belfry.RoleOperator | 1<<belfry.RoleAdmin,
	belfry.RightLicense:         1 << belfry.RoleAdmin,
	belfry.RightAdmit:           1 << belfry.RoleAdmin,
	belfry.RightOwn:             1 << belfry.RoleAdmin,
}

func allows(r belfry.Role, right belfry.Right) bool {
	return int(right) < len(allowed) && allowed[right]&setOf(r) != 0
}

// permits judges one role.
func permits(r belfry.Role, ask Ask) bool {
	if !allows(r, ask.Right) {
		return false
	}
	if ask.Right != belfry.RightObserve || r >= belfry.RoleOperator || ask.Entry {
		return true
	}
	noun, _, _ := strings.Cut(ask.Class, ".")
	if r == belfry.RoleWitness {
		return noun == "resource"
	}
	switch readable(noun) {
	case readAny:
		return true
	case readOwn:
		return ask.Own && !ask.Remote
	}
	return false
}

// A reading is which events of a class a reader may observe.
type reading uint8

const (
	readNone reading = iota
	readOwn          // those whose subject is its own
	readAny
)

// readable is the table of security.md by the first word of a class. A pattern
// over all classes needs the right to each of them, which a reader does not
// have.
func readable(noun string) reading {
	switch noun {
	case "": // no event is concerned
		return readAny
	case "node", "link", "contact", "cluster", "resource", "witness", "repository", "agent", "producer", "journal":
		return readAny
	case "filesystem", "pressure", "cpu", "memory", "paging", "sysctl", "adapter", "address", "disk", "shared-disk", "volume",
		"linked-cluster", "timer":
		return readAny // any local user can read them from the kernel
	case "config", "license":
		return readAny // that it changed; the difference is for operators
	case "process", "file", "dir", "unit", "socket":
		return readOwn
	}
	return readNone // user.NAME goes by grants, security is not for readers, and what is new has to be placed
}

// held is what the configuration gives to one subject.
type held struct {
	roles  roleSet
	allows []allow
}

// judge adds what h gives. h may be nil.
func (h *held) judge(has roleSet, ok bool, ask Ask) (roleSet, bool) {
	if h == nil {
		return has, ok
	}
	return has | h.roles, ok || slices.ContainsFunc(h.allows, func(a allow) bool { return a.covers(ask) })
}

// An allow is one rule of a grant.
type allow struct {
	right belfry.Right
	class string // or its beginning with the dot, if all classes with it are meant
	all   bool
	own   bool
}

func (a allow) covers(ask Ask) bool {
	switch {
	case a.right != ask.Right:
		return false
	case ask.Entry:
		return true
	case a.own && (!ask.Own || ask.Remote):
		return false
	case a.all:
		return strings.HasPrefix(ask.Class, a.class)
	}
	return a.class == ask.Class
}
