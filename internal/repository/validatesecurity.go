package repository

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"

	"github.com/belfry-ha/belfry"
)

// roles wants words that are known. What a pattern of classes covers is judged
// by who decides rights.
func (v *validator) roles() {
	for i, g := range v.Roles {
		path := fmt.Sprintf("roles[%d]", i)
		v.want(len(g.Subjects) > 0, path+".subjects", "none; want uid:NUMBER, group:NAME or client:NAME")
		v.want(g.Role != "" || len(g.Allow) > 0, path, "grants nothing; want role or allow")
		if g.Role != "" {
			v.role(path+".role", g.Role)
		}
		for j, s := range g.Subjects {
			v.subject(fmt.Sprintf("%s.subjects[%d]", path, j), s)
		}
		for j, s := range g.Allow {
			verb, class, _ := strings.Cut(s, ":")
			v.want(verb == "observe" && strings.Contains(class, ".") || verb == "emit" && strings.HasPrefix(class, "user."),
				fmt.Sprintf("%s.allow[%d]", path, j), "%q; want observe:CLASS, observe:CLASS@own or emit:user.NAME", s)
		}
	}
}

func (v *validator) subject(path, s string) {
	kind, name, _ := strings.Cut(s, ":")
	uid, err := strconv.ParseUint(name, 10, 32)
	ok := kind == "uid" && err == nil && strconv.FormatUint(uid, 10) == name || (kind == "group" || kind == "client") && name != ""
	v.want(ok, path, "%q; want uid:NUMBER, group:NAME or client:NAME", s)
}

// role wants one that can be given to somebody.
func (v *validator) role(path, s string) {
	_, err := belfry.ParseRole(s)
	v.want(err == nil && s != belfry.RoleNone.String(), path, "%q; want reader, witness, operator or admin", s)
}

func (v *validator) security() {
	s := &v.Security
	known := map[Digest]bool{}
	for i, c := range s.CA {
		v.want(len(c) > 0, fmt.Sprintf("security.ca[%d]", i), "is empty; want a certificate in DER")
		known[sha256.Sum256(c)] = true
	}
	v.want(!s.CANext || len(s.CA) == 2, "security.ca_next", "with %d authorities; want it with the two of a rotation", len(s.CA))
	for i, k := range s.CAKeys {
		path := fmt.Sprintf("security.ca_keys[%d]", i)
		v.want(known[k.CA], path+".ca", "no authority has that certificate; want one of security.ca")
		v.want(v.ids[k.Holder], path+".holder", "%s is no member; want one of nodes", k.Holder)
	}
	v.tokens()
	v.clients()
	serials := map[string]bool{}
	for i, serial := range s.Revoked {
		path := fmt.Sprintf("security.revoked[%d]", i)
		v.want(hexadecimal(serial), path, "%q; want the serial in hexadecimal digits", serial)
		v.unique(serials, path, serial)
	}
}

func (v *validator) tokens() {
	ids := map[string]bool{}
	for i, k := range v.Security.Tokens {
		path := fmt.Sprintf("security.tokens[%d]", i)
		v.want(len(k.ID) == 16 && hexadecimal(k.ID), path+".id", "%q; want 16 hexadecimal digits", k.ID)
		v.unique(ids, path+".id", k.ID)
		v.want(!k.Expires.IsZero(), path+".expires", "missing; want the time it ends")
		v.word(path+".role", k.Role, "node", belfry.RoleReader.String(), belfry.RoleWitness.String(), belfry.RoleOperator.String())
		if k.Name != "" && k.Role == "node" {
			v.name(path+".name", k.Name)
		}
		for j, a := range k.Announce {
			v.address(fmt.Sprintf("%s.announce[%d]", path, j), a)
		}
	}
}

func (v *validator) clients() {
	names := map[string]bool{}
	for i, c := range v.Security.Clients {
		path := fmt.Sprintf("security.clients[%d]", i)
		v.want(c.Name != "", path+".name", "missing; want that of its certificates")
		v.unique(names, path+".name", c.Name)
		v.role(path+".role", c.Role)
		if c.TokenRole != "" {
			v.role(path+".token_role", c.TokenRole)
		}
		keys := map[string]bool{}
		for j, k := range c.Keys {
			v.unique(keys, fmt.Sprintf("%s.keys[%d].key", path, j), k.Key.String())
			v.want(k.Serial == "" || hexadecimal(k.Serial), fmt.Sprintf("%s.keys[%d].serial", path, j), "%q; want hexadecimal digits", k.Serial)
		}
	}
}

// hexadecimal tells whether s has nothing but lower-case hexadecimal digits.
func hexadecimal(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdef") == "" }
