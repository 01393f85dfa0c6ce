package agent

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

// A Table is one generation of the member table.
type Table struct {
	Cluster    belfry.ClusterID  `json:"cluster"`
	Name       string            `json:"name"`
	Generation uint64            `json:"generation"`           // from 1
	Origin     belfry.NodeID     `json:"origin,omitzero"`      // who wrote this generation; zero: who made the cluster
	Epoch      uint32            `json:"epoch"`                // of the datagram keys
	Secret     Digest            `json:"secret_hash,omitzero"` // of the epoch's group secret, which is nowhere here
	Since      time.Time         `json:"epoch_since,omitzero"` // when the epoch began
	LastNumber belfry.NodeNumber `json:"last_number,omitzero"` // highest that was ever granted: none is used twice
	Nodes      []Node            `json:"nodes"`
	Removed    []RemovedNode     `json:"removed,omitempty"` // the newest of those that were members, oldest first
	Clients    []ClientRole      `json:"clients,omitempty"`
	Roles      []security.Grant  `json:"roles,omitempty"` // what subjects may beyond the defaults
	Tokens     []JoinToken       `json:"tokens,omitempty"`

	// CA are the authorities that count, the one that signs first: one, and two
	// while one replaces the other. CANext says that the second is the one that is
	// to sign, when all know it; else it is on its way out. CAKeys are their
	// private keys, sealed to the nodes that may sign.
	CA     []Certificate `json:"ca,omitempty"`
	CANext bool          `json:"ca_next,omitempty"`
	CAKeys []SealedKey   `json:"ca_keys,omitempty"`
	// Exposed says that a node was removed that may know the authority's key: it
	// is to be replaced.
	Exposed bool `json:"ca_exposed,omitempty"`

	// Tunables are the settings that were written, by name; the others have
	// their defaults.
	Tunables map[string]string `json:"tunables,omitempty"`

	// Resources are what clients depend on, in the order in which they were
	// declared. Drained are the names of the nodes that no client is sent to.
	Resources []repository.Resource `json:"resources,omitempty"`
	Drained   []string              `json:"drained,omitempty"`
}

// A Node is one member.
type Node struct {
	ID       belfry.NodeID     `json:"id"`
	Number   belfry.NodeNumber `json:"number"`            // from 1, unique
	Name     string            `json:"name"`              // unique; 1 to 63 of [a-z0-9-]
	Key      PublicKey         `json:"key"`               // its identity: what its certificate must carry
	Sealing  []byte            `json:"sealing,omitempty"` // its X25519 key: what is sealed to it
	Networks []Network         `json:"networks"`
	Streams  netip.AddrPort    `json:"streams"`
	Web      netip.AddrPort    `json:"web,omitzero"`      // only shown
	Zone     string            `json:"zone,omitempty"`    // what fails together has the same; empty: not known
	Stopped  bool              `json:"stopped,omitempty"` // held left until it is started

	// Capacity is how large its machine is, as it said itself; licenses count it.
	Capacity Capacity `json:"capacity,omitzero"`

	// Certificate is in DER; empty: only the node has it. Where the document lies on
	// shared storage, others know by it whose signature there counts.
	Certificate Certificate `json:"certificate,omitempty"`
}

// A Capacity is how large a machine is; zero: not known.
type Capacity struct {
	Cores       uint64 `json:"cores,omitzero"`
	MemoryBytes uint64 `json:"memory_bytes,omitzero"`
}

// A Network is one heartbeat address of a node.
type Network struct {
	Name      string         `json:"name"`
	Heartbeat netip.AddrPort `json:"heartbeat"`
	Bits      int            `json:"bits,omitempty"` // of its network's prefix; 0: not known
}

