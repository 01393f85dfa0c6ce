package client

import (
	"context"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// DeclareResource writes a resource into the cluster's configuration, in the place
// of the one of its name: all nodes know it when it returns. ErrUsage for what makes
// no sense, ErrNotFound for a holder that is no member, ErrConflict while another
// change waits to be confirmed.
func (c *Client) DeclareResource(ctx context.Context, r *belfryv1.DeclaredResource, dryRun bool) (*belfryv1.DeclareResourceResponse, error) {
	resp, err := c.witness.DeclareResource(ctx, &belfryv1.DeclareResourceRequest{Resource: r, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// WithdrawResource takes a resource out of the cluster's configuration. ErrNotFound:
// it is not in there.
func (c *Client) WithdrawResource(ctx context.Context, name string, dryRun bool) (*belfryv1.WithdrawResourceResponse, error) {
	resp, err := c.witness.WithdrawResource(ctx, &belfryv1.WithdrawResourceRequest{Name: name, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// DeclaredResources is what the cluster's configuration, and the settings file of
// the node that is asked, declare.
func (c *Client) DeclaredResources(ctx context.Context) (*belfryv1.ListDeclaredResponse, error) {
	resp, err := c.witness.ListDeclared(ctx, &belfryv1.ListDeclaredRequest{})
	return resp, c.errorOf(err)
}

// SetZone says with which others a node, by name or id, fails together; empty: with
// none that is known. ErrNotFound if it is not a member.
func (c *Client) SetZone(ctx context.Context, node, zone string, dryRun bool) (*belfryv1.SetZoneResponse, error) {
	resp, err := c.witness.SetZone(ctx, &belfryv1.SetZoneRequest{Node: node, Zone: zone, DryRun: dryRun})
	return resp, c.errorOf(err)
}
