package config

import (
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/belfry-ha/belfry"
)

// A Resource is what clients of the cluster depend on.
type Resource struct {
	Name    string   // service/NAME, share/NAME/SHARE, name/NAME or address/ADDRESS
	Holders []string // names of the nodes that may hold it; none: this node
	// Watch are what it takes to be available at a holder, all of them: unit:NAME,
	// process:SUBJECT, file:PATH, tcp:HOST:PORT or http://HOST:PORT/PATH. None: it
	// is as its node is.
	Watch   []string
	Address string // that clients use: IP, or IP:PORT; empty: that of the holder
	// Probe is what is asked in place of a holder whose agent is down and whose
	// host answers: IP:PORT for a connect, or http://IP:PORT/PATH; 0.0.0.0 stands
	// for each holder. Empty: such a holder counts as unavailable.
	Probe string
}

// maxDeclared bounds what one file declares.
const maxDeclared = 4096

// sourceKinds are the forms of Resource.Watch.
var sourceKinds = []string{"unit", "process", "file", "tcp", "http"}

// resources takes the section of that name.
func (p *fileParser) resources(node ast.Node) {
	p.each("resources", node, func(name string, v *ast.MappingValueNode) {
		r := Resource{Name: name}
		p.each("resources."+name, v.Value, func(part string, v *ast.MappingValueNode) { p.resourceValue(&r, part, v) })
		p.settings.Resources = append(p.settings.Resources, r)
	})
	slices.SortFunc(p.settings.Resources, func(a, b Resource) int { return strings.Compare(a.Name, b.Name) })
}

func (p *fileParser) resourceValue(r *Resource, part string, v *ast.MappingValueNode) {
	name := "resources." + r.Name + "." + part
	ok, wants := false, "text, or a list of texts"
	switch part {
	case "holders":
		ok = setList(&r.Holders, v.Value)
	case "watch":
		ok = setList(&r.Watch, v.Value)
	case "address":
		wants = "text (put it in quotes)"
		r.Address, ok = textOf(v.Value)
	case "probe":
		wants = "text (put it in quotes)"
		r.Probe, ok = textOf(v.Value)
	default:
		p.fault(v.Key, "unknown key %s%s", name, didYouMean(part, []string{"address", "holders", "probe", "watch"}))
		return
	}
	if !ok {
		p.fault(v.Value, "%s is %s; it is %s", name, kindOf(v.Value), wants)
	}
}

// maxRegistrations is far beyond what one node can tell in time.
const maxRegistrations = 1_000_000

func (s Settings) validResources() (faults []error) {
	for _, limit := range []struct {
		key string
		n   int
	}{{"max_per_principal", s.Witness.MaxPerPrincipal}, {"max_per_source", s.Witness.MaxPerSource}, {"max_registrations", s.Witness.MaxRegistrations}} {
		if limit.n < 1 || limit.n > maxRegistrations {
			faults = append(faults, faultf("witness.%s is %d; 1 to %d are possible", limit.key, limit.n, maxRegistrations))
		}
	}
	keepAlive, unused := s.Witness.Times()
	if keepAlive == 0 {
		faults = append(faults, faultf("witness.keep_alive: %q is no time for it; write 1s to 1m", s.Witness.KeepAlive))
	}
	if unused == 0 {
		faults = append(faults, faultf("witness.unused_timeout: %q is no time for it; write 1s to 1h", s.Witness.UnusedTimeout))
	}
	if len(s.Resources) > maxDeclared {
		faults = append(faults, faultf("resources: %d of them; at most %d", len(s.Resources), maxDeclared))
	}
	for _, r := range s.Resources {
		for _, err := range r.faults() {
			faults = append(faults, faultf("resources.%s: %v", r.Name, err))
		}
	}
	return faults
}

func (r Resource) faults() (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, faultf(format, args...)) }
	name, err := belfry.ParseResource(r.Name)
	switch {
	case err != nil:
		return []error{plain(err)}
	case string(name) != r.Name:
		fault("its name is written %s", name)
	case slices.Contains([]string{belfry.KindNode, belfry.KindEvent}, name.Kind()):
		fault("a %s is declared by nobody; it is there by itself", name.Kind())
	case name.Node() != "":
		fault("name its node in holders, without the @")
	}
	for _, holder := range r.Holders {
		if validName(holder) != nil {
			fault("holders: %q is no name of a node; use 1 to 63 of a-z, 0-9 and -", holder)
		}
	}
	for _, source := range r.Watch {
		kind, subject, _ := strings.Cut(source, ":")
		if err := oneOf(kind, sourceKinds...); err != nil || subject == "" || kind == "http" && !validURL(source) {
			fault("watch: %q; write unit:NAME, process:exe=PATH, file:PATH, tcp:HOST:PORT or http://HOST:PORT/PATH", source)
		}
	}
	if r.Address != "" {
		_, err := netip.ParseAddrPort(r.Address)
		if _, plain := netip.ParseAddr(r.Address); err != nil && plain != nil {
			fault("address %q is none; write for example 10.0.0.50 or 10.0.0.50:5432", r.Address)
		}
	}
	if _, err := ProbeOf(r.Probe); r.Probe != "" && err != nil {
		fault("%v", err)
	}
	return faults
}

// A Probe is what a probe connects to; Path is what it asks for over HTTP, empty:
// it only connects. Of all addresses: the port at each holder.
type Probe struct {
	To   netip.AddrPort
	Path string
}

// ProbeOf reads the form of Resource.Probe.
func ProbeOf(text string) (p Probe, err error) {
	place := text
	if rest, ok := strings.CutPrefix(text, "http://"); ok {
		var path string
		place, path, _ = strings.Cut(rest, "/")
		p.Path = "/" + path
	}
	if p.To, err = netip.ParseAddrPort(place); err != nil || p.To.Port() == 0 {
		return p, faultf("probe %q; write IP:PORT or http://IP:PORT/PATH, with 0.0.0.0 for each holder", text)
	}
	return p, nil
}

// validURL tells whether a text is the URL of something that can be asked.
func validURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "http" && u.Host != "" && u.User == nil
}

// Equal tells whether two resources are set alike.
func (r Resource) Equal(o Resource) bool { return reflect.DeepEqual(r, o) }

// String is what a log may say of a resource.
func (r Resource) String() string {
	parts := slices.Concat([]string{}, r.Watch)
	if len(r.Holders) > 0 {
		parts = append(parts, "holders "+strings.Join(r.Holders, " "))
	}
	if r.Address != "" {
		parts = append(parts, "address "+r.Address)
	}
	if r.Probe != "" {
		parts = append(parts, "probe "+r.Probe)
	}
	return strings.Join(parts, ", ")
}

// diffResources compares two lists that are sorted by name.
func diffResources(from, to []Resource) (changes []Change) {
	find := func(list []Resource, name string) (Resource, bool) {
		i := slices.IndexFunc(list, func(r Resource) bool { return r.Name == name })
		if i < 0 {
			return Resource{}, false
		}
		return list[i], true
	}
	for _, was := range from {
		if is, ok := find(to, was.Name); !ok || !was.Equal(is) {
			changes = append(changes, Change{Key: "resources." + was.Name, Old: was.String(), New: is.String(), Reloadable: true})
		}
	}
	for _, is := range to {
		if _, ok := find(from, is.Name); !ok {
			changes = append(changes, Change{Key: "resources." + is.Name, New: is.String(), Reloadable: true})
		}
	}
	return changes
}
