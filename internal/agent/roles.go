package agent

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/security"
)

// decide judges one part of a request by the configuration that is in force
// now. The name of a remote client gives nothing to a key that is not listed
// under it any more.
func (a *Agent) decide(s api.Subject, ask api.Ask) (belfry.Role, bool) {
	if s.Client != "" && !s.Web && !a.members.Table().lists(s.Client, s.Key) {
		return belfry.RoleNone, false
	}
	return a.policy.Load().Decide(callerOf(s), security.Ask(ask))
}

func callerOf(s api.Subject) security.Caller {
	return security.Caller{Client: s.Client, UID: s.UID, Groups: s.Groups, Role: s.Role, Fixed: s.Web}
}

// DefaultRole is what a subject is on this node, whatever the table says.
func (a *Agent) DefaultRole(subject string) belfry.Role {
	return security.DefaultRole(subject, uint32(os.Geteuid()))
}

// NothingHere is why a group gets nothing on this node. It is no error: the
// other nodes look its name up themselves, and this one does when roles change.
func (a *Agent) NothingHere(subject string) string {
	return nothingHere(subject, a.id.node.Name, localGroup)
}

func nothingHere(subject, node string, group func(string) (uint32, bool)) string {
	name, isGroup := strings.CutPrefix(subject, "group:")
	if !isGroup {
		return ""
	}
	switch gid, known := group(name); {
	case !known:
		return fmt.Sprintf("%s has no group %s", node, name)
	case gid == 0:
		return fmt.Sprintf("group %s has number 0 on %s, which never gives anything", name, node)
	}
	return ""
}

// followRoles brings the roles of a table into force. Groups are looked up
// now: one that is made later counts from the next generation on.
func (a *Agent) followRoles(table *Table) {
	policy, err := policyOf(table)
	if err != nil { // it was validated before it was kept
		a.log.Error("some roles not taken", "generation", table.Generation, "err", err)
	}
	a.policy.Store(policy)
}

// sameRoles tells whether two tables give everybody the same.
func sameRoles(a, b *Table) bool {
	same := slices.EqualFunc(a.Clients, b.Clients, func(x, y ClientRole) bool {
		return x.Name == y.Name && x.Role == y.Role && slices.EqualFunc(x.Keys, y.Keys, func(k, l ClientKey) bool { return k.Key == l.Key })
	})
	return same && slices.EqualFunc(a.Roles, b.Roles, sameGrant)
}

// policyOf is the policy of a table on this machine.
func policyOf(t *Table) (*security.Policy, error) {
	clients := make(map[string]belfry.Role, len(t.Clients))
	for _, c := range t.Clients {
		role, err := belfry.ParseRole(c.Role)
		if err != nil {
			continue // of a newer version: it has nothing here
		}
		clients[c.Name] = role
	}
	return security.NewPolicy(t.Roles, clients, localGroup)
}

// localGroup is the number of a group of this machine.
func localGroup(name string) (uint32, bool) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(gid), err == nil
}
