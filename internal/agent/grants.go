package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/security"
)

// clientSubject is how the section roles names a client.
const clientSubject = "client:"

// Grants are what subjects have beyond the defaults.
func (a *Agent) Grants() (rows []*belfryv1.GrantInfo, generation uint64) {
	table := a.members.Table()
	for _, g := range table.grants() {
		rows = append(rows, grantInfo(g))
	}
	return rows, table.Generation
}

func grantInfo(g security.Grant) *belfryv1.GrantInfo {
	return &belfryv1.GrantInfo{Subjects: slices.Clone(g.Subjects), Role: g.Role, Allow: slices.Clone(g.Allow)}
}

// grants are the rows of the section roles, and the clients whose role is
// another than their token said.
func (t *Table) grants() []security.Grant {
	rows := slices.Clone(t.Roles)
	for _, c := range t.Clients {
		if c.TokenRole == "" {
			continue
		}
		subjects := []string{clientSubject + c.Name}
		i := slices.IndexFunc(rows, func(g security.Grant) bool { return g.Role == "" && slices.Equal(g.Subjects, subjects) })
		if i < 0 {
			rows = append(rows, security.Grant{Subjects: subjects, Role: c.Role})
			continue
		}
		rows[i].Role = c.Role
	}
	return rows
}

// grantsOf are the rows of grants with a subject.
func (t *Table) grantsOf(subject string) (rows []security.Grant) {
	for _, g := range t.grants() {
		if slices.Contains(g.Subjects, subject) {
			rows = append(rows, g)
		}
	}
	return rows
}

// takeGrants takes a subject out of the section roles.
func (t *Table) takeGrants(subject string) {
	var rows []security.Grant
	for _, g := range t.Roles {
		if slices.Contains(g.Subjects, subject) {
			g.Subjects = slices.DeleteFunc(slices.Clone(g.Subjects), func(s string) bool { return s == subject })
		}
		if len(g.Subjects) > 0 {
			rows = append(rows, g)
		}
	}
	t.Roles = rows
}

// setGrant gives one subject exactly this beyond the defaults.
//
// Roles add up, so that a row could never lower what a client's token said: its
// role is set where it stands, in the list of the clients, and without one it is
// again what the token said.
func (t *Table) setGrant(subject, role string, allow []string) error {
	had := t.grantsOf(subject)
	if name, isClient := strings.CutPrefix(subject, clientSubject); isClient {
		i := t.client(name)
		switch {
		case i >= 0:
			t.Clients[i].setRole(role)
			role = ""
		case role != "" || len(allow) > 0:
			return t.noClient(name) // else for whoever gets the name next
		}
	}
	row := security.Grant{Subjects: []string{subject}, Role: role, Allow: allow}
	if slices.ContainsFunc(t.Roles, func(g security.Grant) bool { return sameGrant(g, row) }) && len(had) == 1 {
		return nil // where it stands
	}
	t.takeGrants(subject)
	if row.Role != "" || len(row.Allow) > 0 {
		t.Roles = append(t.Roles, row)
	}
	return nil
}

// setRole gives a client a role, or with none the one that its token said.
func (c *ClientRole) setRole(role string) {
	byToken := c.tokenRole()
	c.Role, c.TokenRole = cmp.Or(role, byToken), byToken
	if c.Role == byToken {
		c.TokenRole = ""
	}
}

func sameGrant(x, y security.Grant) bool {
	return x.Role == y.Role && slices.Equal(x.Subjects, y.Subjects) && slices.Equal(x.Allow, y.Allow)
}

// SetGrant gives one subject exactly this beyond the defaults; nothing takes
// back what it has.
func (a *Agent) SetGrant(ctx context.Context, req *belfryv1.SetGrantRequest) (*belfryv1.SetGrantResponse, error) {
	subject, role := req.GetSubject(), req.GetRole()
	allow := slices.Compact(slices.Sorted(slices.Values(req.GetAllow())))
	nothing := role == "" && len(allow) == 0
	if err := a.checkGrant(subject, role, allow); err != nil {
		return nil, err
	}
	resp := &belfryv1.SetGrantResponse{}
	changed, err := a.change(ctx, changing{req.GetDryRun(), req.GetForce()}, func(t *Table) error {
		resp.Before = nil
		for _, g := range t.grantsOf(subject) {
			resp.Before = append(resp.Before, grantInfo(g))
		}
		if err := t.setGrant(subject, role, allow); err != nil {
			return err
		}
		if nothing && len(resp.Before) == 0 {
			return fmt.Errorf("%w: %s has nothing beyond the defaults; belfry role list shows who has", belfry.ErrNotFound, subject)
		}
		return security.CheckGrants(t.Roles)
	})
	resp.Changed, resp.Generation = changed.Changed, changed.Generation
	return resp, err
}

// checkGrant refuses what could be committed and would mean nothing: a mistyped
// class would grant nothing to anybody, silently.
func (a *Agent) checkGrant(subject, role string, allow []string) error {
	if _, err := belfry.ParseRole(role); role != "" && (err != nil || role == belfry.RoleNone.String()) {
		return unknownRole(role)
	}
	checked := security.Grant{Subjects: []string{subject}, Role: cmp.Or(role, belfry.RoleReader.String()), Allow: allow}
	if err := security.CheckGrant(checked); err != nil {
		return err
	}
	for _, text := range allow {
		if verb, class, _ := strings.Cut(text, ":"); verb == "observe" {
			if err := a.checkClass(strings.TrimSuffix(class, "@own")); err != nil {
				return fmt.Errorf("%w: allow %q: %w", belfry.ErrUsage, text, err)
			}
		}
	}
	return nil
}

func unknownRole(role string) error {
	known := []string{belfry.RoleReader.String(), belfry.RoleWitness.String(), belfry.RoleOperator.String(), belfry.RoleAdmin.String()}
	if near, ok := config.Nearest(role, known); ok {
		return fmt.Errorf("%w: unknown role %q; did you mean %s?", belfry.ErrUsage, role, near)
	}
	return fmt.Errorf("%w: unknown role %q; one of %s", belfry.ErrUsage, role, strings.Join(known, ", "))
}

// checkClass refuses a class, or a pattern over classes, that no event has.
func (a *Agent) checkClass(class string) error {
	var known []string
	for _, info := range a.events.Classes() {
		if covers(info, class) {
			return nil
		}
		known = append(known, string(info.Class))
	}
	if prefix, all := strings.CutSuffix(class, "*"); all {
		return fmt.Errorf("no class begins with %s; belfry event types lists all", prefix)
	}
	if near, ok := config.Nearest(class, known); ok {
		return fmt.Errorf("unknown class %q; did you mean %s?", class, near)
	}
	return fmt.Errorf("unknown class %q; belfry event types lists all", class)
}

// covers tells whether a class, or a pattern, has to do with one that there is.
func covers(info belfry.ClassInfo, class string) bool {
	if below, _ := strings.CutSuffix(string(info.Class), "*"); info.Custom && strings.HasPrefix(class, below) {
		return true
	}
	prefix, all := strings.CutSuffix(class, "*")
	return class == string(info.Class) || all && strings.HasPrefix(string(info.Class), prefix)
}
