package repository

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"strings"

	"github.com/belfry-ha/belfry"
)

func (v *validator) networkList() {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"
	for i, n := range v.Networks {
		path := fmt.Sprintf("networks[%d]", i)
		v.want(n.Name != "" && strings.Trim(n.Name, letters) == "", path+".name", "%q; want 1 to 63 letters, digits, dots, colons, _ and -", n.Name)
		_, twice := v.networks[n.Name]
		v.want(!twice, path+".name", "%q is used twice; want another one", n.Name)
		v.networks[n.Name] = n.Prefix
		v.want(n.Prefix == netip.Prefix{} || n.Prefix.IsValid() && n.Prefix == n.Prefix.Masked(), path+".prefix",
			"%s; want a prefix like %s", n.Prefix, n.Prefix.Masked())
		v.priority(path+".priority", n.Priority)
	}
}

func (v *validator) priority(path string, n int) {
	v.want(n >= 0 && n <= 255, path, "%d; want 0 to 255", n)
}

// A places says who has what only one may have.
type places struct {
	ids     map[belfry.NodeID]string
	numbers map[belfry.NodeNumber]string
	slots   map[int]string
	texts   map[string]string // keys and addresses
}

func (v *validator) nodeList() {
	taken := places{map[belfry.NodeID]string{}, map[belfry.NodeNumber]string{}, map[int]string{}, map[string]string{}}
	for i, f := range v.Former {
		at := fmt.Sprintf("former[%d]", i)
		taken.ids[f.ID] = at
		if f.Number != 0 {
			taken.numbers[f.Number] = at
		}
		taken.texts["key "+string(f.Key)] = at
	}
	v.want(len(v.Nodes) > 0, "nodes", "none; a cluster has at least one")
	names := map[string]bool{}
	for i := range v.Nodes {
		n, path := &v.Nodes[i], fmt.Sprintf("nodes[%d]", i)
		v.name(path+".name", n.Name)
		v.unique(names, path+".name", n.Name)
		v.member(path, n, &taken)
		v.addresses(path, n, &taken)
		v.word(path+".intent", n.Intent, "", IntentStopped)
		v.want(n.Capacity.Cores <= maxGeneration && n.Capacity.MemoryBytes <= maxGeneration, path+".capacity", "too large; want at most %d", uint64(maxGeneration))
		v.moment(path+".joined", n.Joined)
	}
}

// take wants that nobody has k yet.
func take[K comparable](v *validator, taken map[K]string, k K, path, what string) {
	if by, ok := taken[k]; ok {
		v.usage(path, "%s is that of %s; want another one", what, by)
	}
	taken[k] = path
}

// member judges who a node is.
func (v *validator) member(path string, n *Node, taken *places) {
	if n.ID.IsZero() {
		v.usage(path+".id", "missing; want the node's own")
	} else {
		take(v, taken.ids, n.ID, path+".id", n.ID.String())
	}
	if n.Number == 0 {
		v.usage(path+".number", "0; want 1 to 65535")
	} else {
		take(v, taken.numbers, n.Number, path+".number", fmt.Sprint(n.Number))
	}
	if n.Slot != nil {
		v.slot(path+".slot", *n.Slot)
		take(v, taken.slots, *n.Slot, path+".slot", fmt.Sprint(*n.Slot))
	}
	if len(n.Key) != ed25519.PublicKeySize {
		v.usage(path+".key", "%d bytes; want the %d of an Ed25519 key", len(n.Key), ed25519.PublicKeySize)
	} else {
		take(v, taken.texts, "key "+string(n.Key), path+".key", "it")
	}
	v.want(len(n.Sealing) == 0 || len(n.Sealing) == 32, path+".sealing", "%d bytes; want the 32 of an X25519 key", len(n.Sealing))
}

// slot wants one of the host slots, if there are any.
func (v *validator) slot(path string, slot int) {
	hosts := MaxHosts
	if a := v.Repository.Areas; a != nil && a.Hosts > 0 && a.Hosts < MaxHosts {
		hosts = a.Hosts
	}
	v.want(slot >= 0 && slot < hosts, path, "%d; want 0 to %d, for %d host slots", slot, hosts-1, hosts)
}

