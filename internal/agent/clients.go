package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/security"
)

// maxClientKeys is how many keys of a client count; the oldest goes for a new one.
const maxClientKeys = 16

// addClient lists a client that has joined, or its next key.
func (t *Table) addClient(c ClientRole) error {
	i := slices.IndexFunc(t.Clients, func(o ClientRole) bool { return o.Name == c.Name })
	if i < 0 {
		t.Clients = append(t.Clients, c)
		return nil
	}
	old := t.Clients[i]
	if old.Role != c.Role {
		return fmt.Errorf("%w: client %s is %s already; remove it first: belfry client remove %s", belfry.ErrExist, old.Name, old.Role, old.Name)
	}
	if len(old.Keys) > 0 { // else all count, those of older agents too
		c.Keys = slices.Concat(old.Keys, c.Keys)
		c.Keys = c.Keys[max(0, len(c.Keys)-maxClientKeys):]
	} else {
		c.Keys = nil
	}
	t.Clients[i] = c
	return nil
}

// Clients are those that hold a certificate, by name.
func (a *Agent) Clients() []*belfryv1.ClientInfo {
	var all []*belfryv1.ClientInfo
	for _, c := range a.members.Table().Clients {
		all = append(all, clientInfo(c))
	}
	slices.SortFunc(all, func(x, y *belfryv1.ClientInfo) int { return strings.Compare(x.GetName(), y.GetName()) })
	return all
}

func clientInfo(c ClientRole) *belfryv1.ClientInfo {
	info := &belfryv1.ClientInfo{Name: c.Name, Role: c.Role, Token: c.Token, Keys: uint32(len(c.Keys))}
	if !c.Joined.IsZero() {
		info.Joined = timestamppb.New(c.Joined)
	}
	return info
}

// RemoveClient takes a client out of the table: from then on every node
// refuses it, and its streams end.
func (a *Agent) RemoveClient(ctx context.Context, name string, dryRun bool) (*belfryv1.RemoveClientResponse, error) {
	resp := &belfryv1.RemoveClientResponse{}
	changed, err := a.change(ctx, dryRun, func(t *Table) error {
		i := slices.IndexFunc(t.Clients, func(c ClientRole) bool { return c.Name == name })
		if i < 0 {
			return fmt.Errorf("%w: no client %q%s", belfry.ErrNotFound, name, nearClient(name, t.Clients))
		}
		resp.Client = clientInfo(t.Clients[i])
		t.Clients = slices.Delete(t.Clients, i, i+1)
		return nil
	})
	resp.Generation = changed.Generation
	return resp, err
}

func nearClient(name string, clients []ClientRole) string {
	var known []string
	for _, c := range clients {
		known = append(known, c.Name)
	}
	if near, ok := config.Nearest(name, known); ok {
		return "; did you mean " + near + "?"
	}
	return "; belfry client list shows them"
}

// Grants are the rows of the configuration's section roles.
func (a *Agent) Grants() (rows []*belfryv1.GrantInfo, generation uint64) {
	table := a.members.Table()
	for _, g := range table.Roles {
		rows = append(rows, grantInfo(g))
	}
	return rows, table.Generation
}

func grantInfo(g security.Grant) *belfryv1.GrantInfo {
	return &belfryv1.GrantInfo{Subjects: slices.Clone(g.Subjects), Role: g.Role, Allow: slices.Clone(g.Allow)}
}

// SetGrant gives one subject exactly this, in a row of its own.
func (a *Agent) SetGrant(ctx context.Context, subject, role string, allow []string, dryRun bool) (*belfryv1.SetGrantResponse, error) {
	grant := security.Grant{Subjects: []string{subject}, Role: role, Allow: allow}
	resp := &belfryv1.SetGrantResponse{}
	changed, err := a.change(ctx, dryRun, func(t *Table) error {
		resp.Before = nil
		var rows []security.Grant
		for _, g := range t.Roles {
			if slices.Contains(g.Subjects, subject) {
				resp.Before = append(resp.Before, grantInfo(g))
				g.Subjects = slices.DeleteFunc(slices.Clone(g.Subjects), func(s string) bool { return s == subject })
			}
			if len(g.Subjects) > 0 {
				rows = append(rows, g)
			}
		}
		if grant.Role != "" || len(grant.Allow) > 0 {
			rows = append(rows, grant)
		} else if len(resp.Before) == 0 {
			return fmt.Errorf("%w: %s has nothing beyond the defaults; belfry role list shows who has", belfry.ErrNotFound, subject)
		}
		t.Roles = rows
		return security.CheckGrants(rows)
	})
	resp.Changed, resp.Generation = changed.Changed, changed.Generation
	return resp, err
}
