package repository

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// maxProblems is how many are told at once.
const maxProblems = 20

// problems are what is wrong with a document, each with its path.
type problems struct {
	found []error
	more  int
}

// add takes an error that has its sentinel.
func (p *problems) add(path string, err error) {
	if err == nil {
		return
	}
	if len(p.found) == maxProblems {
		p.more++
		return
	}
	if path != "" {
		err = fmt.Errorf("%s: %w", path, err)
	}
	p.found = append(p.found, err)
}

// usage says what is wrong; what would be right.
func (p *problems) usage(path, format string, args ...any) {
	p.add(path, fmt.Errorf("%w: %s", belfry.ErrUsage, fmt.Sprintf(format, args...)))
}

// want is usage unless ok.
func (p *problems) want(ok bool, path, format string, args ...any) {
	if !ok {
		p.usage(path, format, args...)
	}
}

func (p *problems) err() error {
	if p.more > 0 {
		last := len(p.found) - 1
		p.found[last] = fmt.Errorf("%w: and %d more problems; correct these first", belfry.ErrUsage, p.more+1)
	}
	return errors.Join(p.found...)
}

// keysOf are the keys of a map, sorted.
func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Validate names what is wrong with a document, at most 20 problems by their
// paths: first against the limits of its fields, then in its meaning. Each
// wraps ErrUsage or ErrLimit; ErrUnsupported stands for a newer schema.
//
// What the tunables mean is judged by a function, which the agent's table of
// them is behind; nil: they are not judged. Certificates, sealed keys and
// licenses are opaque here.
func (d *Document) Validate(tunables func(map[string]string) error) error {
	if d.Schema > Schema {
		return fail("validate", "", fmt.Errorf("%w: schema %d; this agent knows up to %d", belfry.ErrUnsupported, d.Schema, Schema))
	}
	v := validator{Document: d, names: map[string]bool{}, ids: map[belfry.NodeID]bool{}, networks: map[string]netip.Prefix{}}
	measure(reflect.ValueOf(*d), "", limits{}, &v.problems)
	for _, n := range d.Nodes {
		v.names[n.Name], v.ids[n.ID] = true, true
	}
	v.want(d.Schema >= 1, "schema", "0; want 1 to %d", Schema)
	v.cluster()
	v.networkList()
	v.nodeList()
	v.formerList()
	v.linkList()
	v.storage()
	if tunables != nil {
		v.add("", tunables(d.Tunables))
	}
	v.resources()
	v.witness()
	v.linked()
	v.handlers()
	v.licenses()
	v.roles()
	v.security()
	v.machine()
	if err := v.err(); err != nil {
		return fail("validate", "", err)
	}
	return nil
}

// ValidateWitness names what is wrong with the sections resources and witness
// alone, where the names of the nodes are those in the document. Errors are as
// those of Validate.
func (d *Document) ValidateWitness() error {
	v := validator{Document: d, names: map[string]bool{}}
	measure(reflect.ValueOf(Document{Resources: d.Resources, Witness: d.Witness}), "", limits{}, &v.problems)
	for _, n := range d.Nodes {
		v.names[n.Name] = true
	}
	v.resources()
	v.witness()
	return v.err()
}

// A validator goes through a document section by section.
type validator struct {
	*Document
	problems
	names    map[string]bool        // of the nodes
	ids      map[belfry.NodeID]bool // of the nodes
	networks map[string]netip.Prefix
}

func (v *validator) cluster() {
	v.want(!v.Cluster.UUID.IsZero(), "cluster.uuid", "missing; want that of the cluster")
	for _, n := range v.Nodes {
		if last := v.Cluster.LastNumber; last != 0 && n.Number > last {
			v.usage("cluster.last_number", "%d; node %s has number %d, want the highest that was ever granted", last, n.Name, n.Number)
			return
		}
	}
}

