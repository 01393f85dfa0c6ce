package security

import (
	"os/user"
	"slices"
	"strconv"
)

// A Role is a set of rights (security.md, Local rights).
type Role uint8

// The roles.
const (
	RoleNone     Role = iota // no right at all
	RoleReader               // sees
	RoleWitness              // registers as a native witness
	RoleOperator             // sees, and runs the cluster
	RoleAdmin                // everything
)

var roleNames = []string{"none", "reader", "witness", "operator", "admin"}

// String is the word that listings and the audit use.
func (r Role) String() string { return word(roleNames, int(r)) }

// A Right is what an operation needs. Each operation of the API needs one.
type Right uint8

// The rights.
const (
	RightObserve         Right = iota // status, lists, watch
	RightOperate                      // emit, stop and start nodes, handlers
	RightRegisterWitness              // native witness registration
	RightConfigure                    // the configuration but for what follows
	RightLicense                      // licenses
	RightAdmit                        // tokens, members, CA
	RightOwn                          // roles, repository, debug bundle
)

var rightNames = []string{"observe", "operate", "register-witness", "configure", "license", "admit", "own"}

// String is the word that refusals and the audit use.
func (r Right) String() string { return word(rightNames, int(r)) }

func word(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown-" + strconv.Itoa(i)
}

// allows is the table of security.md: right by right, who has it. What a
// witness may observe is narrower (resources only); the API sees to that.
var allows = [...][]Role{
	RightObserve:         {RoleReader, RoleWitness, RoleOperator, RoleAdmin},
	RightOperate:         {RoleOperator, RoleAdmin},
	RightRegisterWitness: {RoleWitness, RoleOperator, RoleAdmin},
	RightConfigure:       {RoleOperator, RoleAdmin},
	RightLicense:         {RoleAdmin},
	RightAdmit:           {RoleAdmin},
	RightOwn:             {RoleAdmin},
}

// Allows tells whether the role has the right. There are no denials: what is
// not granted is refused.
func (r Role) Allows(right Right) bool {
	return int(right) < len(allows) && slices.Contains(allows[right], r)
}

// Names of the local groups that have rights.
const (
	OperatorGroup = "belfry-operator"
	ReaderGroup   = "belfry"
)

// Groups are the local groups by number. Zero: there is no such group; group 0
// gives no role.
type Groups struct{ Operator, Reader uint32 }

// LookupGroups finds the groups of this machine. A group that does not exist
// grants nothing.
func LookupGroups() Groups {
	return Groups{Operator: lookupGroup(OperatorGroup), Reader: lookupGroup(ReaderGroup)}
}

func lookupGroup(name string) uint32 {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(gid)
}

// LocalRole is the role of a user of the local socket, where the configuration
// says nothing else: uid 0 and the agent's own uid are admin, members of
// belfry-operator operators, members of belfry readers, all others nothing.
// The most powerful match counts.
func LocalRole(uid uint32, gids []uint32, agentUID uint32, groups Groups) Role {
	has := func(gid uint32) bool { return gid != 0 && slices.Contains(gids, gid) }
	switch {
	case uid == 0 || uid == agentUID:
		return RoleAdmin
	case has(groups.Operator):
		return RoleOperator
	case has(groups.Reader):
		return RoleReader
	}
	return RoleNone
}
