package repository

import (
	"net/netip"
	"time"

	"github.com/belfry-ha/belfry"
)

// Schema is the newest level of the document that this agent knows. A cluster
// rises to it by `belfry upgrade finalize`, when all its agents know it.
const Schema = 1

// MaxDocument is the greatest size of a document, in bytes.
const MaxDocument = MaxSlotSize

// Limits that are not in the tags of the fields.
const (
	maxGeneration = 1<<53 - 1 // the largest whole number that every JSON reader holds (RFC 8259 6)
	maxHistory    = 64        // entries
)

// A Document is the configuration of a cluster: one value, of which each change
// is a new generation (repository.md, The document). Sections and fields are in
// the order in which they are written. What is empty is left out, but for the
// sections that are structures.
//
// The tag limit bounds a list, text or map: its length; for a list of texts
// then the length of each, for a map that of its keys and that of its values.
// The tag secret marks what [Diff] never shows, the tag empty is what it says
// of nothing, the tag lines marks what may hold line ends. A document is a
// value: who changes one copies first what it shares with others.
type Document struct {
	Schema     uint32            `json:"schema"`
	Cluster    Cluster           `json:"cluster"`
	Nodes      []Node            `json:"nodes,omitempty" limit:"10000"`        // in the order in which they joined
	Former     []FormerNode      `json:"former,omitempty" limit:"10000"`       // oldest first
	Networks   []Network         `json:"networks,omitempty" limit:"64"`        // as the operator wrote them
	Links      []Link            `json:"links,omitempty" limit:"4096"`         // only what differs from the networks
	Repository Storage           `json:"repository"`                           // where the document is kept
	Tunables   map[string]string `json:"tunables,omitempty" limit:"64,63,256"` // written ones; others have their defaults
	Resources  []Resource        `json:"resources,omitempty" limit:"4096"`
	Witness    Witness           `json:"witness"`
	Linked     []LinkedCluster   `json:"linked,omitempty" limit:"64"`
	Handlers   []Handler         `json:"handlers,omitempty" limit:"100"`
	Licenses   Licenses          `json:"licenses"`
	Roles      []Grant           `json:"roles,omitempty" limit:"256"` // beyond the defaults
	Security   Security          `json:"security"`
	Ops        []Operation       `json:"ops,omitempty" limit:"10000"`
	History    []Entry           `json:"history,omitempty" limit:"64"` // oldest first; the last is this generation
	Moving     *Moving           `json:"moving,omitempty"`             // nil: the disks stay
	Confirm    *Confirmation     `json:"confirm,omitempty"`            // nil: nothing waits for `config confirm`
}

// Generation is that of the document itself; zero for one without history.
func (d *Document) Generation() uint64 {
	if len(d.History) == 0 {
		return 0
	}
	return d.History[len(d.History)-1].Generation
}

// A Cluster is what a cluster is called.
type Cluster struct {
	Name    string           `json:"name" limit:"63"`
	UUID    belfry.ClusterID `json:"uuid"`
	Created time.Time        `json:"created,omitzero"` // zero: not known
	// LastNumber is the highest number of a node that was ever granted. Zero: it
	// follows from the nodes and the former ones.
	LastNumber belfry.NodeNumber `json:"last_number,omitzero"`
}

// A Node is one member.
type Node struct {
	Name        string            `json:"name" limit:"63"` // 1 to 63 of [a-z0-9-], unique
	ID          belfry.NodeID     `json:"id"`
	Number      belfry.NodeNumber `json:"number"`         // on the wire; from 1, unique
	Slot        *int              `json:"slot,omitempty"` // on the disks, from 0; nil: none, it only reads
	Zone        string            `json:"zone,omitempty" limit:"63"`
	Key         []byte            `json:"key" limit:"32"`                              // Ed25519: its identity
	Sealing     []byte            `json:"sealing,omitempty" limit:"32"`                // X25519: what is sealed to it
	Certificate []byte            `json:"certificate,omitempty" limit:"4096"`          // DER; empty: only the node has it
	Addresses   []Address         `json:"addresses,omitempty" limit:"16"`              // one for each of its networks
	Streams     netip.AddrPort    `json:"streams"`                                     // TCP
	Web         netip.AddrPort    `json:"web,omitzero"`                                // only shown
	Intent      string            `json:"intent,omitempty" limit:"16" empty:"running"` // [IntentStopped] or empty
	Capacity    Capacity          `json:"capacity,omitzero"`                           // that licenses count
	Joined      Moment            `json:"joined,omitzero"`                             // zero: made with the cluster, or not known
}

// IntentStopped holds a node left until it is started (cluster.md 11).
const IntentStopped = "stopped"

// An Address is where a node is heard on one network.
type Address struct {
	Network   string         `json:"network" limit:"63"`
	Heartbeat netip.AddrPort `json:"heartbeat"`     // UDP
	Bits      int            `json:"bits,omitzero"` // of the prefix that it has there; 0: not known
}

// A Capacity is how large a machine is.
type Capacity struct {
	Cores       uint64 `json:"cores,omitzero"`
	MemoryBytes uint64 `json:"memory_bytes,omitzero"`
}

// A Moment is when something came into force.
type Moment struct {
	Generation uint64    `json:"generation"`
	Time       time.Time `json:"time"`
}

