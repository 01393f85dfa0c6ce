package configview

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry/internal/repository"
)

// An Effect is one difference between two documents, and the nodes where it
// comes into force.
type Effect struct {
	repository.Change
	// Nodes are the names, sorted. None: of a consequence whose text names what it
	// is about.
	Nodes []string
}

// Plan is what changes from a to b, in the order of [repository.Diff], with the
// nodes that each change is about: of a network those that have an address
// there, of a link its two, of a resource its holders, of a node itself; of
// all else every node. Where the tunables are known, a default is told by its
// value, and values that change although nobody wrote them follow from those
// that do: those of a profile.
func Plan(a, b repository.Document, known Tunables) []Effect {
	p := planner{about: map[string][]string{}}
	p.all = nodeNames(a, b)
	entries(&p, a.Networks, b.Networks, networkName, func(d *repository.Document, n repository.Network) { d.Networks = append(d.Networks, n) },
		func(n *repository.Network) []string { return append(onNetwork(&a, n.Name), onNetwork(&b, n.Name)...) })
	entries(&p, a.Links, b.Links, linkName, func(d *repository.Document, l repository.Link) { d.Links = append(d.Links, l) },
		func(l *repository.Link) []string { return []string{l.A, l.B} })
	entries(&p, a.Resources, b.Resources, resourceName, func(d *repository.Document, r repository.Resource) { d.Resources = append(d.Resources, r) },
		func(r *repository.Resource) []string { return r.Holders })
	entries(&p, a.Nodes, b.Nodes, nodeID, func(d *repository.Document, n repository.Node) { d.Nodes = append(d.Nodes, n) },
		func(n *repository.Node) []string { return []string{n.Name} })
	entries(&p, a.Witness.Drained, b.Witness.Drained, word, func(d *repository.Document, n string) { d.Witness.Drained = append(d.Witness.Drained, n) },
		func(n *string) []string { return []string{*n} })
	before, after := known.inForce(a.Tunables), known.inForce(b.Tunables)
	var effects []Effect
	for _, c := range repository.Diff(a, b) {
		if c.Section == "tunables" && known.InForce != nil {
			c.Text = withDefault(c.Text, before, after)
		}
		nodes, found := p.about[c.Section+" "+c.Text]
		if !found && !c.Consequence {
			nodes = p.all
		}
		effects = append(effects, Effect{Change: c, Nodes: nodes})
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if known.InForce != nil && before[name] != after[name] && a.Tunables[name] == b.Tunables[name] {
			text := fmt.Sprintf("tunable %s is %s, was %s", name, after[name], before[name])
			effects = append(effects, Effect{Change: repository.Change{Section: "tunables", Text: text, Consequence: true}})
		}
	}
	return effects
}

// withDefault says which value a default is.
func withDefault(text string, before, after map[string]string) string {
	name, values, _ := strings.Cut(strings.TrimPrefix(text, "tunable "), " ")
	was, is, _ := strings.Cut(values, " -> ")
	if value, ok := before[name]; ok && was == "default" {
		was = value + " (default)"
	}
	if value, ok := after[name]; ok && is == "default" {
		is = value + " (default)"
	}
	return "tunable " + name + " " + was + " -> " + is
}

// A planner knows which nodes a change is about, by section and text.
type planner struct {
	about map[string][]string
	all   []string
}

// entries compares two lists entry by entry: the difference of two documents
// that have nothing but one entry is about the nodes of that entry.
func entries[T any](p *planner, a, b []T, key func(*T) string, in func(*repository.Document, T), nodes func(*T) []string) {
	before, after := byKey(a, key), byKey(b, key)
	for k := range mapsOr(before, after) {
		was, is := before[k], after[k]
		if reflect.DeepEqual(was, is) {
			continue
		}
		var x, y repository.Document
		var names []string
		if was != nil {
			in(&x, *was)
			names = append(names, nodes(was)...)
		}
		if is != nil {
			in(&y, *is)
			names = append(names, nodes(is)...)
		}
		slices.Sort(names)
		names = slices.Compact(names)
		for _, c := range repository.Diff(x, y) {
			p.about[c.Section+" "+c.Text] = names
		}
	}
}

func byKey[T any](all []T, key func(*T) string) map[string]*T {
	m := make(map[string]*T, len(all))
	for i := range all {
		m[key(&all[i])] = &all[i]
	}
	return m
}

// mapsOr has the keys of both.
func mapsOr[T any](a, b map[string]T) map[string]T {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

func networkName(n *repository.Network) string   { return n.Name }
func linkName(l *repository.Link) string         { return l.A + " " + l.B + " " + l.Network }
func resourceName(r *repository.Resource) string { return r.Name }
func nodeID(n *repository.Node) string           { return n.ID.String() }
func word(s *string) string                      { return *s }

func onNetwork(d *repository.Document, network string) (names []string) {
	for _, n := range d.Nodes {
		if slices.ContainsFunc(n.Addresses, func(a repository.Address) bool { return a.Network == network }) {
			names = append(names, n.Name)
		}
	}
	return names
}

func nodeNames(documents ...repository.Document) (names []string) {
	for _, d := range documents {
		for _, n := range d.Nodes {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Lines is a plan for people: a mark for each line, ~ for a change and ! for
// what follows from it.
func Lines(effects []Effect, nodes int) (lines []string) {
	for _, e := range effects {
		if e.Consequence {
			lines = append(lines, "! "+e.Text)
			continue
		}
		lines = append(lines, fmt.Sprintf("~ %s  %s%s", e.Section, e.Text, where(e.Nodes, nodes)))
	}
	return lines
}

// where names the nodes, if they are not too many to be read.
func where(names []string, of int) string {
	switch {
	case len(names) == 0:
		return ""
	case len(names) <= 8:
		return "  on " + strings.Join(names, " ")
	case len(names) == of:
		return fmt.Sprintf("  on all %d nodes", of)
	}
	return fmt.Sprintf("  on %s and %d more", strings.Join(names[:8], " "), len(names)-8)
}
