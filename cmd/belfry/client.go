package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// clientView is one client in JSON.
type clientView struct {
	Name   string   `json:"name" doc:"name in its certificate"`
	Role   string   `json:"role" doc:"reader, witness, operator or admin"`
	Keys   uint32   `json:"keys" doc:"certificates that count; 0: every one in its name"`
	Joined *instant `json:"joined" doc:"with the newest certificate; null: when the cluster was made"`
	Token  string   `json:"token" doc:"id of the token that it joined with; empty: likewise"`
}

// clientListView is client list in JSON.
type clientListView struct {
	Clients []clientView `json:"clients" doc:"by name"`
}

// clientRemoveView is client remove in JSON.
type clientRemoveView struct {
	Name        string   `json:"name" doc:"of the client"`
	Role        string   `json:"role" doc:"that it had"`
	DryRun      bool     `json:"dry_run" doc:"nothing was changed"`
	Generation  uint64   `json:"generation" doc:"of the configuration in force"`
	Unconfirmed []string `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

func newClientCommand(a *app) *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "List the clients that hold a certificate of the cluster",
		Long: `List the clients that hold a certificate of the cluster. A client joins with a
token that has a role (belfry token create --role).`,
		Example: "  belfry client list",
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.ask(cmd.Context(), a.clientList) },
	}
	return newGroup(a, "client", "List and remove clients of the API", list, newClientRemove(a))
}

func newClientRemove(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Refuse a client from now on",
		Long: `Refuse a client from now on, on all nodes. Its streams end. Its certificates never
count again: another client may take the name, with a token of its own.`,
		Example: "  belfry client remove ci",
		Args:    exactly(1, "the client's name, as client list shows it,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.RemoveClient(ctx, args[0], dryRun)
				if err != nil {
					return err
				}
				v := clientRemoveView{args[0], answer.GetClient().GetRole(), dryRun, answer.GetGeneration(), a.unconfirmed(answer.GetUnconfirmed())}
				return a.show(document{
					value: v,
					table: func(o *output, _ bool) {
						if dryRun {
							fmt.Fprintf(o, "client %s (%s) would be refused; nothing is changed\n", printable(v.Name), v.Role)
							return
						}
						fmt.Fprintf(o, "client %s (%s) is refused (generation %d)\n", printable(v.Name), v.Role, v.Generation)
					},
				})
			})
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) clientList(ctx context.Context, c *client.Client) error {
	clients, err := c.Clients(ctx)
	if err != nil {
		return err
	}
	views := make([]clientView, len(clients))
	t := newTable("NAME ROLE CERTIFICATES JOINED TOKEN")
	for i, info := range clients {
		views[i] = clientView{info.GetName(), info.GetRole(), info.GetKeys(), jsonTime(when(info.GetJoined())), info.GetToken()}
		certificates, joined := "any", ""
		if info.GetKeys() > 0 {
			certificates = strconv.FormatUint(uint64(info.GetKeys()), 10)
		}
		if info.GetJoined() != nil {
			joined = info.GetJoined().AsTime().Local().Format(time.DateTime)
		}
		t.add(info.GetName(), info.GetRole(), certificates, joined, info.GetToken())
	}
	return a.show(document{value: clientListView{Clients: views}, rows: rowsOf(views), table: func(o *output, _ bool) { t.write(o) }})
}

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
reader, a client is what its token said.`,
		Example: "  belfry role list",
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.ask(cmd.Context(), a.roleList) },
	}
	var dryRun bool
	unset := &cobra.Command{
		Use:     "unset SUBJECT",
		Short:   "Leave a user, group or client with the defaults",
		Example: "  belfry role unset uid:1000",
		Args:    exactly(1, "who it is about: uid:NUMBER, group:NAME or client:NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.roleSet(ctx, c, &belfryv1.SetGrantRequest{Subject: args[0], DryRun: dryRun})
			})
		},
	}
	dryRunFlag(unset, &dryRun)
	return newGroup(a, "role", "Say who may do what, beyond the defaults", list, newRoleSet(a), unset)
}

func newRoleSet(a *app) *cobra.Command {
	req := &belfryv1.SetGrantRequest{}
	cmd := &cobra.Command{
		Use:   "set SUBJECT",
		Short: "Give a user, a group or a client exactly a role or single rights",
		Long: `Give a user, a group or a client exactly a role, or single rights, in place of
what it had beyond the defaults. It counts on all nodes at once; who loses a right
loses the streams that need it.

A right is observe:CLASS, observe:CLASS@own (what belongs to the user) or
emit:user.NAME; a class may end in a star, as in process.*.`,
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
	answer, err := c.SetGrant(ctx, req)
	if err != nil {
		return err
	}
	v := grantSetView{
		Subject: req.GetSubject(), Before: viewsOfGrants(answer.GetBefore()), Role: req.GetRole(), Allow: append([]string{}, req.GetAllow()...),
		Changed: answer.GetChanged(), DryRun: req.GetDryRun(), Generation: answer.GetGeneration(), Unconfirmed: a.unconfirmed(answer.GetUnconfirmed()),
	}
	return a.show(document{
		value: v,
		table: func(o *output, _ bool) {
			has := strings.TrimSpace(v.Role + " " + strings.Join(v.Allow, " "))
			if has == "" {
				has = "nothing beyond the defaults"
			}
			verb, end := "has", fmt.Sprintf(" (generation %d)", v.Generation)
			switch {
			case !v.Changed:
				end = " already" + end
			case v.DryRun:
				verb, end = "would have", "; nothing is changed"
			}
			fmt.Fprintf(o, "%s %s %s%s\n", printable(v.Subject), verb, printable(has), end)
		},
	})
}
