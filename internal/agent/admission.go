package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/security"
)

// The methods below are api.Members: who belongs to the cluster, and who may
// come. Those that change something run on the node that leads.

var _ api.Members = (*Agent)(nil)

// Tokens are those that have not ended and were not used, by the time at which
// they end.
func (a *Agent) Tokens() []*belfryv1.TokenInfo {
	var tokens []*belfryv1.TokenInfo
	now := time.Now()
	for _, t := range a.members.Table().Tokens {
		if now.Before(t.Expires) {
			tokens = append(tokens, &belfryv1.TokenInfo{Id: t.ID, Expires: timestamppb.New(t.Expires), Role: t.Role, Name: t.Name, Creator: t.Creator, WrongSecrets: t.Wrong})
		}
	}
	slices.SortFunc(tokens, func(x, y *belfryv1.TokenInfo) int {
		return cmp.Or(x.GetExpires().AsTime().Compare(y.GetExpires().AsTime()), cmp.Compare(x.GetId(), y.GetId()))
	})
	return tokens
}

// Bounds of a token's life (security.md, Joining).
const (
	tokenLife    = 15 * time.Minute
	tokenLifeMin = time.Minute
	tokenLifeMax = 24 * time.Hour
)

// roleNode is the role of a token that makes a member.
const roleNode = "node"

// CreateToken makes a token; by names who asked for it.
func (a *Agent) CreateToken(ctx context.Context, by string, req *belfryv1.CreateTokenRequest) (*belfryv1.CreateTokenResponse, error) {
	record, err := newToken(by, req)
	if err != nil {
		return nil, err
	}
	table := a.members.Table()
	if len(table.CA) == 0 {
		return nil, fmt.Errorf("%w: the key of this cluster's authority is gone, nobody can join; make another cluster", belfry.ErrUnsupported)
	}
	if err := a.majority(); err != nil {
		return nil, err
	}
	authorities, err := security.ParseAuthorities(table.authorities())
	if err != nil {
		return nil, err
	}
	token := security.NewToken(table.Cluster, authorities[0])
	record.ID, record.Hash = token.ID.String(), token.Secret.Hash()
	record.Expires = a.clusterTime().Add(record.life).UTC().Truncate(time.Second)
	_, generation, err := a.commit(ctx, func(t *Table) error {
		t.dropTokens(a.clusterTime())
		if _, taken := t.named(record.Name); taken && record.Role == roleNode {
			return fmt.Errorf("%w: a node %s is a member; name another, or remove it first", belfry.ErrExist, record.Name)
		}
		t.Tokens = append(t.Tokens, record.JoinToken)
		return nil
	})
	if err != nil {
		return nil, err
	}
	select {
	case a.announce <- struct{}{}:
	default:
	}
	return &belfryv1.CreateTokenResponse{
		Token: token.Text(), Id: record.ID, Expires: timestamppb.New(record.Expires), Generation: generation,
		Addresses: a.doors(),
	}, nil
}

// A tokenRequest is a token that is to be made.
type tokenRequest struct {
	JoinToken
	life time.Duration
}

func newToken(by string, req *belfryv1.CreateTokenRequest) (tokenRequest, error) {
	t := tokenRequest{JoinToken: JoinToken{Role: cmp.Or(req.GetRole(), roleNode), Name: req.GetName(), Creator: by}, life: tokenLife}
	if req.GetTtl() != nil {
		t.life = req.GetTtl().AsDuration()
	}
	if t.life < tokenLifeMin || t.life > tokenLifeMax {
		return t, fmt.Errorf("%w: --ttl %s: a token lives %s to %s", belfry.ErrUsage, t.life, tokenLifeMin, tokenLifeMax)
	}
	switch t.Role {
	case roleNode:
		if t.Name != "" && !validName(t.Name) {
			return t, fmt.Errorf("%w: --name %q: want 1 to 63 of a-z, 0-9 and -, not first a -", belfry.ErrUsage, t.Name)
		}
	case "reader", "operator", "witness":
		if t.Name == "" {
			return t, fmt.Errorf("%w: --role %s: --name is missing: what the client is called", belfry.ErrUsage, t.Role)
		}
		if err := security.CheckClientName(t.Name); err != nil {
			return t, err
		}
	case "admin":
		return t, fmt.Errorf("%w: --role admin: a token never makes an administrator; that is whoever may use the agent's socket as root", belfry.ErrPermission)
	default:
		return t, fmt.Errorf("%w: --role %q: not known; reader, operator or witness, or leave it out for a node", belfry.ErrUsage, t.Role)
	}
	if req.GetAnnounce() == "" {
		return t, nil
	}
	if t.Role != roleNode {
		return t, fmt.Errorf("%w: --announce: only a node waits to be told; give the client an address", belfry.ErrUsage)
	}
	var err error
	t.Announce, err = announceAddress(req.GetAnnounce())
	return t, err
}

