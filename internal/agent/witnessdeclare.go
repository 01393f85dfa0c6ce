package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/witness"
)

// What clients depend on is declared in the cluster's configuration, which all
// nodes have, or in the settings file of one node. Of a name in both the
// cluster's counts.

// declarations are api.Declarations.
type declarations struct{ *Agent }

var _ api.Declarations = declarations{}

// Declared is what is in force here.
func (d declarations) Declared() (cluster, file []*belfryv1.DeclaredResource, drained []string, generation uint64) {
	table := d.members.Table()
	for _, r := range table.Resources {
		one := &belfryv1.DeclaredResource{Name: r.Name, Holders: r.Holders, Address: r.Address, ProbePath: r.ProbePath}
		if r.Watch != "" {
			one.Watch = []string{r.Watch}
		}
		if r.Probe.IsValid() {
			one.Probe = r.Probe.String()
		}
		cluster = append(cluster, one)
	}
	for _, r := range d.witnessSettings().Resources {
		one := &belfryv1.DeclaredResource{Name: r.Name, Holders: r.Holders, Watch: r.Watch, Address: r.Address, File: true}
		if len(r.Holders) == 0 {
			one.Holders = []string{d.id.node.Name}
		}
		if p, err := config.ProbeOf(r.Probe); err == nil {
			one.Probe, one.ProbePath = p.To.String(), p.Path
		}
		file = append(file, one)
	}
	return cluster, file, slices.Sorted(slices.Values(table.Drained)), table.Generation
}

// Declare is for [api.Declarations].
func (d declarations) Declare(ctx context.Context, r repository.Resource, dryRun bool) (api.Changed, error) {
	return d.change(ctx, changing{dryRun: dryRun}, func(table *Table) error {
		if err := d.passes(); err != nil {
			return err
		}
		for _, holder := range r.Holders {
			if _, ok := table.named(holder); !ok {
				return fmt.Errorf("%w: node %s is not a member; there are %s", belfry.ErrNotFound, holder, table.Names())
			}
		}
		at := slices.IndexFunc(table.Resources, func(one repository.Resource) bool { return one.Name == r.Name })
		if at < 0 {
			table.Resources = append(table.Resources, r)
		} else {
			table.Resources[at] = r
		}
		return nil
	})
}

// Withdraw is for [api.Declarations].
func (d declarations) Withdraw(ctx context.Context, name string, dryRun bool) (api.Changed, error) {
	return d.change(ctx, changing{dryRun: dryRun}, func(table *Table) error {
		if err := d.passes(); err != nil {
			return err
		}
		at := slices.IndexFunc(table.Resources, func(one repository.Resource) bool { return one.Name == name })
		if at < 0 {
			return fmt.Errorf("%w: %s is not in the configuration of the cluster; what a settings file declares is taken out there", belfry.ErrNotFound, name)
		}
		table.Resources = slices.Delete(table.Resources, at, at+1)
		return nil
	})
}

// SetDrained is for [api.Declarations].
func (d declarations) SetDrained(ctx context.Context, node belfry.NodeID, drained, dryRun bool) (api.Changed, error) {
	return d.change(ctx, changing{dryRun: dryRun}, func(table *Table) error {
		n, ok := table.Node(node)
		if !ok {
			return fmt.Errorf("%w: node %s is not a member any more", belfry.ErrNotFound, node)
		}
		was := slices.Contains(table.Drained, n.Name)
		switch {
		case was == drained:
			return nil
		case drained:
			table.Drained = append(table.Drained, n.Name)
		default:
			table.Drained = slices.DeleteFunc(table.Drained, func(name string) bool { return name == n.Name })
		}
		return d.passes()
	})
}

// SetZone is for [api.Declarations].
func (d declarations) SetZone(ctx context.Context, node belfry.NodeID, zone string, dryRun bool) (api.Changed, error) {
	if len(zone) > maxZone || strings.ContainsFunc(zone, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return api.Changed{}, fmt.Errorf("%w: zone %q; use at most %d bytes, without blanks", belfry.ErrUsage, zone, maxZone)
	}
	return d.change(ctx, changing{dryRun: dryRun}, func(table *Table) error {
		for i := range table.Nodes {
			if table.Nodes[i].ID == node {
				table.Nodes[i].Zone = zone
			}
		}
		return nil
	})
}

