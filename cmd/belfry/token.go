package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
)

// tokenCreateView is token create in JSON.
type tokenCreateView struct {
	Token       string   `json:"token" doc:"the token; it is shown once and kept nowhere"`
	ID          string   `json:"id" doc:"what token list and token revoke call it"`
	Expires     *instant `json:"expires" doc:"when it ends"`
	Addresses   []string `json:"addresses" doc:"HOST:PORT of members that take it"`
	Generation  uint64   `json:"generation" doc:"of the configuration that knows it"`
	Unconfirmed []string `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

// tokenView is one token that has not ended and was not used.
type tokenView struct {
	ID      string   `json:"id" doc:"16 hexadecimal digits"`
	Role    string   `json:"role" doc:"what it makes: node, or a client that is reader, operator or witness"`
	Name    string   `json:"name" doc:"that whoever uses it must take; empty: any"`
	Expires *instant `json:"expires" doc:"when it ends"`
	Creator string   `json:"creator" doc:"who asked for it"`
	State   string   `json:"state" doc:"valid, or used-up: too many wrong secrets came, and nobody can join with it"`
	Wrong   uint32   `json:"wrong_secrets" doc:"how many wrong secrets used it up; 0: it is valid"`
}

// tokenListView is token list in JSON.
type tokenListView struct {
	Tokens []tokenView `json:"tokens" doc:"by the time at which they end"`
}

// tokenRevokeView is token revoke in JSON.
type tokenRevokeView struct {
	ID         string `json:"id" doc:"of the token that ended"`
	Generation uint64 `json:"generation" doc:"of the configuration without it"`
}

func newTokenCommand(a *app) *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "List the tokens that were not used and have not ended",
		Long: `List the tokens that were not used and have not ended. One that is used-up was
tried with as many wrong secrets as WRONG says: nobody can join with it, and
whoever needs one is made a new one.`,
		Example: "  belfry token list",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), a.tokenList)
		},
	}
	revoke := &cobra.Command{
		Use:     "revoke ID",
		Short:   "End a token before its time",
		Example: "  belfry token revoke 3f9a0c4e8d217b66",
		Args:    exactly(1, "the token's id, as token list shows it,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				generation, err := c.RevokeToken(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(document{
					value: tokenRevokeView{args[0], generation},
					table: func(o *output, _ bool) {
						fmt.Fprintf(o, "token %s is revoked (generation %d)\n", printable(args[0]), generation)
					},
				})
			})
		},
		ValidArgsFunction: a.completeToken,
	}
	return newGroup(a, "token", "Make, list and revoke tokens with which nodes and clients join", newTokenCreate(a), list, revoke)
}

// completeToken offers the ids of the tokens to the shell.
func (a *app) completeToken(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	if len(args) == 0 {
		a.complete(cmd, func(ctx context.Context, c *client.Client) error {
			tokens, err := c.Tokens(ctx)
			for _, token := range tokens {
				ids = append(ids, token.GetId())
			}
			return err
		})
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func newTokenCreate(a *app) *cobra.Command {
	var (
		ttl                  time.Duration
		name, role, announce string
	)
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token with which one node, or one client, can join",
		Long: `Make a token with which one node, or one client, can join the cluster: once,
and for a short time. Who has it can join, so hand it over as you would a
password. It also says which cluster it is for: whoever joins accepts no other.

With --role it is for a client of the API instead of a node.`,
		Example: `  belfry token create
  belfry token create --name d --ttl 1h
  belfry token create | ssh d belfry join - 10.0.0.1`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ttl == 0 { // which in a request means the usual time
				return usagef("--ttl 0s: a token can be used for 1m to 24h")
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.tokenCreate(ctx, c, client.TokenRequest{TTL: ttl, Name: name, Role: role, Announce: announce})
			})
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 15*time.Minute, "how long it can be used, 1m to 24h")
	cmd.Flags().StringVar(&name, "name", "", "the name that whoever uses it must take (default: any)")
	cmd.Flags().StringVar(&role, "role", "", "reader, operator or witness: for a client, not a node")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"reader", "operator", "witness"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	cmd.Flags().StringVar(&announce, "announce", "", "ADDRESS of a machine that waits with the token: it is told where the cluster is")
	return cmd
}

// tokenCreate writes the token alone to standard output, so that it can be
// piped; what to do with it goes to standard error.
func (a *app) tokenCreate(ctx context.Context, c *client.Client, req client.TokenRequest) error {
	answer, err := c.CreateToken(ctx, req)
	if err != nil {
		return err
	}
	expires := answer.GetExpires()
	return a.show(document{
		value: tokenCreateView{answer.GetToken(), answer.GetId(), jsonTime(when(expires)), slices.Concat([]string{}, answer.GetAddresses()), answer.GetGeneration(), a.unconfirmed(answer.GetUnconfirmed())},
		table: func(o *output, _ bool) {
			fmt.Fprintln(o, answer.GetToken())
			where := ""
			if len(answer.GetAddresses()) > 0 && req.Announce == "" {
				where = " " + answer.GetAddresses()[0]
			}
			fmt.Fprintf(a.errOut, "valid once, until %s; on the other machine: belfry join TOKEN%s\n",
				expires.AsTime().Local().Format(time.DateTime), where)
		},
	})
}

func (a *app) tokenList(ctx context.Context, c *client.Client) error {
	tokens, err := c.Tokens(ctx)
	if err != nil {
		return err
	}
	views := make([]tokenView, len(tokens))
	t := newTable("ID ROLE NAME EXPIRES STATE WRONG CREATOR")
	for i, token := range tokens {
		state, wrong := "valid", ""
		if n := token.GetWrongSecrets(); n > 0 {
			state, wrong = "used-up", strconv.FormatUint(uint64(n), 10)
		}
		views[i] = tokenView{token.GetId(), token.GetRole(), token.GetName(), jsonTime(when(token.GetExpires())), token.GetCreator(), state, token.GetWrongSecrets()}
		t.add(token.GetId(), token.GetRole(), token.GetName(), token.GetExpires().AsTime().Local().Format(time.DateTime), state, wrong, token.GetCreator())
	}
	return a.show(document{
		value: tokenListView{Tokens: views},
		rows:  rowsOf(views),
		table: func(o *output, _ bool) { t.write(o) },
	})
}
