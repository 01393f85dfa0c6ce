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
)

// The methods below are api.Members: who belongs to the cluster, and who may
// come. Those that change something run on the node that leads.

var _ api.Members = (*Agent)(nil)

// Tokens are those that can still be used, by the time at which they end.
func (a *Agent) Tokens() []*belfryv1.TokenInfo {
	var tokens []*belfryv1.TokenInfo
	now := time.Now()
	for _, t := range a.members.Table().Tokens {
		if now.Before(t.Expires) {
			tokens = append(tokens, &belfryv1.TokenInfo{Id: t.ID, Expires: timestamppb.New(t.Expires), Role: t.Role, Name: t.Name, Creator: t.Creator})
		}
	}
	slices.SortFunc(tokens, func(x, y *belfryv1.TokenInfo) int {
		return cmp.Or(x.GetExpires().AsTime().Compare(y.GetExpires().AsTime()), cmp.Compare(x.GetId(), y.GetId()))
	})
	return tokens
}

// RevokeToken ends a token before its time.
func (a *Agent) RevokeToken(ctx context.Context, id string) (generation uint64, err error) {
	_, generation, err = a.commit(ctx, func(t *Table) error {
		n := len(t.Tokens)
		t.Tokens = slices.DeleteFunc(t.Tokens, func(k JoinToken) bool { return k.ID == id })
		if len(t.Tokens) == n {
			return fmt.Errorf("%w: no token %q; belfry token list shows those that can still be used", belfry.ErrNotFound, id)
		}
		return nil
	})
	return generation, err
}

// RemoveNode ends a membership, and begins a new epoch of the datagram keys
// with the same generation.
func (a *Agent) RemoveNode(ctx context.Context, id belfry.NodeID, dryRun bool) (*belfryv1.RemoveNodeResponse, error) {
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
	if dryRun {
		return resp, nil
	}
	_, generation, err := a.rotate(ctx, id, func(t *Table) error {
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

func (a *Agent) CreateToken(ctx context.Context, by string, req *belfryv1.CreateTokenRequest) (*belfryv1.CreateTokenResponse, error) {
	return nil, belfry.ErrUnsupported
}

func (a *Agent) RotateCA(ctx context.Context) (*belfryv1.RotateCAResponse, error) {
	return nil, belfry.ErrUnsupported
}
