package repository

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// A Change is one difference between two documents, in the words of those who
// run the cluster.
type Change struct {
	Section     string `json:"section"` // of the document; of a consequence: the one that it follows from
	Text        string `json:"text"`
	Consequence bool   `json:"consequence,omitzero"` // what follows from the changes for the cluster
}

// Diff is what changes from a to b: first the changes, in the order of the
// document's sections, then their consequences; within a section by their text.
// It is empty if, and only if, two valid documents differ in nothing but ops
// and history, which are the machine's record of the changes themselves.
//
// Secrets are never in it: of hashes, keys, tokens and texts of licenses it
// says that they changed.
func Diff(a, b Document) []Change {
	d := differ{a: &a, b: &b}
	d.say("schema", changeOf("the document's", "schema", "", a.Schema, b.Schema))
	d.fields("cluster", "cluster", a.Cluster, b.Cluster)
	d.nodes()
	d.former()
	keyed(&d, list[Network]{"networks", "network", "networks", func(n *Network) string { return n.Name }, byName}, a.Networks, b.Networks)
	keyed(&d, list[Link]{"links", "link", "links", (*Link).name, []string{"a", "b", "network"}}, a.Links, b.Links)
	d.storage()
	d.tunables()
	d.services()
	d.licenses()
	d.roles()
	d.security()
	d.waiting()
	d.links()
	slices.SortStableFunc(d.out, func(x, y Change) int {
		if x.Consequence != y.Consequence {
			if y.Consequence {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(slices.Index(sections, x.Section), slices.Index(sections, y.Section)), strings.Compare(x.Text, y.Text))
	})
	return slices.Compact(d.out)
}

// sections are those of the document, in its order.
var sections = namesOf(fieldRules[documentType])

// A differ collects changes.
type differ struct {
	a, b *Document
	out  []Change
}

// say adds a change; an empty one is none.
func (d *differ) say(section, text string) {
	if text != "" {
		d.out = append(d.out, Change{Section: section, Text: text})
	}
}

func (d *differ) sayf(section, format string, args ...any) {
	d.say(section, fmt.Sprintf(format, args...))
}

// follows adds a consequence.
func (d *differ) follows(section, format string, args ...any) {
	d.out = append(d.out, Change{Section: section, Text: fmt.Sprintf(format, args...), Consequence: true})
}

func (l *Link) name() string { return l.A + " - " + l.B + " on " + l.Network }

// byName is for lists whose entries have one.
var byName = []string{"name"}

// A list is how to speak of the entries of one.
type list[T any] struct {
	section, noun string
	all           string          // the noun for all of them
	key           func(*T) string // unique in the list, and known to people
	in            []string        // fields that it is made of
}

// keyed compares two lists whose entries have names.
func keyed[T any](d *differ, l list[T], a, b []T) {
	before, after := indexed(a, l.key), indexed(b, l.key)
	for _, k := range keysOf(before) {
		if _, ok := after[k]; !ok {
			d.sayf(l.section, "%s %s is removed", l.noun, k)
		}
	}
	for _, k := range keysOf(after) {
		subject := l.noun + " " + k
		if was, ok := before[k]; ok {
			d.fields(l.section, subject, *was, *after[k])
			continue
		}
		d.say(l.section, strings.TrimSuffix(subject+" is added: "+shown(*after[k], l.in...), ": "))
	}
	d.order(l.section, l.all, orderOf(a, l.key), orderOf(b, l.key))
}

func indexed[T any](all []T, key func(*T) string) map[string]*T {
	m := make(map[string]*T, len(all))
	for i := range all {
		m[key(&all[i])] = &all[i]
	}
	return m
}

func orderOf[T any](all []T, key func(*T) string) (names []string) {
	for i := range all {
		names = append(names, key(&all[i]))
	}
	return names
}

// order says that entries which are in both lists follow each other otherwise.
func (d *differ) order(section, all string, a, b []string) {
	in := func(all []string) func(string) bool {
		set := map[string]bool{}
		for _, n := range all {
			set[n] = true
		}
		return func(n string) bool { return !set[n] }
	}
	x, y := slices.DeleteFunc(slices.Clone(a), in(b)), slices.DeleteFunc(slices.Clone(b), in(a))
	if !slices.Equal(x, y) {
		d.sayf(section, "the order of the %s changes", all)
	}
}

func (d *differ) nodes() {
	before, after := d.a.byID(), d.b.byID()
	for i := range d.a.Nodes {
		if was := &d.a.Nodes[i]; after[was.ID] == nil {
			d.sayf("nodes", "%s leaves", was.Name)
		}
	}
	for i := range d.b.Nodes {
		is := &d.b.Nodes[i]
		was := before[is.ID]
		if was == nil {
			slot := "without a slot"
			if is.Slot != nil {
				slot = fmt.Sprintf("slot %d", *is.Slot)
			}
			d.sayf("nodes", "%s joins as number %d, %s", is.Name, is.Number, slot)
			continue
		}
		d.node(*was, *is)
	}
	d.order("nodes", "nodes", orderOf(d.a.Nodes, nodeID), orderOf(d.b.Nodes, nodeID))
}

func nodeID(n *Node) string { return n.ID.String() }

// node says what changes of one that stays.
func (d *differ) node(was, is Node) {
	if was.Name != is.Name {
		d.sayf("nodes", "%s is called %s", was.Name, is.Name)
	}
	switch {
	case was.Intent == is.Intent:
	case is.Intent == IntentStopped:
		d.sayf("nodes", "%s is stopped", is.Name)
		d.follows("nodes", "%s is held left until it is started", is.Name)
	case is.Intent == "":
		d.sayf("nodes", "%s is started", is.Name)
	default: // a word that this agent does not know
		d.say("nodes", changeOf("node "+is.Name, "intent", "", was.Intent, is.Intent))
	}
	keyed(d, list[Address]{"nodes", "address of " + is.Name + " on", "addresses of " + is.Name, func(a *Address) string { return a.Network }, []string{"network"}}, was.Addresses, is.Addresses)
	d.addressesTwice(was, is)
	was.Name, was.Intent, was.Addresses = is.Name, is.Intent, is.Addresses
	d.fields("nodes", "node "+is.Name, was, is)
}

// addressesTwice is for a node with several addresses on one network, which
// its name does not tell apart.
func (d *differ) addressesTwice(was, is Node) {
	if len(indexed(was.Addresses, func(a *Address) string { return a.Network })) == len(was.Addresses) &&
		len(indexed(is.Addresses, func(a *Address) string { return a.Network })) == len(is.Addresses) {
		return
	}
	d.say("nodes", changeOf("node "+is.Name, "addresses", "", was.Addresses, is.Addresses))
}

// former says only what does not follow from a node that leaves.
func (d *differ) former() {
	gone := map[belfry.NodeID]bool{}
	after := d.b.byID()
	for _, n := range d.a.Nodes {
		gone[n.ID] = after[n.ID] == nil
	}
	b := slices.DeleteFunc(slices.Clone(d.b.Former), func(f FormerNode) bool { return gone[f.ID] })
	keyed(d, list[FormerNode]{"former", "former node", "former nodes", func(f *FormerNode) string { return f.ID.String() }, []string{"id"}}, d.a.Former, b)
}

func (d *differ) storage() {
	a, b := d.a.Repository, d.b.Repository
	d.fields("repository", "repository", a, b)
	if a.Epoch != b.Epoch && b.Epoch != 0 {
		d.follows("repository", "all members open the disks of epoch %d", b.Epoch)
	}
	switch x, y := d.a.Moving, d.b.Moving; {
	case x == nil && y != nil:
		d.sayf("moving", "the repository moves: %s", shown(*y))
		d.follows("moving", "nothing else is changed until the repository has moved to epoch %d", y.Epoch)
	case x != nil && y == nil:
		d.sayf("moving", "the repository does not move any more")
	case x != nil:
		d.fields("moving", "move", *x, *y)
	}
}

func (d *differ) tunables() {
	names := map[string]bool{}
	for k := range d.a.Tunables {
		names[k] = true
	}
	for k := range d.b.Tunables {
		names[k] = true
	}
	for _, k := range keysOf(names) {
		was, wasSet := d.a.Tunables[k]
		is, isSet := d.b.Tunables[k]
		if was != is || wasSet != isSet {
			d.sayf("tunables", "tunable %s %s -> %s", k, orDefault(was, wasSet), orDefault(is, isSet))
		}
	}
}

func orDefault(text string, set bool) string {
	if !set {
		return "default"
	}
	return shown(text)
}

// services are what the cluster does for others.
func (d *differ) services() {
	a, b := d.a, d.b
	keyed(d, list[Resource]{"resources", "resource", "resources", resourceName, byName}, a.Resources, b.Resources)
	d.ended(orderOf(a.Resources, resourceName), orderOf(b.Resources, resourceName), "resources", "clients are told nothing more of %s")
	keyed(d, list[NetName]{"witness", "net name", "net names", func(n *NetName) string { return n.Name }, byName}, a.Witness.NetNames, b.Witness.NetNames)
	drained, back := missingIn(b.Witness.Drained, a.Witness.Drained), missingIn(a.Witness.Drained, b.Witness.Drained)
	for _, n := range drained {
		d.sayf("witness", "%s is drained", n)
		d.follows("witness", "clients of the witness on %s are sent to others", n)
	}
	for _, n := range back {
		d.sayf("witness", "%s is drained no more", n)
	}
	d.order("witness", "drained nodes", a.Witness.Drained, b.Witness.Drained)
	keyed(d, list[LinkedCluster]{"linked", "linked cluster", "linked clusters", func(l *LinkedCluster) string { return l.Name }, byName}, a.Linked, b.Linked)
	keyed(d, list[Handler]{"handlers", "handler", "handlers", handlerName, byName}, a.Handlers, b.Handlers)
	d.ended(orderOf(a.Handlers, handlerName), orderOf(b.Handlers, handlerName), "handlers", "handler %s runs no more")
}

func resourceName(r *Resource) string { return r.Name }
func handlerName(h *Handler) string   { return h.Name }

// ended tells the consequence for each name that is gone.
func (d *differ) ended(a, b []string, section, format string) {
	for _, name := range missingIn(a, b) {
		d.follows(section, format, name)
	}
}

// missingIn are the names of a list that another one does not have.
func missingIn(from, in []string) (names []string) {
	for _, n := range from {
		if !slices.Contains(in, n) {
			names = append(names, n)
		}
	}
	return names
}

func (d *differ) licenses() {
	a, b := d.a.Licenses, d.b.Licenses
	d.texts("licenses", "license", a.Files, b.Files)
	d.texts("licenses", "revocation list", a.Revocations, b.Revocations)
	keyed(d, list[Activation]{"licenses", "activation of", "activations", func(x *Activation) string {
		return x.License + " on " + x.Node.String() + " at " + x.Time.Format(time.RFC3339Nano)
	}, []string{"license", "node", "time"}}, a.Activations, b.Activations)
	keyed(d, list[Issuer]{"licenses", "issuer of", "issuers", func(x *Issuer) string {
		return x.Product + " with key " + base64.StdEncoding.EncodeToString(x.Key) // a public one, which people compare
	}, []string{"product"}}, a.Issuers, b.Issuers)
	d.say("licenses", changeOf("licenses", "mark", "", a.Mark, b.Mark))
}

// texts counts what comes and goes of texts that are not shown.
func (d *differ) texts(section, noun string, a, b []string) {
	for _, way := range []struct {
		from, in []string
		verb     string
	}{{b, a, "added"}, {a, b, "removed"}} {
		if n := len(missingIn(way.from, way.in)); n == 1 {
			d.sayf(section, "a %s is %s", noun, way.verb)
		} else if n > 1 {
			d.sayf(section, "%d %ss are %s", n, noun, way.verb)
		}
	}
	d.order(section, noun+"s", a, b)
}

// waiting is what waits for somebody's word.
func (d *differ) waiting() {
	switch x, y := d.a.Confirm, d.b.Confirm; {
	case x == nil && y != nil:
		d.sayf("confirm", "generation %d comes back unless `belfry config confirm` is run before %s", y.Base, y.Deadline.Format(time.RFC3339))
	case x != nil && y == nil:
		d.sayf("confirm", "nothing waits for `belfry config confirm` any more")
	case x != nil:
		d.fields("confirm", "confirmation", *x, *y)
	}
}

// same compares what is written of two values.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
