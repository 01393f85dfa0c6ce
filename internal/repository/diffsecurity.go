package repository

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

func (d *differ) roles() {
	text := func(g *Grant) string {
		return strings.Join(g.Subjects, ", ") + ": " + strings.Join(append(nonEmpty(g.Role), g.Allow...), ", ")
	}
	rows := func(all []Grant) map[string]int {
		n := map[string]int{}
		for i := range all {
			n[text(&all[i])]++
		}
		return n
	}
	a, b := rows(d.a.Roles), rows(d.b.Roles)
	for _, k := range keysOf(a) {
		if b[k] < a[k] {
			d.sayf("roles", "the grant to %s is removed", k)
		}
	}
	for _, k := range keysOf(b) {
		if a[k] < b[k] {
			d.sayf("roles", "the grant to %s is added", k)
		}
	}
	d.order("roles", "grants", orderOf(d.a.Roles, text), orderOf(d.b.Roles, text))
	before, after := rolesOf(d.a), rolesOf(d.b)
	for _, s := range keysOf(before) {
		if after[s] < before[s] {
			d.follows("roles", "%s is %s no more", s, before[s])
		}
	}
	for _, s := range keysOf(after) {
		if after[s] > before[s] {
			d.follows("roles", "%s becomes %s", s, after[s])
		}
	}
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// rolesOf is the greatest role that each subject is given, by grants and by
// the list of the clients.
func rolesOf(d *Document) map[string]belfry.Role {
	all := map[string]belfry.Role{}
	give := func(subject, role string) {
		r, err := belfry.ParseRole(role)
		if err == nil {
			all[subject] = max(all[subject], r)
		}
	}
	for _, g := range d.Roles {
		for _, s := range g.Subjects {
			give(s, g.Role)
		}
	}
	for _, c := range d.Security.Clients {
		give("client:"+c.Name, c.Role)
	}
	return all
}

// security tells who may be in the cluster, and that keys changed, not how.
func (d *differ) security() {
	d.authorities()
	d.tokens()
	a, b := d.a.Security, d.b.Security
	name := func(c *Client) string { return c.Name }
	keyed(d, list[Client]{"security", "client", "clients", name, byName}, withoutKeys(a.Clients), withoutKeys(b.Clients))
	d.clientKeys(a.Clients, b.Clients)
	d.ended(orderOf(a.Clients, name), orderOf(b.Clients, name), "security", "client %s is refused")
	for _, s := range missingIn(b.Revoked, a.Revoked) {
		d.sayf("security", "certificate %s is revoked", s)
	}
	for _, s := range missingIn(a.Revoked, b.Revoked) {
		d.sayf("security", "certificate %s is revoked no more", s)
	}
	d.order("security", "revoked certificates", a.Revoked, b.Revoked)
	d.fields("security", "datagram keys", a.Datagram, b.Datagram)
}

func (d *differ) authorities() {
	a, b := &d.a.Security, &d.b.Security
	text := func(all [][]byte) (out []string) {
		for _, c := range all {
			out = append(out, string(c))
		}
		return out
	}
	was, is := text(a.CA), text(b.CA)
	for range missingIn(is, was) {
		d.sayf("security", "an authority is added")
	}
	for range missingIn(was, is) {
		d.sayf("security", "an authority is removed")
		d.follows("security", "certificates under the authority that is removed are refused")
	}
	d.order("security", "authorities", was, is)
	d.say("security", changeOf("the second authority", "is to sign", "", a.CANext, b.CANext))
	d.say("security", changeOf("the authority's key", "may be known to a node that was removed", "", a.CAExposed, b.CAExposed))
	if b.CAExposed && !a.CAExposed {
		d.follows("security", "the authority is replaced")
	}
	key := func(k *SealedKey) string { return k.CA.String() + d.nameOf(k) }
	before, after := indexed(a.CAKeys, key), indexed(b.CAKeys, key)
	for _, k := range keysOf(before) {
		if after[k] == nil {
			d.sayf("security", "an authority's key is taken from %s", d.nameOf(before[k]))
		}
	}
	for _, k := range keysOf(after) {
		switch was := before[k]; {
		case was == nil:
			d.sayf("security", "an authority's key is sealed to %s", d.nameOf(after[k]))
		case !bytes.Equal(was.Sealed, after[k].Sealed):
			d.sayf("security", "an authority's key is sealed to %s anew", d.nameOf(after[k]))
		}
	}
	d.order("security", "sealed keys", orderOf(a.CAKeys, key), orderOf(b.CAKeys, key))
	if len(a.CAKeys) > 0 && len(b.CAKeys) == 0 {
		d.follows("security", "no node can sign certificates; an administrator signs with the key that was kept elsewhere")
	}
}

// nameOf is the holder's name, or its id if it has gone.
func (d *differ) nameOf(k *SealedKey) string {
	for _, doc := range []*Document{d.b, d.a} {
		for i := range doc.Nodes {
			if doc.Nodes[i].ID == k.Holder {
				return doc.Nodes[i].Name
			}
		}
	}
	return k.Holder.String()
}

func (d *differ) tokens() {
	a, b := d.a.Security.Tokens, d.b.Security.Tokens
	id := func(t *Token) string { return t.ID }
	before, after := indexed(a, id), indexed(b, id)
	for _, k := range keysOf(before) {
		if after[k] == nil {
			d.sayf("security", "a join token for role %s is used up, revoked or over", before[k].Role)
		}
	}
	for _, k := range keysOf(after) {
		switch was, is := before[k], after[k]; {
		case was == nil:
			d.sayf("security", "a join token for role %s is made, until %s", is.Role, is.Expires.Format(time.RFC3339))
		case !same(was, is):
			d.sayf("security", "a join token for role %s is changed", is.Role)
		}
	}
	d.order("security", "join tokens", orderOf(a, id), orderOf(b, id))
}

// withoutKeys are the clients, with nothing to be said of their keys.
func withoutKeys(all []Client) []Client {
	all = slices.Clone(all)
	for i := range all {
		all[i].Keys = nil
	}
	return all
}

// clientKeys tells of those that stay which certificates may use their name.
func (d *differ) clientKeys(a, b []Client) {
	name := func(c *Client) string { return c.Name }
	before := indexed(a, name)
	for i := range b {
		if was := before[b[i].Name]; was != nil && !same(was.Keys, b[i].Keys) && len(was.Keys)+len(b[i].Keys) > 0 {
			d.sayf("security", "the keys of client %s are changed", b[i].Name)
		}
	}
}