// A JoinToken was handed out and is not used yet. With the table alone nobody
// can join: the token's secret is not in it.
type JoinToken struct {
	ID      string    `json:"id"`   // 16 hexadecimal digits
	Hash    Digest    `json:"hash"` // of the secret; zero, which no secret has: wrong ones used it up
	Expires time.Time `json:"expires"`
	Role    string    `json:"role"`           // node, reader, operator or witness
	Name    string    `json:"name,omitempty"` // that whoever uses it must take; empty: any
	Creator string    `json:"creator"`        // who asked for it, where

	// Wrong is how many wrong secrets used it up; zero: it can be used. It is kept
	// until it ends, so that whoever was given it can be told why it is refused.
	Wrong uint32 `json:"wrong_secrets,omitempty"`

	// Announce is told where the cluster is while the token can be used.
	Announce netip.AddrPort `json:"announce,omitzero"`
}

// A SealedKey is the private key of an authority for one node.
type SealedKey struct {
	CA     Digest        `json:"ca"` // SHA-256 of its certificate
	Holder belfry.NodeID `json:"holder"`
	Sealed []byte        `json:"sealed"`
}

// A Certificate is that of an authority, in DER.
type Certificate []byte

// Digest is the certificate's fingerprint.
func (c Certificate) Digest() Digest { return sha256.Sum256(c) }

// A Digest is a SHA-256, in hexadecimal digits as text.
type Digest [sha256.Size]byte

// MarshalText writes 64 hexadecimal digits.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return fmt.Errorf("digest: %d characters; a SHA-256 has %d hexadecimal digits", len(text), 2*len(d))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// A PublicKey is an Ed25519 key as text.
type PublicKey ed25519.PublicKey

// MarshalText is base64.
func (k PublicKey) MarshalText() ([]byte, error) {
	return []byte(base64.StdEncoding.EncodeToString(k)), nil
}

// UnmarshalText is the inverse of MarshalText; it refuses keys of another length.
func (k *PublicKey) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	if len(raw) != ed25519.PublicKeySize {
		return fmt.Errorf("public key: %d bytes; an Ed25519 key has %d", len(raw), ed25519.PublicKeySize)
	}
	*k = raw
	return nil
}

func (k PublicKey) ed25519() ed25519.PublicKey { return ed25519.PublicKey(k) }

func (k PublicKey) equal(o PublicKey) bool { return bytes.Equal(k, o) }

// Node finds a member by its id.
func (t *Table) Node(id belfry.NodeID) (Node, bool) {
	i := slices.IndexFunc(t.Nodes, func(n Node) bool { return n.ID == id })
	if i < 0 {
		return Node{}, false
	}
	return t.Nodes[i], true
}

// authorities are those that count, in DER.
func (t *Table) authorities() (all [][]byte) {
	for _, c := range t.CA {
		all = append(all, c)
	}
	return all
}

// token finds one that was made and not used.
func (t *Table) token(id string) (JoinToken, bool) {
	i := slices.IndexFunc(t.Tokens, func(k JoinToken) bool { return k.ID == id })
	if i < 0 {
		return JoinToken{}, false
	}
	return t.Tokens[i], true
}

