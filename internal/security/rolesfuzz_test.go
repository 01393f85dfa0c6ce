package security

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

// modelDecides says the same as Decide, from the rows as they are written and
// from the sentences of security.md, without an index.
func modelDecides(rows []Grant, clients map[string]belfry.Role, c Caller, ask Ask) bool {
	roles := []belfry.Role{c.Role}
	if !c.Fixed {
		roles = append(roles, clients[c.Client])
	}
	for _, row := range rows {
		if c.Fixed || !slices.ContainsFunc(row.Subjects, func(s string) bool { return modelIs(c, s) }) {
			continue
		}
		role, _ := belfry.ParseRole(row.Role)
		roles = append(roles, role)
		for _, text := range row.Allow {
			verb, class, _ := strings.Cut(text, ":")
			class, own := strings.CutSuffix(class, "@own")
			begin, all := strings.CutSuffix(class, "*")
			right := map[string]belfry.Right{"observe": belfry.RightObserve, "emit": belfry.RightOperate}[verb]
			named := class == ask.Class || all && strings.HasPrefix(ask.Class, begin)
			if right == ask.Right && (ask.Entry || named && (!own || ask.Own && !ask.Remote)) {
				return true
			}
		}
	}
	return slices.ContainsFunc(roles, func(r belfry.Role) bool { return modelRole(r, ask) })
}

func modelIs(c Caller, subject string) bool {
	if c.Client != "" {
		return subject == "client:"+c.Client
	}
	return subject == map[uint32]string{1000: "uid:1000", 1001: "uid:1001"}[c.UID] || subject == "group:dba" && slices.Contains(c.Groups, 70)
}

func modelRole(r belfry.Role, ask Ask) bool {
	noun, _, _ := strings.Cut(ask.Class, ".")
	switch {
	case r == belfry.RoleAdmin:
		return ask.Right <= belfry.RightOwn
	case r == belfry.RoleOperator:
		return ask.Right <= belfry.RightConfigure
	case r == belfry.RoleWitness:
		return ask.Right == belfry.RightRegisterWitness || ask.Right == belfry.RightObserve && (ask.Entry || noun == "resource")
	case r != belfry.RoleReader || ask.Right != belfry.RightObserve:
		return false
	case slices.Contains([]string{"process", "file", "dir", "unit", "socket"}, noun):
		return ask.Entry || ask.Own && !ask.Remote
	}
	return ask.Entry || noun != "user" && noun != "security" && noun != "nodes" && noun != "*"
}

// FuzzRoles reads rows as the configuration has them. What is refused grants
// nothing; else Decide says what the model says.
func FuzzRoles(f *testing.F) {
	f.Add([]byte(`[{"subjects":["uid:1000"],"role":"reader"}]`), uint64(0))
	f.Add([]byte(`[{"subjects":["group:dba","client:web"],"allow":["observe:process.*@own","emit:user.backup"]}]`), uint64(1<<20-7))
	f.Add([]byte(`[{"subjects":["uid:1001"],"role":"admin","allow":["observe:user.a.*"]}]`), uint64(98765))
	classes := []string{"", "node.state", "process.exit", "process.*", "user.backup", "user.a.b", "resource.moved", "security.denied", "nodes.state", "*"}
	callers := []Caller{{UID: 1000}, {UID: 1001, Groups: []uint32{70}}, {UID: 2, Groups: []uint32{3, 70}}, {Client: "web"}, {Client: "ci", UID: 1000}, {Client: "web", Fixed: true}}
	clients := map[string]belfry.Role{"ci": belfry.RoleWitness}
	f.Fuzz(func(t *testing.T, data []byte, pick uint64) {
		var rows []Grant
		if json.Unmarshal(data, &rows) != nil {
			return
		}
		p, err := NewPolicy(rows, clients, localGroup)
		if err != nil {
			rows = slices.DeleteFunc(rows, func(g Grant) bool { return CheckGrants([]Grant{g}) != nil })
			if p, err = NewPolicy(rows, clients, localGroup); err != nil {
				return // good rows, but too many
			}
		}
		next := func(n uint64) uint64 { x := pick % n; pick /= n; return x }
		c := callers[next(uint64(len(callers)))]
		c.Role = belfry.Role(next(5))
		ask := Ask{Right: belfry.Right(next(8)), Class: classes[next(uint64(len(classes)))], Own: next(2) == 1, Remote: next(2) == 1, Entry: next(2) == 1}
		if _, got := p.Decide(c, ask); got != modelDecides(rows, clients, c, ask) {
			t.Errorf("%s\n%+v, %+v: %t; the model says otherwise", data, c, ask, got)
		}
	})
}
