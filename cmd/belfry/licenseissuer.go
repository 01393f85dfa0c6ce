package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/license"
)

// issuerView is one issuer in JSON.
type issuerView struct {
	Product string `json:"product" doc:"that the key signs for"`
	KeyID   string `json:"key_id" doc:"start of the SHA-256 of the public key, as licenses name it"`
	Key     string `json:"key" doc:"the public key, PEM"`
}

// issuerListView is license issuer list in JSON.
type issuerListView struct {
	Issuers []issuerView `json:"issuers" doc:"by product and key"`
}

func newLicenseIssuer(a *app) *cobra.Command {
	var dryRun bool
	add := &cobra.Command{
		Use:   "add PRODUCT FILE",
		Short: "Trust a key to sign licenses of one product",
		Long: `Trust a key to sign licenses of one product. FILE is the public key of the product's
issuer, from the issuer by a way that you trust: whoever has the private one can
sign licenses that count here. It takes the role admin.`,
		Example: "  belfry license issuer add acme-db acme.key.pub",
		Args:    exactly(2, "the product, or the file with its issuer's public key,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := issuerKey(args[1])
			if err != nil {
				return err
			}
			text, err := license.EncodePublicKey(key)
			if err != nil {
				return err
			}
			return a.commitConfig(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.AddIssuer(ctx, args[0], string(text), dryRun)
				if err != nil {
					return err
				}
				v := a.licenseChange(answer, answer.GetProduct(), answer.GetStates(), dryRun)
				v.KeyID = answer.GetKeyId()
				return a.showLicenseChange(v, answer.GetMembers(), fmt.Sprintf("issuer %s of %s", v.KeyID, v.Product), "is trusted")
			})
		},
	}
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the keys that are trusted, and for which product",
		Example: "  belfry license issuer list",
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.ask(cmd.Context(), a.issuerList) },
	}
	rm := &cobra.Command{
		Use:   "rm PRODUCT KEY",
		Short: "Trust a key no more",
		Long: `Trust a key no more, named by its id as license issuer list shows it: the licenses that it
has signed count no more, on all nodes at once. It takes the role admin.`,
		Example: "  belfry license issuer rm acme-db 91f52a095faccc2a",
		Args:    exactly(2, "the product, or the id of the key,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.commitConfig(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.RemoveIssuer(ctx, args[0], args[1], dryRun)
				if err != nil {
					return err
				}
				v := a.licenseChange(answer, answer.GetProduct(), answer.GetStates(), dryRun)
				v.KeyID = answer.GetKeyId()
				return a.showLicenseChange(v, answer.GetMembers(), fmt.Sprintf("issuer %s of %s", v.KeyID, v.Product), "is trusted no more")
			})
		},
		ValidArgsFunction: a.completeIssuer,
	}
	for _, cmd := range []*cobra.Command{add, rm} {
		dryRunFlag(cmd, &dryRun)
	}
	return newGroup(a, "issuer", "Say whose licenses count, for which product", add, list, rm)
}

func (a *app) issuerList(ctx context.Context, c *client.Client) error {
	issuers, err := c.Issuers(ctx)
	if err != nil {
		return err
	}
	v := issuerListView{Issuers: []issuerView{}}
	t := newTable("PRODUCT KEY")
	for _, k := range issuers {
		v.Issuers = append(v.Issuers, issuerView{k.GetProduct(), k.GetKeyId(), k.GetKey()})
		t.add(k.GetProduct(), k.GetKeyId())
	}
	return a.show(document{value: v, rows: rowsOf(v.Issuers), table: func(o *output, _ bool) { t.write(o) }})
}

// completeIssuer offers products, and then the ids of their keys, to the shell.
func (a *app) completeIssuer(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var words []string
	a.complete(cmd, func(ctx context.Context, c *client.Client) error {
		issuers, err := c.Issuers(ctx)
		for _, k := range issuers {
			switch {
			case len(args) == 0:
				words = append(words, k.GetProduct())
			case len(args) == 1 && args[0] == k.GetProduct():
				words = append(words, k.GetKeyId())
			}
		}
		return err
	})
	return words, cobra.ShellCompDirectiveNoFileComp
}
