package agent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os/user"
	"slices"
	"strconv"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/security"
)

// decide judges one part of a request by the configuration that is in force
// now.
func (a *Agent) decide(s api.Subject, ask api.Ask) (belfry.Role, bool) {
	return a.policy.Load().Decide(callerOf(s), security.Ask(ask))
}

func callerOf(s api.Subject) security.Caller {
	return security.Caller{Client: s.Client, UID: s.UID, Groups: s.Groups, Role: s.Role, Fixed: s.Web}
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
		return x.Name == y.Name && x.Role == y.Role && slices.Equal(x.Keys, y.Keys)
	})
	return same && slices.EqualFunc(a.Roles, b.Roles, func(x, y security.Grant) bool {
		return x.Role == y.Role && slices.Equal(x.Subjects, y.Subjects) && slices.Equal(x.Allow, y.Allow)
	})
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

// clientListed refuses a client that the member table does not list with that
// key, so that taking it out there takes its rights at once, also when another
// client gets its name.
func (a *Agent) clientListed(name string, public ed25519.PublicKey) error {
	for _, c := range a.members.Table().Clients {
		if c.Name == name && (len(c.Keys) == 0 || slices.Contains(c.Keys, sha256.Sum256(public))) {
			return nil
		}
	}
	return fmt.Errorf("%w: no client %q is listed with this key; it was removed, or never joined: belfry token create --role ROLE --name %s", belfry.ErrPermission, name, name)
}
