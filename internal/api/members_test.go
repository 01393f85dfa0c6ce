package api

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func TestTokensAndMembersAreForAdministrators(t *testing.T) {
	t.Parallel()
	calls := map[string]func(*client.Client) error{
		"create": func(c *client.Client) error {
			_, err := c.CreateToken(t.Context(), client.TokenRequest{})
			return err
		},
		"list":   func(c *client.Client) error { _, err := c.Tokens(t.Context()); return err },
		"revoke": func(c *client.Client) error { _, err := c.RevokeToken(t.Context(), "0a"); return err },
		"remove": func(c *client.Client) error { _, err := c.RemoveNode(t.Context(), "b", false); return err },
		"leave":  func(c *client.Client) error { _, err := c.RemoveNode(t.Context(), "", true); return err },
		"rotate": func(c *client.Client) error { _, err := c.RotateCA(t.Context()); return err },

		"client list":   func(c *client.Client) error { _, err := c.Clients(t.Context()); return err },
		"client remove": func(c *client.Client) error { _, err := c.RemoveClient(t.Context(), "web", false); return err },
		"role list":     func(c *client.Client) error { _, err := c.Grants(t.Context()); return err },
		"role set": func(c *client.Client) error {
			_, err := c.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: "uid:1", Role: "reader", DryRun: true})
			return err
		},
	}
	for _, who := range []Subject{admin, operator, reader} {
		c := startAgent(t, who).dial(t)
		for name, call := range calls {
			switch err := call(c); {
			case who.Role == belfry.RoleAdmin && err != nil:
				t.Errorf("%s by an administrator: %v", name, err)
			case who.Role != belfry.RoleAdmin && !errors.Is(err, belfry.ErrPermission):
				t.Errorf("%s by %s: %v; want ErrPermission", name, who, err)
			}
		}
	}
}

func TestErrorsOfMembersNameTheirSubject(t *testing.T) {
	t.Parallel()
	c := startAgent(t, admin).dial(t)
	for name, tt := range map[string]struct {
		call func() error
		is   error
		text string
	}{
		"a role that there is not": {func() error {
			_, err := c.CreateToken(t.Context(), client.TokenRequest{Role: "admin"})
			return err
		}, belfry.ErrUsage, "role admin"},
		"a token that there is not":  {func() error { _, err := c.RevokeToken(t.Context(), "ff"); return err }, belfry.ErrNotFound, `no token "ff"`},
		"a node that there is not":   {func() error { _, err := c.RemoveNode(t.Context(), "z", true); return err }, belfry.ErrNotFound, "z"},
		"a client that there is not": {func() error { _, err := c.RemoveClient(t.Context(), "z", true); return err }, belfry.ErrNotFound, `no client "z"`},
		"the last member":            {func() error { _, err := c.RemoveNode(t.Context(), "a", false); return err }, belfry.ErrUsage, "last member"},
	} {
		if err := tt.call(); !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v; want %v with %q", name, err, tt.is, tt.text)
		}
	}
}

// elsewhere is a cluster whose changes are made by node b.
type elsewhere struct{ b *Server }

func (e *elsewhere) Lead(ctx context.Context, method string, request proto.Message, _ func(context.Context) error, response proto.Message) error {
	body, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	change := e.b.Changes()[method]
	if change == nil {
		return fmt.Errorf("%w: %s", belfry.ErrUnsupported, method)
	}
	answer, err := change(ctx, "a", body)
	if err != nil {
		return err
	}
	proto.Merge(response, answer)
	return nil
}

func (*elsewhere) Unconfirmed(uint64) []string { return nil }

func TestChangesAreMadeByTheLeader(t *testing.T) {
	t.Parallel()
	b := startAgent(t, nobody)
	a := &agent{
		events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(t.TempDir(), "s"), subject: admin,
		leader: &elsewhere{b.Server},
	}
	a.start(t)
	c := a.dial(t)
	token, err := c.CreateToken(t.Context(), client.TokenRequest{})
	if err != nil || !slices.Equal(token.GetAddresses(), []string{"node a"}) {
		t.Errorf("token: %v, %v; want that node a is who asked", token, err)
	}
	left, err := c.RemoveNode(t.Context(), "", true)
	if err != nil || left.GetNodeId() != nodeA.String() {
		t.Errorf("leave: %v, %v; want that it is a who leaves", left, err)
	}
	if _, err := c.RemoveNode(t.Context(), "z", true); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("remove z: %v; want ErrNotFound", err)
	}
	if set, err := c.SetConfig(t.Context(), "tunables.x", "2", false); err != nil || !set.GetChanged() {
		t.Errorf("set: %v, %v", set, err)
	}
	for method, change := range b.Changes() {
		if _, err := change(t.Context(), "a", []byte{0xff}); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s, malformed: %v; want ErrUsage", method, err)
		}
	}
}
