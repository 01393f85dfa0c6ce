package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

// The member table is a view of the document: what this package changes of it.
// These functions carry values between the two; what the table does not know
// stays in the document as it is.

// tableOf is the view of a document.
func tableOf(d *repository.Document) *Table {
	t := &Table{
		Cluster: d.Cluster.UUID, Name: d.Cluster.Name, Generation: d.Generation(), LastNumber: d.Cluster.LastNumber,
		Epoch: d.Security.Datagram.Epoch, Secret: Digest(d.Security.Datagram.Secret), Since: d.Security.Datagram.Since,
		CANext: d.Security.CANext, Exposed: d.Security.CAExposed, Tunables: d.Tunables,
		Resources: d.Resources, Drained: d.Witness.Drained,
	}
	if n := len(d.History); n > 0 {
		t.Origin = d.History[n-1].Node
	}
	for i := range d.Nodes {
		t.Nodes = append(t.Nodes, nodeOf(&d.Nodes[i]))
	}
	for _, f := range d.Former[max(0, len(d.Former)-maxRemoved):] {
		t.Removed = append(t.Removed, RemovedNode{ID: f.ID, Key: f.Key})
	}
	for _, c := range d.Security.CA {
		t.CA = append(t.CA, c)
	}
	for _, k := range d.Security.CAKeys {
		t.CAKeys = append(t.CAKeys, SealedKey{CA: Digest(k.CA), Holder: k.Holder, Sealed: k.Sealed})
	}
	for _, k := range d.Security.Tokens {
		token := JoinToken{ID: k.ID, Hash: Digest(k.Hash), Expires: k.Expires, Role: k.Role, Name: k.Name, Creator: k.Creator, Wrong: k.Wrong}
		if len(k.Announce) > 0 {
			token.Announce = k.Announce[0]
		}
		t.Tokens = append(t.Tokens, token)
	}
	for _, c := range d.Security.Clients {
		client := ClientRole{Name: c.Name, Role: c.Role, TokenRole: c.TokenRole}
		for _, k := range c.Keys {
			client.Keys = append(client.Keys, ClientKey{Key: Digest(k.Key), Serial: k.Serial, Expires: k.Expires, Joined: k.Joined, Token: k.Token})
		}
		t.Clients = append(t.Clients, client)
	}
	for _, g := range d.Roles {
		t.Roles = append(t.Roles, security.Grant(g))
	}
	return t
}

func nodeOf(n *repository.Node) Node {
	row := Node{
		ID: n.ID, Number: n.Number, Name: n.Name, Key: n.Key, Sealing: n.Sealing, Certificate: n.Certificate,
		Streams: n.Streams, Web: n.Web, Zone: n.Zone, Stopped: n.Intent == repository.IntentStopped, Capacity: Capacity(n.Capacity),
	}
	for _, a := range n.Addresses {
		row.Networks = append(row.Networks, Network{Name: a.Network, Heartbeat: a.Heartbeat, Bits: a.Bits})
	}
	return row
}

// written is a document with what the table says, as of its next generation; all
// else is the document's.
func (t *Table) written(d repository.Document, now time.Time) repository.Document {
	moment := repository.Moment{Generation: d.Generation() + 1, Time: now}
	d.Cluster.Name, d.Cluster.LastNumber, d.Tunables = t.Name, t.LastNumber, t.Tunables
	d.Resources, d.Witness.Drained = t.Resources, t.Drained
	t.writeNodes(&d, moment)
	d.Networks = slices.Clone(d.Networks)
	for _, n := range t.Nodes {
		for _, on := range n.Networks {
			if !slices.ContainsFunc(d.Networks, func(known repository.Network) bool { return known.Name == on.Name }) {
				d.Networks = append(d.Networks, repository.Network{Name: on.Name})
			}
		}
	}
	d.Ops = slices.DeleteFunc(slices.Clone(d.Ops), func(o repository.Operation) bool { _, member := t.Node(o.Node); return !member })
	d.Roles = nil
	for _, g := range t.Roles {
		d.Roles = append(d.Roles, repository.Grant(g))
	}
	t.writeSecurity(&d.Security)
	return d
}

// writeNodes keeps of each node that stays what the table does not know.
func (t *Table) writeNodes(d *repository.Document, moment repository.Moment) {
	before := d.Nodes
	d.Nodes, d.Former = nil, slices.Clone(d.Former)
	for _, was := range before {
		if _, stays := t.Node(was.ID); !stays {
			d.Former = append(d.Former, repository.FormerNode{ID: was.ID, Number: was.Number, Slot: was.Slot, Key: was.Key, Removed: moment})
		}
	}
	var come []int
	for _, n := range t.Nodes {
		row := repository.Node{ID: n.ID, Joined: moment}
		if i := slices.IndexFunc(before, func(was repository.Node) bool { return was.ID == n.ID }); i >= 0 {
			row = before[i]
		} else {
			come = append(come, len(d.Nodes))
		}
		row.Number, row.Name, row.Key, row.Sealing, row.Streams, row.Web = n.Number, n.Name, n.Key, n.Sealing, n.Streams, n.Web
		row.Certificate, row.Capacity, row.Zone = n.Certificate, repository.Capacity(n.Capacity), n.Zone
		row.Intent, row.Addresses = "", nil
		if n.Stopped {
			row.Intent = repository.IntentStopped
		}
		for _, on := range n.Networks {
			row.Addresses = append(row.Addresses, repository.Address{Network: on.Name, Heartbeat: on.Heartbeat, Bits: on.Bits})
		}
		d.Nodes = append(d.Nodes, row)
	}
	for _, i := range come {
		d.Nodes[i].Slot = freeSlot(d, moment.Time)
	}
}

