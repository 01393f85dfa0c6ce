package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// clientView is one client in JSON.
type clientView struct {
	Name         string            `json:"name" doc:"name in its certificates"`
	Role         string            `json:"role" doc:"that it has: reader, witness, operator or admin"`
	TokenRole    string            `json:"token_role" doc:"that it joined with"`
	Allow        []string          `json:"allow" doc:"single rights beside the role, as belfry role set takes them"`
	Certificates []certificateView `json:"certificates" doc:"that count, the newest first; none: every one in its name"`
}

// certificateView is one certificate of a client.
type certificateView struct {
	Serial  string   `json:"serial" doc:"hexadecimal digits; empty: not known"`
	Expires *instant `json:"expires" doc:"null: not known"`
	Joined  *instant `json:"joined" doc:"null: it was made with the cluster"`
	Token   string   `json:"token" doc:"id of the token that it came by; empty: it was made with the cluster"`
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
		Long: `List the clients that hold a certificate of the cluster, with a line for each
certificate. A client joins with a token that has a role (belfry token create
--role); belfry role set gives it another, or single rights. With -o wide the
certificates' serial numbers and the single rights are shown as well.`,
		Example: "  belfry client list",
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.ask(cmd.Context(), a.clientList) },
	}
	return newGroup(a, "client", "List and remove clients of the API", list, newClientRemove(a))
}

func newClientRemove(a *app) *cobra.Command {
	var dryRun, force bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Refuse a client from now on",
		Long: `Refuse a client from now on, on all nodes. What it has open ends within two
seconds, and what was given to its name is taken back. Its certificates never
count again: another client may take the name, with a token of its own.

A node that is off, or cut off, refuses it when it hears of the removal.

` + whileMostAreDown + ` Look at belfry client list when they
are back.`,
		Example: "  belfry client remove ci --dry-run\n  belfry client remove ci",
		Args:    exactly(1, "the client's name, as client list shows it,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := a.removeClient(ctx, c, args[0], dryRun, force)
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
		ValidArgsFunction: a.completeClient,
	}
	dryRunFlag(cmd, &dryRun)
	forceFlag(cmd, &force)
	return cmd
}

func (a *app) removeClient(ctx context.Context, c *client.Client, name string, dryRun, force bool) (*belfryv1.RemoveClientResponse, error) {
	if err := dryOrForced(dryRun, force); err != nil {
		return nil, err
	}
	if force {
		return c.RemoveClientByForce(ctx, name)
	}
	answer, err := c.RemoveClient(ctx, name, dryRun)
	return answer, orForce(err)
}

// completeClient offers the names of the clients to the shell.
func (a *app) completeClient(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		a.complete(cmd, func(ctx context.Context, c *client.Client) error {
			clients, err := c.Clients(ctx)
			for _, info := range clients {
				names = append(names, info.GetName())
			}
			return err
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) clientList(ctx context.Context, c *client.Client) error {
	clients, err := c.Clients(ctx)
	if err != nil {
		return err
	}
	views := make([]clientView, len(clients))
	for i, info := range clients {
		views[i] = clientView{info.GetName(), info.GetRole(), info.GetTokenRole(), append([]string{}, info.GetAllow()...), []certificateView{}}
		for _, k := range info.GetCertificates() {
			views[i].Certificates = append(views[i].Certificates, certificateView{k.GetSerial(), jsonTime(when(k.GetExpires())), jsonTime(when(k.GetJoined())), k.GetToken()})
		}
	}
	return a.show(document{
		value: clientListView{Clients: views},
		rows:  rowsOf(views),
		table: func(o *output, wide bool) { clientTable(clients, wide).write(o) },
	})
}

// clientTable has a line for each certificate.
func clientTable(clients []*belfryv1.ClientInfo, wide bool) *table {
	head := "NAME ROLE JOINED EXPIRES TOKEN"
	if wide {
		head += " SERIAL ALLOW"
	}
	t := newTable(head)
	for _, info := range clients {
		certificates := info.GetCertificates()
		if len(certificates) == 0 {
			certificates = []*belfryv1.ClientCertificate{{}} // every one in its name
		}
		for _, k := range certificates {
			cells := []string{info.GetName(), info.GetRole(), localTime(k.GetJoined()), localTime(k.GetExpires()), k.GetToken()}
			if wide {
				cells = append(cells, k.GetSerial(), strings.Join(info.GetAllow(), " "))
			}
			t.add(cells...)
		}
	}
	return t
}

// localTime is for tables; empty for none.
func localTime(s stamp) string {
	t := when(s)
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}
