package security

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/belfry-ha/belfry"
)

// A Grant is one row of the configuration's section roles: it gives subjects a
// role, or single rights, or both.
type Grant struct {
	Subjects []string `json:"subjects"`        // uid:1000, group:dba, client:web
	Role     string   `json:"role,omitempty"`  // reader, witness, operator or admin
	Allow    []string `json:"allow,omitempty"` // observe:process.*@own, emit:user.backup
}

// Limits of the section roles.
const (
	maxGrants        = 256
	maxGrantSubjects = 64
	maxAllows        = 64 // of one subject
)

// A Policy is the configuration's word on who may do what, in the form in
// which it is asked. It never changes and is safe for concurrent use. The zero
// Policy grants nothing.
type Policy struct {
	users   map[uint32]*held
	groups  map[uint32]*held
	clients map[string]*held
}

// NewPolicy reads the section roles and the roles of the clients, by name.
// group gives the number of a local group; one that does not exist here grants
// nothing, nor does number 0. The error names all that is wrong and wraps
// ErrUsage or ErrLimit; the policy holds the rest.
func NewPolicy(grants []Grant, clients map[string]belfry.Role, group func(name string) (uint32, bool)) (*Policy, error) {
	p := &Policy{users: map[uint32]*held{}, groups: map[uint32]*held{}, clients: map[string]*held{}}
	for name, role := range clients {
		hold(p.clients, name).roles |= setOf(role)
	}
	if len(grants) > maxGrants {
		return p, fmt.Errorf("%w: roles: %d rows; at most %d", belfry.ErrLimit, len(grants), maxGrants)
	}
	var wrong []error
	for i, g := range grants {
		if err := p.add(g, group); err != nil {
			wrong = append(wrong, fmt.Errorf("roles: row %d: %w", i+1, err))
		}
	}
	return p, errors.Join(wrong...)
}

// CheckGrant is the error of NewPolicy for one row alone, without its number.
func CheckGrant(g Grant) error {
	return (&Policy{users: map[uint32]*held{}, groups: map[uint32]*held{}, clients: map[string]*held{}}).add(g, noGroup)
}

// noGroup is for whoever only checks.
func noGroup(string) (uint32, bool) { return 0, false }

// CheckGrants is the error of NewPolicy, for whoever only validates.
func CheckGrants(grants []Grant) error {
	_, err := NewPolicy(grants, nil, noGroup)
	return err
}

func hold[K comparable](m map[K]*held, key K) *held {
	h := m[key]
	if h == nil {
		h = new(held)
		m[key] = h
	}
	return h
}

// add reads the whole row before it grants anything of it.
func (p *Policy) add(g Grant, group func(string) (uint32, bool)) error {
	if n := len(g.Subjects); n == 0 || n > maxGrantSubjects {
		return fmt.Errorf("%w: %d subjects; 1 to %d", belfry.ErrUsage, n, maxGrantSubjects)
	}
	if g.Role == "" && len(g.Allow) == 0 {
		return fmt.Errorf("%w: it grants nothing; add role or allow", belfry.ErrUsage)
	}
	var role belfry.Role
	var rules []allow
	var err error
	if g.Role != "" {
		if role, err = belfry.ParseRole(g.Role); err != nil {
			return err
		}
	}
	for _, text := range g.Allow {
		rule, err := parseAllow(text)
		if err != nil {
			return err
		}
		rules = append(rules, rule)
	}
	var to []*held
	for _, text := range g.Subjects {
		h, err := p.subject(text, group)
		if err != nil {
			return err
		}
		if len(h.allows)+len(rules) > maxAllows {
			return fmt.Errorf("%w: more than %d allows for %s; grant a role, or a pattern like process.*", belfry.ErrLimit, maxAllows, text)
		}
		to = append(to, h)
	}
	for _, h := range to {
		h.roles |= setOf(role)
		h.allows = append(h.allows, rules...)
	}
	return nil
}

// subject finds the place of one subject. Of a group that does not exist here
// it is a place where nobody looks.
func (p *Policy) subject(text string, group func(string) (uint32, bool)) (*held, error) {
	kind, name, _ := strings.Cut(text, ":")
	switch {
	case kind == "uid":
		uid, err := strconv.ParseUint(name, 10, 32)
		if err != nil || strconv.FormatUint(uid, 10) != name {
			return nil, fmt.Errorf("%w: %q is no user; write uid:NUMBER", belfry.ErrUsage, text)
		}
		return hold(p.users, uint32(uid)), nil
	case kind == "group" && name != "":
		if gid, ok := group(name); ok && gid != 0 {
			return hold(p.groups, gid), nil
		}
		return new(held), nil
	case kind == "client" && CheckClientName(name) == nil:
		return hold(p.clients, name), nil
	}
	return nil, fmt.Errorf("%w: subject %q; uid:NUMBER, group:NAME or client:NAME", belfry.ErrUsage, text)
}

// parseAllow reads observe:CLASS, observe:CLASS@own or emit:user.NAME; the
// class may end with a star behind a dot.
func parseAllow(text string) (a allow, err error) {
	wrong := func(why string) (allow, error) {
		return allow{}, fmt.Errorf("%w: allow %q: %s; observe:CLASS, observe:CLASS@own or emit:user.NAME, where CLASS may be like process.*", belfry.ErrUsage, text, why)
	}
	verb, class, _ := strings.Cut(text, ":")
	switch class, a.own = strings.CutSuffix(class, "@own"); {
	case verb == "observe":
		a.right = belfry.RightObserve
	case verb == "emit" && a.own:
		return wrong("emit has no owner")
	case verb == "emit" && !strings.HasPrefix(class, "user."):
		return wrong("only events below user are for users to send")
	case verb == "emit":
		a.right = belfry.RightOperate
	default:
		return wrong("it is neither observe nor emit")
	}
	a.class, a.all = strings.CutSuffix(class, "*")
	noun, rest, dotted := strings.Cut(a.class, ".")
	if noun == "" || !dotted || a.all && rest != "" && !strings.HasSuffix(rest, ".") || !a.all && rest == "" || strings.Contains(a.class, "*") {
		return wrong("not a class")
	}
	return a, nil
}