// named finds a member by its name.
func (t *Table) named(name string) (Node, bool) {
	i := slices.IndexFunc(t.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return t.Nodes[i], true
}

// Names lists the members for messages, sorted and joined by blanks.
func (t *Table) Names() string { return strings.Join(t.nodeNames(), " ") }

// nodeNames are those of the members, sorted.
func (t *Table) nodeNames() []string {
	names := make([]string, 0, len(t.Nodes))
	for _, n := range t.Nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

// Listed is the check of every handshake (security.md, Streams): a node that
// the table does not list, or lists with another key, is refused whatever
// certificate it shows.
func (t *Table) Listed(id belfry.NodeID, key ed25519.PublicKey) error {
	n, ok := t.Node(id)
	if !ok {
		return fmt.Errorf("%w: node %s is not listed in generation %d", belfry.ErrNotMember, id, t.Generation)
	}
	if !ed25519.PublicKey(n.Key).Equal(key) {
		return fmt.Errorf("%w: node %s shows another key than the listed one", belfry.ErrNotMember, n.Name)
	}
	return nil
}

// Limits of security.md.
const (
	maxMembers = 1024
	maxTokens  = 64 // alive
	maxRemoved = 1024
)

// Validate names everything that is wrong with t.
func (t *Table) Validate() error {
	var wrong faults
	if t.Cluster.IsZero() {
		wrong.add("cluster: missing")
	}
	if t.Generation < 1 || t.Generation > maxGeneration {
		wrong.add("generation: %d; want 1 to %d", t.Generation, uint64(maxGeneration))
	}
	if _, err := tunablesOf(t.Tunables); err != nil {
		wrong = append(wrong, err)
	}
	if err := security.CheckGrants(t.Roles); err != nil {
		wrong = append(wrong, err)
	}
	t.validateNodes(&wrong)
	t.validateCA(&wrong)
	t.validateWitness(&wrong)
	if len(t.Tokens) > maxTokens {
		wrong = append(wrong, fmt.Errorf("%w: tokens: %d; at most %d are alive at a time, revoke some", belfry.ErrLimit, len(t.Tokens), maxTokens))
	}
	return errors.Join(wrong...)
}

// faults are what is wrong with a table.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

func (t *Table) validateNodes(wrong *faults) {
	if len(t.Nodes) == 0 {
		wrong.add("nodes: none")
	}
	if len(t.Nodes) > maxMembers {
		*wrong = append(*wrong, fmt.Errorf("%w: nodes: %d; at most %d", belfry.ErrLimit, len(t.Nodes), maxMembers))
	}
	names, numbers, ids := map[string]bool{}, map[belfry.NodeNumber]bool{}, map[belfry.NodeID]bool{}
	for i, n := range t.Nodes {
		if n.ID.IsZero() || ids[n.ID] {
			wrong.add("nodes[%d].id: missing or used twice", i)
		}
		if n.Number == 0 || numbers[n.Number] {
			wrong.add("nodes[%d].number: %d is zero or used twice", i, n.Number)
		}
		if !validName(n.Name) || names[n.Name] {
			wrong.add("nodes[%d].name: %q; want 1 to 63 of a-z, 0-9 and -, used once", i, n.Name)
		}
		if len(n.Key) != ed25519.PublicKeySize {
			wrong.add("nodes[%d].key: missing", i)
		}
		if len(n.Networks) == 0 || !n.Streams.IsValid() {
			wrong.add("nodes[%d]: needs a heartbeat address and a streams address", i)
		}
		names[n.Name], numbers[n.Number], ids[n.ID] = true, true, true
	}
	for i, n := range t.Removed {
		if n.ID.IsZero() || len(n.Key) != ed25519.PublicKeySize {
			wrong.add("removed[%d]: needs an id and a key", i)
		}
	}
}

func (t *Table) validateCA(wrong *faults) {
	known := map[Digest]bool{}
	for i, c := range t.CA {
		if _, err := x509.ParseCertificate(c); err != nil {
			wrong.add("ca[%d]: %w", i, err)
		}
		known[c.Digest()] = true
	}
	for i, k := range t.CAKeys {
		if _, ok := t.Node(k.Holder); !ok || !known[k.CA] {
			wrong.add("ca_keys[%d]: for a node or an authority that is not listed", i)
		}
	}
}

// validateWitness judges as the document's sections are judged.
func (t *Table) validateWitness(wrong *faults) {
	d := repository.Document{Resources: t.Resources, Witness: repository.Witness{Drained: t.Drained}}
	for _, n := range t.Nodes {
		d.Nodes = append(d.Nodes, repository.Node{Name: n.Name})
		if len(n.Zone) > maxZone {
			wrong.add("node %s: zone: %d bytes; at most %d", n.Name, len(n.Zone), maxZone)
		}
	}
	if err := d.ValidateWitness(); err != nil {
		*wrong = append(*wrong, err)
	}
}

// maxZone is the most bytes of a zone's name, as in the document.
const maxZone = 63

func validName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	return s != "" && len(s) <= 63 && strings.Trim(s, letters) == "" && s[0] != '-'
}

// maxGeneration is far beyond what people can reach, and exact in JSON.
const maxGeneration = 1 << 53

// newer tells whether t is to replace o. Of two that were written at once on
// different nodes, all nodes choose the same. One by a node that t knows to have
// been removed, and o does not, counts for nothing.
func (t *Table) newer(o *Table) bool {
	if t.removed(o.Origin) && !o.removed(o.Origin) {
		return true
	}
	return cmp.Or(cmp.Compare(t.Generation, o.Generation), t.Origin.Compare(o.Origin)) > 0
}

// clone is a copy that can be edited: what a change may touch is its own.
func (t *Table) clone() *Table {
	next := *t
	next.Nodes = slices.Clone(t.Nodes)
	next.Removed = slices.Clone(t.Removed)
	next.Clients = slices.Clone(t.Clients)
	next.Roles = slices.Clone(t.Roles)
	next.Tokens = slices.Clone(t.Tokens)
	next.CA = slices.Clone(t.CA)
	next.CAKeys = slices.Clone(t.CAKeys)
	next.Tunables = maps.Clone(t.Tunables)
	next.Resources = slices.Clone(t.Resources)
	for i := range next.Resources {
		next.Resources[i].Holders = slices.Clone(next.Resources[i].Holders)
	}
	next.Drained = slices.Clone(t.Drained)
	return &next
}

// follows checks what no generation may change: the cluster, and who a node is
// that stays a member.
func (t *Table) follows(old *Table) error {
	if t.Cluster != old.Cluster {
		return fmt.Errorf("%w: it is of cluster %s, this node is of %s", belfry.ErrNotMember, t.Cluster, old.Cluster)
	}
	for _, was := range old.Nodes {
		if n, ok := t.Node(was.ID); ok && (n.Number != was.Number || !n.Key.equal(was.Key)) {
			return fmt.Errorf("%w: it gives node %s another key or number; a node keeps both until it is removed", belfry.ErrNotMember, was.Name)
		}
	}
	return nil
}

// equal compares all but who wrote it, as which generation.
func (t *Table) equal(o *Table) (bool, error) {
	a, b := t.clone(), o.clone()
	a.Generation, a.Origin = b.Generation, b.Origin
	mine, err := a.encode()
	if err != nil {
		return false, err
	}
	its, err := b.encode()
	return bytes.Equal(mine, its), err
}

// add grants the next number to a node and makes it a member.
func (t *Table) add(n Node) {
	for _, other := range t.Nodes { // tables from before numbers were counted
		t.LastNumber = max(t.LastNumber, other.Number)
	}
	t.LastNumber++
	n.Number = t.LastNumber
	t.Nodes = append(t.Nodes, n)
}

// remove ends the membership of a node, and with it its share of the
// authority's key.
func (t *Table) remove(id belfry.NodeID) {
	for _, n := range t.Nodes {
		t.LastNumber = max(t.LastNumber, n.Number)
		if n.ID == id {
			t.Removed = append(t.Removed, RemovedNode{ID: n.ID, Key: n.Key})
			t.dispossess(n.Name)
		}
	}
	if len(t.Removed) > maxRemoved {
		t.Removed = slices.Delete(t.Removed, 0, len(t.Removed)-maxRemoved)
	}
	t.Nodes = slices.DeleteFunc(t.Nodes, func(n Node) bool { return n.ID == id })
	t.Exposed = t.Exposed || slices.ContainsFunc(t.CAKeys, func(k SealedKey) bool { return k.Holder == id })
	t.CAKeys = slices.DeleteFunc(t.CAKeys, func(k SealedKey) bool { return k.Holder == id })
}

// dispossess takes the resources from a node that goes; one that no other node
// can hold goes with it.
func (t *Table) dispossess(name string) {
	goes := func(holder string) bool { return holder == name }
	t.Drained = slices.DeleteFunc(slices.Clone(t.Drained), goes)
	t.Resources = slices.Clone(t.Resources)
	for i := range t.Resources {
		t.Resources[i].Holders = slices.DeleteFunc(slices.Clone(t.Resources[i].Holders), goes)
	}
	t.Resources = slices.DeleteFunc(t.Resources, func(r repository.Resource) bool { return len(r.Holders) == 0 })
}