// machine judges the sections that no person changes.
func (v *validator) machine() {
	v.operations()
	if len(v.History) == 0 {
		v.usage("history", "is empty; want an entry for this generation")
	}
	for i, e := range v.History {
		path := fmt.Sprintf("history[%d]", i)
		v.generation(path+".generation", e.Generation)
		v.want(i == 0 || e.Generation == v.History[i-1].Generation+1, path+".generation", "%d follows %d; want one more", e.Generation, v.History[max(i-1, 0)].Generation)
		v.want(!e.Time.IsZero(), path+".time", "missing; want when it was made")
	}
	if c := v.Confirm; c != nil {
		v.want(c.Base >= 1 && c.Base < v.Generation(), "confirm.base", "%d; want a generation before %d", c.Base, v.Generation())
		v.want(!c.Deadline.IsZero(), "confirm.deadline", "missing; want the time to roll back at")
	}
}

func (v *validator) operations() {
	seen := map[belfry.NodeID]bool{}
	for i, o := range v.Ops {
		path := fmt.Sprintf("ops[%d]", i)
		v.want(v.ids[o.Node], path+".node", "%s is no member; want one of nodes", o.Node)
		v.want(!seen[o.Node], path+".node", "%s has another one; want the last operation of each node", o.Node)
		v.want(o.ID != OpID{}, path+".id", "missing; want that of the operation")
		v.want(o.Generation >= 1 && o.Generation <= v.Generation(), path+".generation", "%d; want 1 to %d", o.Generation, v.Generation())
		seen[o.Node] = true
	}
}

func (v *validator) generation(path string, n uint64) {
	v.want(n >= 1 && n <= maxGeneration, path, "%d; want 1 to %d", n, uint64(maxGeneration))
}

// name wants what names of nodes and of handlers are made of.
func (v *validator) name(path, s string) {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	v.want(s != "" && s[0] != '-' && strings.Trim(s, letters) == "", path, "%q; want 1 to 63 of a-z, 0-9 and -, not first a -", s)
}

// word wants one of a few; the first of them may be no word at all.
func (v *validator) word(path, s string, known ...string) {
	if slices.Contains(known, s) {
		return
	}
	if known[0] == "" {
		v.usage(path, "%q; want one of %s, or nothing", s, strings.Join(known[1:], ", "))
		return
	}
	v.usage(path, "%q; want one of %s", s, strings.Join(known, ", "))
}

// unique wants names that are not used twice; seen is of one list.
func (v *validator) unique(seen map[string]bool, path, s string) {
	v.want(!seen[s], path, "%q is used twice; want another one", s)
	seen[s] = true
}

// address wants one that a node can be reached at.
func (v *validator) address(path string, a netip.AddrPort) {
	ip := a.Addr()
	switch {
	case !a.IsValid():
		v.usage(path, "no address; want IP:PORT")
	case ip.IsUnspecified() || ip.IsMulticast():
		v.usage(path, "%s is the address of no node; want the one that others reach it at", a)
	case ip.Is4In6():
		v.usage(path, "%s is IPv4 written as IPv6; want %s", a, netip.AddrPortFrom(ip.Unmap(), a.Port()))
	case a.Port() == 0:
		v.usage(path, "%s has port 0; want 1 to 65535", a)
	}
}

// node wants the name of a member.
func (v *validator) node(path, name string) {
	if !v.names[name] {
		v.usage(path, "%q is no node; want one of %s", name, shortened(keysOf(v.names)))
	}
}

// network wants the name of a network.
func (v *validator) network(path, name string) {
	if _, known := v.networks[name]; !known {
		v.usage(path, "%q is no network; want one of %s", name, shortened(keysOf(v.networks)))
	}
}

// shortened lists the first of many names.
func shortened(names []string) string {
	if len(names) > 8 {
		return strings.Join(names[:8], ", ") + " …"
	}
	return strings.Join(names, ", ")
}

// duration wants text that is one from low to high; empty means the default.
func (v *validator) duration(path, text string, low, high time.Duration) {
	if text == "" {
		return
	}
	d, err := time.ParseDuration(text)
	v.want(err == nil && d >= low && d <= high, path, "%q; want a duration from %s to %s, for example %s", text, low, high, max(low, 5*time.Second))
}