// addresses judges where a node is reached.
func (v *validator) addresses(path string, n *Node, taken *places) {
	v.want(len(n.Addresses) > 0, path+".addresses", "none; want one for each network of the node")
	for i, a := range n.Addresses {
		at := fmt.Sprintf("%s.addresses[%d]", path, i)
		prefix := v.networks[a.Network]
		v.network(at+".network", a.Network)
		v.address(at+".heartbeat", a.Heartbeat)
		v.want(!prefix.IsValid() || prefix.Contains(a.Heartbeat.Addr().WithZone("")), at+".heartbeat", "%s is not in %s, the prefix of %s", a.Heartbeat, prefix, a.Network)
		v.want(a.Bits >= 0 && a.Bits <= max(a.Heartbeat.Addr().BitLen(), 0), at+".bits", "%d; want 0 to %d", a.Bits, a.Heartbeat.Addr().BitLen())
		if a.Heartbeat.IsValid() {
			take(v, taken.texts, "udp "+a.Heartbeat.String(), at+".heartbeat", a.Heartbeat.String())
		}
	}
	v.address(path+".streams", n.Streams)
	if n.Streams.IsValid() {
		take(v, taken.texts, "tcp "+n.Streams.String(), path+".streams", n.Streams.String())
	}
}

func (v *validator) moment(path string, m Moment) {
	if m != (Moment{}) {
		v.want(m.Generation >= 1 && m.Generation <= v.Generation(), path+".generation", "%d; want 1 to %d, this one", m.Generation, v.Generation())
		v.want(!m.Time.IsZero(), path+".time", "missing; want when it was")
	}
}

func (v *validator) formerList() {
	ids := map[belfry.NodeID]string{}
	for i, f := range v.Former {
		path := fmt.Sprintf("former[%d]", i)
		v.want(!f.ID.IsZero(), path+".id", "missing; want that of a node that was removed")
		take(v, ids, f.ID, path+".id", f.ID.String())
		v.want(len(f.Key) == ed25519.PublicKeySize, path+".key", "%d bytes; want the %d of an Ed25519 key", len(f.Key), ed25519.PublicKeySize)
		if f.Slot != nil {
			v.want(*f.Slot >= 0 && *f.Slot < MaxHosts, path+".slot", "%d; want 0 to %d", *f.Slot, MaxHosts-1)
		}
		if last := v.Cluster.LastNumber; last != 0 {
			v.want(f.Number <= last, path+".number", "%d; cluster.last_number is %d, want the highest that was ever granted there", f.Number, last)
		}
		v.moment(path+".removed", f.Removed)
	}
}

func (v *validator) linkList() {
	seen := map[string]bool{}
	for i, l := range v.Links {
		path := fmt.Sprintf("links[%d]", i)
		v.node(path+".a", l.A)
		v.node(path+".b", l.B)
		v.want(l.A < l.B, path, "%s, %s; want two nodes in the order of the alphabet", l.A, l.B)
		v.network(path+".network", l.Network)
		v.unique(seen, path, l.A+" - "+l.B+" on "+l.Network)
		if l.Priority != nil {
			v.priority(path+".priority", *l.Priority)
		}
		if l.AtA.IsValid() || l.AtB.IsValid() {
			v.address(path+".at_a", l.AtA)
			v.address(path+".at_b", l.AtB)
			v.want(l.AtA.Addr().Is4() == l.AtB.Addr().Is4(), path, "%s and %s; want addresses of one family", l.AtA, l.AtB)
		}
	}
}