// slotRest is how long the slot of a node that was removed is given to nobody.
const slotRest = 24 * time.Hour

// freeSlot is the next host slot for a node; nil: there is none, or none is
// needed. One that somebody had comes after all that nobody had, the one that is
// free for the longest time first (repository.md, Store).
func freeSlot(d *repository.Document, now time.Time) *int {
	if d.Repository.Areas == nil {
		return nil
	}
	taken, former := map[int]bool{}, map[int]time.Time{}
	for _, n := range d.Nodes {
		if n.Slot != nil {
			taken[*n.Slot] = true
		}
	}
	for _, f := range d.Former {
		if f.Slot != nil {
			former[*f.Slot] = f.Removed.Time
		}
	}
	best, since := -1, time.Time{}
	for slot := range d.Repository.Areas.Hosts {
		left, used := former[slot]
		switch {
		case taken[slot]:
		case !used:
			return &slot
		case now.Sub(left) >= slotRest && (best < 0 || left.Before(since)):
			best, since = slot, left
		}
	}
	if best < 0 {
		return nil
	}
	return &best
}

func (t *Table) writeSecurity(s *repository.Security) {
	s.CANext, s.CAExposed = t.CANext, t.Exposed
	s.CA, s.CAKeys, s.Tokens, s.Clients = nil, nil, nil, nil
	s.Datagram = repository.Datagram{Epoch: t.Epoch, Secret: repository.Digest(t.Secret), Since: t.Since.UTC()}
	for _, c := range t.CA {
		s.CA = append(s.CA, c)
	}
	for _, k := range t.CAKeys {
		s.CAKeys = append(s.CAKeys, repository.SealedKey{CA: repository.Digest(k.CA), Holder: k.Holder, Sealed: k.Sealed})
	}
	for _, k := range t.Tokens {
		token := repository.Token{ID: k.ID, Hash: repository.Digest(k.Hash), Expires: k.Expires.UTC(), Role: k.Role, Name: k.Name, Creator: k.Creator, Wrong: k.Wrong}
		if k.Announce.IsValid() {
			token.Announce = append(token.Announce, k.Announce)
		}
		s.Tokens = append(s.Tokens, token)
	}
	for _, c := range t.Clients {
		client := repository.Client{Name: c.Name, Role: c.Role, TokenRole: c.TokenRole}
		for _, k := range c.Keys {
			client.Keys = append(client.Keys, repository.ClientKey{
				Key: repository.Digest(k.Key), Serial: k.Serial, Expires: inUTC(k.Expires), Joined: inUTC(k.Joined), Token: k.Token,
			})
		}
		s.Clients = append(s.Clients, client)
	}
}

// inUTC keeps a time that is none.
func inUTC(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// slotIn is the host slot of a node; -1: it has none, and only reads.
func slotIn(d *repository.Document, id belfry.NodeID) int {
	for i := range d.Nodes {
		if n := &d.Nodes[i]; n.ID == id && n.Slot != nil {
			return *n.Slot
		}
	}
	return -1
}

// rankIn orders the members that can write the repository: disks give each a host
// slot, etcd takes any. -1: this one only reads.
func rankIn(d *repository.Document, id belfry.NodeID) int {
	if d.Repository.Kind != repository.KindEtcd {
		return slotIn(d, id)
	}
	for i := range d.Nodes {
		if d.Nodes[i].ID == id {
			return int(d.Nodes[i].Number)
		}
	}
	return -1
}

// judgeTunables is for [repository.Document.Validate].
func judgeTunables(written map[string]string) error {
	_, err := tunablesOf(written)
	return err
}

// lastEntry says who made a generation, when and why.
func lastEntry(d *repository.Document) (e repository.Entry) {
	if n := len(d.History); n > 0 {
		e = d.History[n-1]
	}
	return e
}

// maxEntryText bounds what is said of a generation, in bytes.
const maxEntryText = 250

// whatChanged is the text of an entry: the first of the changes, and how many
// there are beside it.
func whatChanged(from, to repository.Document) string {
	changes := repository.Diff(from, to)
	changes = slices.DeleteFunc(changes, func(c repository.Change) bool { return c.Consequence })
	if len(changes) == 0 {
		return ""
	}
	// What people do comes with numbers and keys that change by it.
	rank := func(c repository.Change) int { return slices.Index([]string{"cluster", "security"}, c.Section) }
	slices.SortStableFunc(changes, func(a, b repository.Change) int { return cmp.Compare(rank(a), rank(b)) })
	text := changes[0].Text
	if len(text) > maxEntryText {
		text = text[:maxEntryText-3]
		for len(text) > 0 && text[len(text)-1]&0xc0 == 0x80 { // not within a letter (RFC 3629 3)
			text = text[:len(text)-1]
		}
		text += "…"
	}
	return text
}