// doors are the addresses where members that are up let others in, this
// node's first.
func (a *Agent) doors() []string {
	up := a.up()
	doors := []string{a.id.node.Streams.String()}
	for _, n := range a.members.Table().Nodes {
		if up[n.ID] && n.ID != a.id.node.ID {
			doors = append(doors, n.Streams.String())
		}
	}
	return doors
}

// RevokeToken ends a token before its time.
func (a *Agent) RevokeToken(ctx context.Context, id string) (generation uint64, err error) {
	if err := a.majority(); err != nil {
		return 0, err
	}
	_, generation, err = a.commit(ctx, func(t *Table) error {
		n := len(t.Tokens)
		t.Tokens = slices.DeleteFunc(t.Tokens, func(k JoinToken) bool { return k.ID == id })
		if len(t.Tokens) == n {
			return fmt.Errorf("%w: no token %q; belfry token list shows those that there are", belfry.ErrNotFound, id)
		}
		return nil
	})
	return generation, err
}

// newsTimeout bounds the wait for the table that ends this node's membership.
const newsTimeout = time.Second

// Left tells what a removal came to.
func (a *Agent) Left(ctx context.Context, id belfry.NodeID, name string) (*belfryv1.RemoveNodeResponse, bool) {
	ctx, cancel := context.WithTimeout(ctx, newsTimeout)
	defer cancel()
	for {
		table := a.members.Table()
		if _, member := table.Node(id); !member {
			return &belfryv1.RemoveNodeResponse{
				NodeId: id.String(), NodeName: name,
				Generation: table.Generation, Epoch: table.Epoch, Members: uint32(len(table.Nodes)),
			}, true
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// RemoveNode ends a membership, and begins a new epoch of the datagram keys
// with the same generation.
func (a *Agent) RemoveNode(ctx context.Context, id belfry.NodeID, dryRun, force bool) (*belfryv1.RemoveNodeResponse, error) {
	table := a.members.Table()
	n, ok := table.Node(id)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: node %s; belfry node list shows the members", belfry.ErrNotFound, id)
	case len(table.Nodes) == 1:
		return nil, fmt.Errorf("%w: %s is the last member; to end the cluster stop its agent and remove its state directory", belfry.ErrUsage, n.Name)
	}
	resp := &belfryv1.RemoveNodeResponse{
		NodeId: n.ID.String(), NodeName: n.Name, Generation: table.Generation, Epoch: table.Epoch, Members: uint32(len(table.Nodes) - 1),
	}
	if err := a.majority(); err != nil && !force {
		return nil, err
	}
	if dryRun {
		return resp, nil
	}
	if a.storage != nil && id == a.id.node.ID {
		return a.removeElsewhere(ctx, force)
	}
	commit := a.commit
	if force {
		commit = a.commitAlone
	}
	_, generation, err := a.rotate(ctx, commit, id, func(t *Table) error {
		if _, ok := t.Node(id); !ok {
			return fmt.Errorf("%w: node %s is no member any more", belfry.ErrNotFound, n.Name)
		}
		t.remove(id)
		resp.Members = uint32(len(t.Nodes))
		return nil
	})
	if err != nil {
		return nil, err
	}
	resp.Generation, resp.Epoch = generation, table.Epoch+1
	return resp, nil
}