// storage judges the section repository, and what it moves to.
func (v *validator) storage() {
	s := &v.Repository
	v.word("repository.kind", s.Kind, KindMembers, KindDisk, KindFile, KindEtcd)
	v.duration("repository.poll", s.Poll, pollMin, pollMax)
	onDisks := s.Kind == KindDisk || s.Kind == KindFile
	stored := onDisks || s.Kind == KindEtcd
	v.want((s.UUID != UUID{}) == stored, "repository.uuid", "%s for kind %s; every repository has one, members have none", s.UUID, s.Kind)
	v.want((s.Epoch > 0) == stored && s.Epoch <= maxGeneration, "repository.epoch", "%d for kind %s; want 1 or more of a repository, 0 of members", s.Epoch, s.Kind)
	v.want(len(s.Spares) == 0 || onDisks, "repository.spares", "for kind %s; want them for disks and files only", s.Kind)
	used := map[string]bool{}
	for _, areas := range []*Areas{s.Areas, v.areasNext()} {
		if areas != nil {
			for _, u := range areas.Disks {
				used[u.String()] = true
			}
		}
	}
	for i, u := range s.Spares {
		path := fmt.Sprintf("repository.spares[%d]", i)
		v.want(u != UUID{}, path, "missing; want the disk's UUID")
		v.unique(used, path, u.String())
	}
	v.storagePlace("repository", s.Kind, s.Areas, s.Etcd)
	if m := v.Moving; m != nil {
		v.want(stored, "moving", "for kind %s; only a repository moves", s.Kind)
		v.want(m.Epoch == s.Epoch+1, "moving.epoch", "%d; want %d, one after the present one", m.Epoch, s.Epoch+1)
		v.want(m.Op != OpID{}, "moving.op", "missing; want that of the completion")
		v.word("moving.kind", m.Kind, "", KindDisk, KindFile, KindEtcd)
		v.storagePlace("moving", v.NextKind(), m.Areas, m.Etcd)
		if m.Areas != nil {
			for i, n := range v.Nodes {
				v.want(n.Slot == nil || *n.Slot < m.Areas.Hosts, "moving.areas.hosts", "%d; nodes[%d] has slot %d, want more", m.Areas.Hosts, i, slotOf(n.Slot))
			}
		}
	}
}

// areasNext are those that the repository moves to; nil: none.
func (v *validator) areasNext() *Areas {
	if v.Moving == nil {
		return nil
	}
	return v.Moving.Areas
}

// storagePlace wants areas of disks and files, and of etcd where it is.
func (v *validator) storagePlace(path, kind string, areas *Areas, etcd *Etcd) {
	onDisks := kind == KindDisk || kind == KindFile
	v.want((areas != nil) == onDisks, path+".areas", "for kind %s; disks and files have them, others do not", kind)
	v.want((etcd != nil) == (kind == KindEtcd), path+".etcd", "for kind %s; etcd has it, others do not", kind)
	if areas != nil {
		v.areas(path+".areas", areas)
	}
	if etcd == nil {
		return
	}
	v.want(len(etcd.Endpoints) > 0, path+".etcd.endpoints", "none; want HOST:PORT of etcd")
	seen := map[string]bool{}
	for i, e := range etcd.Endpoints {
		at := fmt.Sprintf("%s.etcd.endpoints[%d]", path, i)
		v.want(e != "", at, "is empty; want HOST:PORT")
		v.unique(seen, at, e)
	}
	v.want(strings.Trim(etcd.Prefix, "/") == etcd.Prefix, path+".etcd.prefix", "%q; want it without / around it", etcd.Prefix)
}

func (v *validator) areas(path string, a *Areas) {
	if err := a.Layout().check(-1); err != nil {
		v.usage(path, "%s", strings.TrimPrefix(err.Error(), errBlock.Error()+": "))
	}
	v.want(len(a.Disks) >= 1 && len(a.Disks) <= MaxDisks, path+".disks", "%d; want 1 to %d", len(a.Disks), MaxDisks)
	disks := map[string]bool{}
	for i, u := range a.Disks {
		v.want(u != UUID{}, fmt.Sprintf("%s.disks[%d]", path, i), "missing; want the disk's UUID")
		v.unique(disks, fmt.Sprintf("%s.disks[%d]", path, i), u.String())
	}
}

// slotOf is -1 for a node without one.
func slotOf(slot *int) int {
	if slot == nil {
		return -1
	}
	return *slot
}
