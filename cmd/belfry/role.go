package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// grantView is one row of the roles in JSON.
type grantView struct {
	Subjects []string `json:"subjects" doc:"uid:NUMBER, group:NAME or client:NAME; each has all of the row"`
	Role     string   `json:"role" doc:"reader, witness, operator or admin; empty: none"`
	Allow    []string `json:"allow" doc:"observe:CLASS, observe:CLASS@own or emit:user.NAME"`
}

// grantListView is role list in JSON.
type grantListView struct {
	Generation uint64      `json:"generation" doc:"of the configuration that holds them"`
	Grants     []grantView `json:"grants" doc:"what subjects have beyond the defaults"`
}

// grantSetView is role set and role unset in JSON.
type grantSetView struct {
	Subject     string      `json:"subject" doc:"who it is about"`
	Before      []grantView `json:"before" doc:"rows with the subject, as they were"`
	Role        string      `json:"role" doc:"that it has now; empty: none"`
	Allow       []string    `json:"allow" doc:"single rights that it has now"`
	DefaultRole string      `json:"default_role" doc:"that it has on the node that was asked, whatever it is given; empty: none"`
	NothingHere string      `json:"nothing_here" doc:"why what is set gives nothing on the node that was asked; empty: it does"`
	Changed     bool        `json:"changed" doc:"false: it was so already"`
	DryRun      bool        `json:"dry_run" doc:"nothing was changed"`
	Generation  uint64      `json:"generation" doc:"of the configuration in force"`
	Unconfirmed []string    `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

func newRoleCommand(a *app) *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "List what users, groups and clients have beyond the defaults",
		Long: `List what users, groups and clients have beyond the defaults: root and the
agent's user are admin, the group belfry-operator is operator, the group belfry is
reader, a client is what its token said. A row may be about several; each has all
of it.`,
		Example: "  belfry role list",
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.ask(cmd.Context(), a.roleList) },
	}
	var dryRun, force bool
	unset := &cobra.Command{
		Use:   "unset SUBJECT",
		Short: "Leave a user, group or client with the defaults",
		Long: `Leave a user, a group or a client with the defaults, as belfry role list names
them: a client is again what its token said. To take all from a client, belfry
client remove.

` + whileMostAreDown + ` Look at belfry role list when they are
back.`,
		Example: "  belfry role unset uid:1000",
		Args:    exactly(1, "who it is about: uid:NUMBER, group:NAME or client:NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.roleSet(ctx, c, &belfryv1.SetGrantRequest{Subject: args[0], DryRun: dryRun, Force: force})
			})
		},
	}
	dryRunFlag(unset, &dryRun)
	forceFlag(unset, &force)
	return newGroup(a, "role", "Say who may do what, beyond the defaults", list, newRoleSet(a), unset)
}

func newRoleSet(a *app) *cobra.Command {
	req := &belfryv1.SetGrantRequest{}
	cmd := &cobra.Command{
		Use:   "set SUBJECT",
		Short: "Give a user, a group or a client exactly a role or single rights",
		Long: `Give a user, a group or a client exactly a role, single rights, or both, in place
of what it had beyond the defaults. It counts on all nodes at once; who loses a
right loses the streams that need it.

What somebody is by default, as belfry role list --help has it, is not taken away:
root stays admin on every node, and the answer says so. Of several roles the most powerful counts. A client has
the role that is set here, and without --role the one of its token.

A right is observe:CLASS, observe:CLASS@own (what belongs to the user) or
emit:user.NAME; a class may end in a star, as in process.*. Each node looks users
and groups up itself; a group that one does not have gives nothing there. If that is
the node that is asked, the command warns of it.

` + whileMostAreDown + ` Look at belfry role list when they are
back.`,
		Example: `  belfry role set uid:1000 --role operator
  belfry role set group:dba --allow observe:process.*@own --allow emit:user.backup`,
		Args: exactly(1, "who it is about: uid:NUMBER, group:NAME or client:NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.GetRole() == "" && len(req.GetAllow()) == 0 {
				return usagef("nothing to give; add --role or --allow, or take all back with belfry role unset %s", args[0])
			}
			req.Subject = args[0]
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error { return a.roleSet(ctx, c, req) })
		},
	}
	cmd.Flags().StringVar(&req.Role, "role", "", "reader, witness, operator or admin")
	cmd.Flags().StringArrayVar(&req.Allow, "allow", nil, "a single right; may be given several times")
	dryRunFlag(cmd, &req.DryRun)
	forceFlag(cmd, &req.Force)
	return cmd
}

func viewsOfGrants(rows []*belfryv1.GrantInfo) []grantView {
	views := make([]grantView, len(rows))
	for i, g := range rows {
		views[i] = grantView{append([]string{}, g.GetSubjects()...), g.GetRole(), append([]string{}, g.GetAllow()...)}
	}
	return views
}

func (a *app) roleList(ctx context.Context, c *client.Client) error {
	answer, err := c.Grants(ctx)
	if err != nil {
		return err
	}
	views := viewsOfGrants(answer.GetGrants())
	t := newTable("SUBJECTS ROLE ALLOW")
	for _, v := range views {
		t.add(strings.Join(v.Subjects, " "), v.Role, strings.Join(v.Allow, " "))
	}
	return a.show(document{
		value: grantListView{Generation: answer.GetGeneration(), Grants: views},
		rows:  rowsOf(views),
		table: func(o *output, _ bool) { t.write(o) },
	})
}

func (a *app) roleSet(ctx context.Context, c *client.Client, req *belfryv1.SetGrantRequest) error {
	req.Allow = slices.Compact(slices.Sorted(slices.Values(req.GetAllow()))) // as it is kept
	if err := dryOrForced(req.GetDryRun(), req.GetForce()); err != nil {
		return err
	}
	answer, err := c.SetGrant(ctx, req)
	if err != nil {
		return orForce(err)
	}
	v := grantSetView{
		Subject: req.GetSubject(), Before: viewsOfGrants(answer.GetBefore()), Role: req.GetRole(), Allow: append([]string{}, req.GetAllow()...),
		DefaultRole: answer.GetDefaultRole(), NothingHere: answer.GetNothingHere(), Changed: answer.GetChanged(), DryRun: req.GetDryRun(), Generation: answer.GetGeneration(), Unconfirmed: a.unconfirmed(answer.GetUnconfirmed()),
	}
	if v.NothingHere != "" {
		a.notef("warning: %s: what is set gives nothing there; each node looks the group up itself, so see that one has it and that its name is right", printable(v.NothingHere))
	}
	return a.show(document{
		value: v,
		table: func(o *output, _ bool) {
			has := grantText(v.Role, v.Allow)
			verb, would := "has", "would have"
			switch {
			case has == "":
				has = "nothing beyond the defaults"
			case v.addsNothing():
				verb, would = "stays", "would stay"
				has = fmt.Sprintf("%s, as it is by default; %s adds nothing", v.DefaultRole, has)
			}
			end := fmt.Sprintf(" (generation %d)", v.Generation)
			switch {
			case !v.Changed:
				end = " already" + end
			case v.DryRun:
				verb, end = would, "; nothing is changed"
			}
			fmt.Fprintf(o, "%s %s %s%s%s\n", printable(v.Subject), verb, printable(has), hadText(v), end)
		},
	})
}

// addsNothing tells whether all that was given is what the subject may by
// default: rights add up, and no row takes one away.
func (v grantSetView) addsNothing() bool {
	has, err := belfry.ParseRole(v.DefaultRole)
	if err != nil || has == belfry.RoleNone {
		return false
	}
	given, _ := belfry.ParseRole(v.Role)                                     // none is less than any
	return given <= has && (len(v.Allow) == 0 || has >= belfry.RoleOperator) // who may observe all, and send user.*
}

// grantText is what one row gives.
func grantText(role string, allow []string) string {
	return strings.TrimSpace(role + " " + strings.Join(allow, " "))
}

// hadText says what a change replaced, so that what was lost by it can be given
// again.
func hadText(v grantSetView) string {
	if !v.Changed || len(v.Before) == 0 {
		return ""
	}
	var rows []string
	for _, g := range v.Before {
		rows = append(rows, grantText(g.Role, g.Allow))
	}
	return ", had " + printable(strings.Join(rows, " "))
}
