package client

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A TokenRequest says what token is to be made. All fields may be zero.
type TokenRequest struct {
	TTL      time.Duration // 1 min to 24 h; zero: 15 min
	Name     string        // that whoever uses it must take; empty: any
	Role     string        // reader, operator or witness; empty: a node
	Announce string        // address that is told of the cluster while the token lives
}

// CreateToken makes a token with which one node, or one client, can join the
// cluster. ErrUsage for a role, name or time that can not be, ErrLimit if too
// many are alive.
func (c *Client) CreateToken(ctx context.Context, r TokenRequest) (*belfryv1.CreateTokenResponse, error) {
	req := &belfryv1.CreateTokenRequest{Name: r.Name, Role: r.Role, Announce: r.Announce}
	if r.TTL != 0 {
		req.Ttl = durationpb.New(r.TTL)
	}
	resp, err := c.members.CreateToken(ctx, req)
	return resp, c.errorOf(err)
}

// Tokens are those that were not used and have not ended, by the time at which
// they end.
func (c *Client) Tokens(ctx context.Context) (tokens []*belfryv1.TokenInfo, err error) {
	for page := ""; ; {
		resp, err := c.members.ListTokens(ctx, &belfryv1.ListTokensRequest{PageToken: page})
		if err != nil {
			return nil, c.errorOf(err)
		}
		tokens = append(tokens, resp.GetTokens()...)
		if page = resp.GetNextPageToken(); page == "" {
			return tokens, nil
		}
	}
}

// RevokeToken ends a token before its time and returns the generation of the
// configuration without it. ErrNotFound if there is none with this id.
func (c *Client) RevokeToken(ctx context.Context, id string) (generation uint64, err error) {
	resp, err := c.members.RevokeToken(ctx, &belfryv1.RevokeTokenRequest{Id: id})
	return resp.GetGeneration(), c.errorOf(err)
}

// RemoveNode ends the membership of a node, by name or id; empty: of the node
// whose agent is asked. With dryRun it is only checked. ErrNotFound if it is
// not a member, ErrRestricted if most members are down.
func (c *Client) RemoveNode(ctx context.Context, node string, dryRun bool) (*belfryv1.RemoveNodeResponse, error) {
	resp, err := c.members.RemoveNode(ctx, &belfryv1.RemoveNodeRequest{Node: node, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// RemoveNodeByForce is RemoveNode also while most members are down. They must be
// gone for good: if they only can not be reached, they may have removed others.
func (c *Client) RemoveNodeByForce(ctx context.Context, node string) (*belfryv1.RemoveNodeResponse, error) {
	resp, err := c.members.RemoveNode(ctx, &belfryv1.RemoveNodeRequest{Node: node, Force: true})
	return resp, c.errorOf(err)
}

// RemoveClientByForce is RemoveClient also while most members are down. If those
// only can not be reached, and change something meanwhile, one of the two changes
// is lost when they meet again.
func (c *Client) RemoveClientByForce(ctx context.Context, name string) (*belfryv1.RemoveClientResponse, error) {
	resp, err := c.members.RemoveClient(ctx, &belfryv1.RemoveClientRequest{Name: name, Force: true})
	return resp, c.errorOf(err)
}

// RotateCA has a new authority replace the cluster's. It returns when the new
// one counts beside the old one, which goes when all nodes have renewed.
func (c *Client) RotateCA(ctx context.Context) (*belfryv1.RotateCAResponse, error) {
	resp, err := c.members.RotateCA(ctx, &belfryv1.RotateCARequest{})
	return resp, c.errorOf(err)
}

// Clients are those that hold a certificate of the cluster, by name.
func (c *Client) Clients(ctx context.Context) (clients []*belfryv1.ClientInfo, err error) {
	for page := ""; ; {
		resp, err := c.members.ListClients(ctx, &belfryv1.ListClientsRequest{PageToken: page})
		if err != nil {
			return nil, c.errorOf(err)
		}
		clients = append(clients, resp.GetClients()...)
		if page = resp.GetNextPageToken(); page == "" {
			return clients, nil
		}
	}
}

// RemoveClient makes every node refuse a client, whose streams end. With dryRun
// it only checks. ErrNotFound if there is none with this name.
func (c *Client) RemoveClient(ctx context.Context, name string, dryRun bool) (*belfryv1.RemoveClientResponse, error) {
	resp, err := c.members.RemoveClient(ctx, &belfryv1.RemoveClientRequest{Name: name, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// Grants are what subjects have beyond the defaults, and the generation that
// holds it.
func (c *Client) Grants(ctx context.Context) (*belfryv1.ListGrantsResponse, error) {
	resp, err := c.members.ListGrants(ctx, &belfryv1.ListGrantsRequest{})
	return resp, c.errorOf(err)
}

// SetGrant gives one subject exactly a role and single rights in place of what
// it had; with neither it has nothing beyond the defaults any more. ErrUsage for
// what is no subject, role or right.
func (c *Client) SetGrant(ctx context.Context, req *belfryv1.SetGrantRequest) (*belfryv1.SetGrantResponse, error) {
	resp, err := c.members.SetGrant(ctx, req)
	return resp, c.errorOf(err)
}
