package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/agent"
)

// removeView is node remove and leave in JSON.
type removeView struct {
	ID          string   `json:"id" doc:"UUID of the node"`
	Name        string   `json:"name" doc:"name of the node"`
	DryRun      bool     `json:"dry_run" doc:"nothing was changed"`
	Generation  uint64   `json:"generation" doc:"of the configuration in force"`
	Epoch       uint32   `json:"epoch" doc:"of the datagram keys: those that the node knows count no more"`
	Members     uint32   `json:"members" doc:"members that are left"`
	Unconfirmed []string `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

// rotateView is ca rotate in JSON.
type rotateView struct {
	Fingerprint string   `json:"fingerprint" doc:"SHA-256 of the new authority's certificate"`
	Generation  uint64   `json:"generation" doc:"of the configuration in which both authorities count"`
	Unconfirmed []string `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

// signView is ca sign in JSON.
type signView struct {
	Identity string `json:"identity" doc:"node ID or client NAME that the certificate is for"`
	File     string `json:"file" doc:"where the certificate is"`
}

// whileMostAreDown explains --force of a change that members who are cut off may
// undo.
const whileMostAreDown = `While most members are down nothing can be changed, because the others may only
be cut off, and change something themselves. --force makes this change all the
same. If others have changed something meanwhile, the side that made more changes
wins when they meet, and those of the other are lost.`

// forceFlag is for those.
func forceFlag(cmd *cobra.Command, force *bool) {
	cmd.Flags().BoolVar(force, "force", false, "also if most members are down")
}

func dryOrForced(dryRun, force bool) error {
	if dryRun && force {
		return usagef("--dry-run and --force: one of them; --dry-run tells whether it takes --force")
	}
	return nil
}

// orForce adds the way out that the command itself has.
func orForce(err error) error {
	var said *belfry.Error
	if !errors.Is(err, belfry.ErrRestricted) || !errors.As(err, &said) {
		return err
	}
	with := *said
	with.Err = fmt.Errorf("%w; if this can not wait for either, --force", said.Err)
	return &with
}

func newNodeRemove(a *app) *cobra.Command {
	var dryRun, force bool
	remove := &cobra.Command{
		Use:   "remove NODE",
		Short: "End the membership of a node, whether its agent runs or not",
		Long: `End the membership of a node, whether its agent runs or not. Whatever keys it
holds, it is refused everywhere within two seconds: its certificate, the keys
of its datagrams, its streams. To come back it needs a token.

While most members are down nothing can be changed, because the others may only
be cut off, and change something themselves. --force removes a node all the same:
only for members that are gone for good.`,
		Example: "  belfry node remove c --dry-run\n  belfry node remove c",
		Args:    exactly(1, "the node's name or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.removeNode(ctx, c, args[0], dryRun, force)
			})
		},
		ValidArgsFunction: a.completeNode,
	}
	dryRunFlag(remove, &dryRun)
	remove.Flags().BoolVar(&force, "force", false, "also if most members are down: they are gone for good")
	return remove
}

func newLeaveCommand(a *app) *cobra.Command {
	var dryRun, force bool
	leave := &cobra.Command{
		Use:   "leave",
		Short: "End the membership of this node",
		Long: `End the membership of this node: the others are told, and its agent ends. Its
state directory stays; a token lets it join again, this cluster or another.

A node that was removed while its agent did not run is told so by the others, and
believes more than half of those that it knows. Where too few of them are left,
--force has it leave by itself, so that it can join again.`,
		Example: "  belfry leave\n  belfry leave --force",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.removeNode(ctx, c, "", dryRun, force)
			})
		},
	}
	dryRunFlag(leave, &dryRun)
	leave.Flags().BoolVar(&force, "force", false, "also if most members are down")
	return leave
}

// removeNode removes a node by name, or the one that is asked.
func (a *app) removeNode(ctx context.Context, c *client.Client, name string, dryRun, force bool) error {
	if err := dryOrForced(dryRun, force); err != nil {
		return err
	}
	remove := func() (*belfryv1.RemoveNodeResponse, error) { return c.RemoveNode(ctx, name, dryRun) }
	if force {
		remove = func() (*belfryv1.RemoveNodeResponse, error) { return c.RemoveNodeByForce(ctx, name) }
	}
	answer, err := remove()
	if err != nil && name != "" {
		return a.unknownTo(ctx, c, name, err)
	}
	if err != nil {
		return err
	}
	v := removeView{answer.GetNodeId(), answer.GetNodeName(), dryRun, answer.GetGeneration(), answer.GetEpoch(), answer.GetMembers(), a.unconfirmed(answer.GetUnconfirmed())}
	return a.show(document{
		value: v,
		table: func(o *output, _ bool) {
			node := printable(v.Name)
			switch {
			case v.DryRun:
				fmt.Fprintf(o, "%s would be a member no more, %d are left; nothing is changed\n", node, v.Members)
			default:
				fmt.Fprintf(o, "%s is a member no more, %d are left (generation %d)\n", node, v.Members, v.Generation)
			}
		},
	})
}

func newCACommand(a *app) *cobra.Command {
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the cluster's certificate authority",
		Long: `Replace the cluster's certificate authority, whose key may have been seen. Both
count until every node has a certificate of the new one; no node is refused
meanwhile. Clients and tokens need new ones: they hold on to the old authority.`,
		Example: "  belfry ca rotate",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.RotateCA(ctx)
				if err != nil {
					return err
				}
				v := rotateView{answer.GetFingerprint(), answer.GetGeneration(), a.unconfirmed(answer.GetUnconfirmed())}
				return a.show(document{
					value: v,
					table: func(o *output, _ bool) {
						fmt.Fprintf(o, "new authority %s counts beside the old one (generation %d)\n", v.Fingerprint, v.Generation)
					},
				})
			})
		},
	}
	return newGroup(a, "ca", "Replace the certificate authority, or sign for it", rotate, newCASign(a))
}

func newCASign(a *app) *cobra.Command {
	var key string
	sign := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a request with an authority's key that is kept out of the cluster",
		Long: `Sign a request with an authority's key that is kept out of the cluster (belfry
init --ca offline). FILE lies in keys/requests of the state directory of the
member that was asked to let somebody join, or that wants to renew. It may be
carried to where the key is; the certificate, which is written beside it, is
carried back. This asks no agent.`,
		Example: "  belfry ca sign /var/lib/belfry/keys/requests/3f9a0c4e8d217b66.request --key /media/usb/ca.key",
		Args:    exactly(1, "the file with the request"),
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return usagef("--key FILE is missing: the authority's key")
			}
			who, to, err := agent.SignRequest(args[0], key, time.Now())
			if err != nil {
				return err
			}
			v := signView{who, to}
			return a.show(document{
				value: v,
				table: func(o *output, _ bool) {
					fmt.Fprintf(o, "signed for %s: %s\n", v.Identity, v.File)
				},
			})
		},
	}
	sign.Flags().StringVar(&key, "key", "", "file with the authority's key")
	return sign
}
