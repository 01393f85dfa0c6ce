package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
)

// A ClientRole is a client of the API: the role of the name in its
// certificates, and the keys that may use that name.
type ClientRole struct {
	Name string `json:"name"`
	Role string `json:"role"` // reader, witness, operator or admin

	// TokenRole is what its token said, if somebody has given it another role
	// since. Empty: Role is.
	TokenRole string `json:"token_role,omitempty"`

	// Keys are those that count, the newest last: each join in its name brings
	// one. None: every key under the name does, as in tables of older agents.
	Keys []ClientKey `json:"keys,omitempty"`
}

// A ClientKey is one key of a client, with what is known of its certificate and
// of how it came.
type ClientKey struct {
	Key     Digest    `json:"key"`              // SHA-256 of the public key
	Serial  string    `json:"serial,omitempty"` // of the certificate, in hexadecimal digits
	Expires time.Time `json:"expires,omitzero"` // of the certificate
	Joined  time.Time `json:"joined,omitzero"`  // zero: it was made with the cluster
	Token   string    `json:"token,omitempty"`  // id of the token that it joined with; empty: likewise
}

// UnmarshalJSON also takes the digest alone.
func (k *ClientKey) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		return json.Unmarshal(data, &k.Key)
	}
	type plain ClientKey // without this method
	return json.Unmarshal(data, (*plain)(k))
}

// newClientKey describes a certificate.
func newClientKey(c *x509.Certificate) ClientKey {
	public, _ := c.PublicKey.(ed25519.PublicKey) // no authority of this program signs others
	return ClientKey{Key: sha256.Sum256(public), Serial: c.SerialNumber.Text(16), Expires: c.NotAfter.UTC()}
}

const (
	maxClients = 1024
	// maxClientKeys is how many keys of a client count; the oldest goes for a new
	// one.
	maxClientKeys = 16
)

// client finds one by its name; -1: there is none.
func (t *Table) client(name string) int {
	return slices.IndexFunc(t.Clients, func(c ClientRole) bool { return c.Name == name })
}

// addClient lists a client that has joined now with a token of that role, or
// its next key. Keys whose certificates have ended make room.
func (t *Table) addClient(name, role string, key ClientKey) error {
	i := t.client(name)
	if i < 0 {
		if len(t.Clients) >= maxClients {
			return fmt.Errorf("%w: %d clients are listed, at most %d; remove some: belfry client remove NAME", belfry.ErrLimit, len(t.Clients), maxClients)
		}
		t.takeGrants(clientSubject + name) // what is left from an older agent's removal
		t.Clients = append(t.Clients, ClientRole{Name: name, Role: role, Keys: []ClientKey{key}})
		return nil
	}
	c := t.Clients[i]
	if was := c.tokenRole(); was != role {
		return fmt.Errorf("%w: client %s joined as %s; remove it first: belfry client remove %s", belfry.ErrExist, name, was, name)
	}
	if len(c.Keys) == 0 { // all count, those of older agents too
		return nil
	}
	var keys []ClientKey
	for _, k := range c.Keys {
		if k.Key != key.Key && (k.Expires.IsZero() || k.Expires.After(key.Joined)) {
			keys = append(keys, k)
		}
	}
	keys = append(keys, key)
	t.Clients[i].Keys = keys[max(0, len(keys)-maxClientKeys):]
	return nil
}

func (c ClientRole) tokenRole() string { return cmp.Or(c.TokenRole, c.Role) }

// knows tells whether a key, by its SHA-256, may use the client's name.
func (c ClientRole) knows(key Digest) bool {
	return len(c.Keys) == 0 || slices.ContainsFunc(c.Keys, func(k ClientKey) bool { return k.Key == key })
}

// removeClient takes a client out, with all that was given to its name: who
// gets the name next has none of it.
func (t *Table) removeClient(name string) {
	t.takeGrants(clientSubject + name)
	t.Clients = slices.DeleteFunc(t.Clients, func(c ClientRole) bool { return c.Name == name })
}

// lists tells whether a client may come by that name and key.
func (t *Table) lists(name string, key Digest) bool {
	i := t.client(name)
	return i >= 0 && t.Clients[i].knows(key)
}

// clientListed refuses a client that the member table does not list with that
// key, so that taking it out there takes its rights at once, also when another
// client gets its name.
func (a *Agent) clientListed(name string, public ed25519.PublicKey) error {
	if a.members.Table().lists(name, sha256.Sum256(public)) {
		return nil
	}
	return fmt.Errorf("%w: no client %q is listed with this key; it was removed, or never joined: belfry token create --role ROLE --name %s", belfry.ErrPermission, name, name)
}

// Clients are those that hold a certificate, by name.
func (a *Agent) Clients() []*belfryv1.ClientInfo {
	table := a.members.Table()
	var all []*belfryv1.ClientInfo
	for _, c := range table.Clients {
		all = append(all, table.clientInfo(c))
	}
	slices.SortFunc(all, func(x, y *belfryv1.ClientInfo) int { return strings.Compare(x.GetName(), y.GetName()) })
	return all
}

func (t *Table) clientInfo(c ClientRole) *belfryv1.ClientInfo {
	info := &belfryv1.ClientInfo{Name: c.Name, Role: c.Role, TokenRole: c.tokenRole()}
	for _, g := range t.grantsOf(clientSubject + c.Name) {
		info.Role = strongest(info.GetRole(), g.Role)
		info.Allow = append(info.Allow, g.Allow...)
	}
	for _, k := range slices.Backward(c.Keys) {
		key := &belfryv1.ClientCertificate{Serial: k.Serial, Token: k.Token}
		if !k.Expires.IsZero() {
			key.Expires = timestamppb.New(k.Expires)
		}
		if !k.Joined.IsZero() {
			key.Joined = timestamppb.New(k.Joined)
		}
		info.Certificates = append(info.Certificates, key)
	}
	return info
}

// strongest is the more powerful of two roles by name; a name of a newer version
// gives nothing here.
func strongest(x, y string) string {
	a, _ := belfry.ParseRole(x)
	if b, err := belfry.ParseRole(y); err == nil && b > a {
		return y
	}
	return x
}

// RemoveClient takes a client out of the table: from then on every node
// refuses it, and its streams and connections end.
func (a *Agent) RemoveClient(ctx context.Context, name string, dryRun, force bool) (*belfryv1.RemoveClientResponse, error) {
	resp := &belfryv1.RemoveClientResponse{}
	changed, err := a.change(ctx, changing{dryRun, force}, func(t *Table) error {
		i := t.client(name)
		if i < 0 {
			return t.noClient(name)
		}
		resp.Client = t.clientInfo(t.Clients[i])
		t.removeClient(name)
		return nil
	})
	resp.Generation = changed.Generation
	return resp, err
}

func (t *Table) noClient(name string) error {
	var known []string
	for _, c := range t.Clients {
		known = append(known, c.Name)
	}
	if near, ok := config.Nearest(name, known); ok {
		return fmt.Errorf("%w: no client %q; did you mean %s?", belfry.ErrNotFound, name, near)
	}
	return fmt.Errorf("%w: no client %q; belfry client list shows them", belfry.ErrNotFound, name)
}
