package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
)

func isNotFound(err error) bool { return errors.Is(err, belfry.ErrNotFound) }

// unknownNode names the nearest node, or all there are.
func unknownNode(name string, nodes []*belfryv1.Node, sentinel error) error {
	var known []string
	for _, n := range nodes {
		known = append(known, n.GetName())
	}
	if near, ok := config.Nearest(name, known); ok && len(known) > 3 && len(name) > 1 { // of one letter any other is near
		return failf(sentinel, "unknown node %q; did you mean %s?", name, near)
	}
	return failf(sentinel, "unknown node %q; one of %s", name, strings.Join(known, ", "))
}

// findNode is the node with that name or id.
func findNode(name string, nodes []*belfryv1.Node) (*belfryv1.Node, bool) {
	for _, n := range nodes {
		if n.GetName() == name || n.GetId() == name {
			return n, true
		}
	}
	return nil, false
}

// completeNode offers the names of the nodes to the shell.
func (a *app) completeNode(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		a.complete(cmd, func(ctx context.Context, c *client.Client) error {
			nodes, err := c.Nodes(ctx)
			for _, n := range nodes {
				names = append(names, n.GetName())
			}
			return err
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
