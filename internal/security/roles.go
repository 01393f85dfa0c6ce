package security

import (
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/belfry-ha/belfry"
)

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

// DefaultRole is the role of a subject of the section roles on this machine,
// whatever that says: a user's by its number, a group's by its name. A client has
// none: its token's can be replaced.
func DefaultRole(subject string, agentUID uint32) belfry.Role {
	switch kind, name, _ := strings.Cut(subject, ":"); {
	case kind == "group" && name == OperatorGroup:
		return belfry.RoleOperator
	case kind == "group" && name == ReaderGroup:
		return belfry.RoleReader
	case kind == "uid":
		if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
			return LocalRole(uint32(uid), nil, agentUID, Groups{})
		}
	}
	return belfry.RoleNone
}

// LocalRole is the role of a user of the local socket, where the configuration
// says nothing else: uid 0 and the agent's own uid are admin, members of
// belfry-operator operators, members of belfry readers, all others nothing.
// The most powerful match counts.
func LocalRole(uid uint32, gids []uint32, agentUID uint32, groups Groups) belfry.Role {
	has := func(gid uint32) bool { return gid != 0 && slices.Contains(gids, gid) }
	switch {
	case uid == 0 || uid == agentUID:
		return belfry.RoleAdmin
	case has(groups.Operator):
		return belfry.RoleOperator
	case has(groups.Reader):
		return belfry.RoleReader
	}
	return belfry.RoleNone
}