// A FormerNode was a member. Its id, and its number while it is listed, are
// never given again; its key is kept so that it, and nobody else, can be told.
type FormerNode struct {
	ID      belfry.NodeID     `json:"id"`
	Number  belfry.NodeNumber `json:"number,omitzero"` // zero: not known
	Slot    *int              `json:"slot,omitempty"`
	Key     []byte            `json:"key" limit:"32"`
	Removed Moment            `json:"removed,omitzero"` // zero: not known
}

// A Network is one that carries heartbeats.
type Network struct {
	Name     string       `json:"name" limit:"63"`   // unique
	Prefix   netip.Prefix `json:"prefix,omitzero"`   // zero: what the nodes have there
	Port     uint16       `json:"port,omitzero"`     // UDP, of nodes that join; 0: the agent's setting
	Priority int          `json:"priority,omitzero"` // 0 to 255; links of greater ones are preferred
}

// A Link is what one pair of nodes has otherwise than the network says.
type Link struct {
	A        string         `json:"a" limit:"63"` // name of a node
	B        string         `json:"b" limit:"63"` // that of another, after A in the alphabet
	Network  string         `json:"network" limit:"63"`
	Disabled bool           `json:"disabled,omitzero"`                  // no heartbeats
	Priority *int           `json:"priority,omitempty" empty:"default"` // nil: the network's
	AtA      netip.AddrPort `json:"at_a,omitzero"`                      // where A is heard by B; set with AtB or not at all
	AtB      netip.AddrPort `json:"at_b,omitzero"`
}

// The kinds of [Storage].
const (
	KindMembers = "members" // no storage: each member keeps the document
	KindDisk    = "disk"
	KindFile    = "file" // of one machine
	KindEtcd    = "etcd"
)

// A Storage is the section repository: where the document is kept. Paths and
// credentials are settings of the agent.
type Storage struct {
	Kind   string `json:"kind" limit:"16"`
	UUID   UUID   `json:"uuid,omitzero"`
	Epoch  uint64 `json:"epoch,omitzero"`                            // of the disks, from 1; it never falls
	Areas  *Areas `json:"areas,omitempty"`                           // of disks and files
	Etcd   *Etcd  `json:"etcd,omitempty"`                            // of kind etcd
	Spares []UUID `json:"spares,omitempty" limit:"6"`                // reserved disks that may take the place of others, the first one first
	Poll   string `json:"poll,omitempty" limit:"32" empty:"default"` // a duration, 1s to 1m; empty: 5s
}

// An Etcd is where in etcd the document lies. How a node proves itself there is
// a setting of its agent.
type Etcd struct {
	Endpoints []string `json:"endpoints,omitempty" limit:"16,256"` // HOST:PORT, or unix:///PATH; at least one
	Prefix    string   `json:"prefix,omitempty" limit:"256"`       // of the key; empty: none
}

// Areas are the disks of one epoch, and where on each of them things lie. The
// numbers are those of [Layout].
type Areas struct {
	Hosts         int    `json:"hosts"`
	SlotSize      int64  `json:"slot_size"`
	RecordOffset  int64  `json:"record_offset"`
	PayloadOffset int64  `json:"payload_offset"`
	Disks         []UUID `json:"disks,omitempty" limit:"3"` // 1 to [MaxDisks]
}

// Layout is the same for one device.
func (a *Areas) Layout() Layout {
	return Layout{
		Hosts: a.Hosts, SlotSize: a.SlotSize, RecordOffset: a.RecordOffset, PayloadOffset: a.PayloadOffset,
		Used: a.PayloadOffset + 2*int64(a.Hosts)*a.SlotSize,
	}
}

// A Moving is the change of place that begins the next epoch: after it nothing
// but its completion is committed in the old one. It determines every byte of
// what is written in the new areas.
type Moving struct {
	Epoch uint64 `json:"epoch"`                                       // one after the present one
	Op    OpID   `json:"op"`                                          // of the completion
	Kind  string `json:"kind,omitempty" limit:"16" empty:"as before"` // of the next epoch: disk, file or etcd; empty: as before
	Areas *Areas `json:"areas,omitempty"`                             // of disks and files
	Etcd  *Etcd  `json:"etcd,omitempty"`                              // of kind etcd
}

// NextKind is the kind of the repository in the epoch that it moves to; without a
// move its own.
func (d *Document) NextKind() string {
	if d.Moving != nil && d.Moving.Kind != "" {
		return d.Moving.Kind
	}
	return d.Repository.Kind
}

// An Operation is the last one of a node: so a commit whose outcome was not
// known is found again.
type Operation struct {
	Node       belfry.NodeID `json:"node"`
	ID         OpID          `json:"id"`
	Generation uint64        `json:"generation"` // that it made
}

// An Entry says who made a generation.
type Entry struct {
	Generation uint64        `json:"generation"`
	Time       time.Time     `json:"time"`
	Author     string        `json:"author" limit:"256"`         // the subject who asked, and where
	Node       belfry.NodeID `json:"node,omitzero"`              // who committed; zero: who made the cluster
	Text       string        `json:"text,omitempty" limit:"256"` // what was done
	Hash       Digest        `json:"hash,omitzero"`              // of the generation before; zero in the first
	Audit      Digest        `json:"audit,omitzero"`             // of the node's newest audit checkpoint (security.md, Audit)
}

// A Confirmation is what `config apply --confirm` leaves: without `config
// confirm` before the deadline the leader rolls back to the base.
type Confirmation struct {
	Base     uint64    `json:"base"`     // generation
	Deadline time.Time `json:"deadline"` // by the median of the members' clocks
}