// witnessTable brings into force what a table says for the witness.
func (a *Agent) witnessTable(table *Table) {
	drained := witness.Drained{Generation: table.Generation}
	for _, name := range table.Drained {
		if n, ok := table.named(name); ok {
			drained.Nodes = append(drained.Nodes, n.ID)
		}
	}
	a.witness.tell(witnessMembers(table), drained)
	a.declareResources(table)
}

// witnessSettings are those that were read last.
func (a *Agent) witnessSettings() config.Settings {
	if s := a.reloaded.Load(); s != nil {
		return *s
	}
	return a.opts.Config
}

// declareResources tells of all that clients may depend on.
func (a *Agent) declareResources(table *Table) {
	var msg witness.Declared
	var held []belfry.Resource
	add := func(name belfry.Resource, d witness.Declaration, probe *config.Probe) {
		d.Name = name
		d.Own = len(d.Holders) == 0 || slices.Contains(d.Holders, a.id.node.Name)
		if probe != nil {
			var placed bool
			d.Probes, placed = probesOf(table, d.Holders, *probe)
			if own := d.Probes[a.id.node.Name]; d.Own && placed && own != "" {
				d.Sources = append(slices.Clone(d.Sources), own)
			}
		}
		if d.Own {
			held = append(held, name)
		}
		msg.Resources = append(msg.Resources, d)
	}
	known := map[belfry.Resource]bool{}
	for _, r := range table.Resources {
		name, err := belfry.ParseResource(r.Name)
		if err != nil || known[name] {
			a.log.Error("resource of the configuration not taken", "resource", r.Name, "err", err)
			continue
		}
		known[name] = true
		d := witness.Declaration{Holders: r.Holders, Address: r.Address}
		if r.Watch != "" {
			d.Sources = []string{r.Watch}
		}
		var probe *config.Probe
		if r.Probe.IsValid() {
			probe = &config.Probe{To: r.Probe, Path: r.ProbePath}
		}
		add(name, d, probe)
	}
	for _, r := range a.witnessSettings().Resources {
		name, err := belfry.ParseResource(r.Name)
		if err != nil || known[name] {
			continue // the settings were validated; the cluster's word counts
		}
		var probe *config.Probe
		if p, err := config.ProbeOf(r.Probe); err == nil {
			probe = &p
		}
		add(name, witness.Declaration{Holders: r.Holders, Sources: r.Watch, Address: r.Address}, probe)
	}
	a.witness.tell(msg)
	a.resources.Declare(held)
}

// probesOf are the probes of what is held on each of some nodes. One address is
// asked for the node that has it, which asks it too. One that no member has, since
// it moves, is asked for each of them, and says nothing of one: placed is false.
func probesOf(table *Table, holders []string, p config.Probe) (probes map[string]string, placed bool) {
	source := func(to netip.AddrPort) string {
		if p.Path != "" {
			return "http://" + to.String() + p.Path
		}
		return "tcp:" + to.String()
	}
	hosts := map[string][]string{}
	placed = p.To.Addr().IsUnspecified()
	for _, m := range witnessMembers(table).Nodes {
		hosts[m.Name] = m.Hosts
		placed = placed || slices.Contains(m.Hosts, p.To.Addr().String())
	}
	probes = map[string]string{}
	for _, holder := range holders {
		all := hosts[holder]
		switch {
		case p.To.Addr().IsUnspecified() && len(all) > 0:
			if addr, err := netip.ParseAddr(all[0]); err == nil {
				probes[holder] = source(netip.AddrPortFrom(addr, p.To.Port()))
			}
		case !p.To.Addr().IsUnspecified() && (!placed || slices.Contains(all, p.To.Addr().String())):
			probes[holder] = source(p.To)
		}
	}
	return probes, placed
}
