package agent

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
)

// A Membership says who is a member of the cluster. The authority is the
// committed document; until a repository holds it, a file beside the keys
// does (OpenMembers). What drops in later implements the same.
type Membership interface {
	// Table is the newest generation. It is safe for concurrent use and the
	// result is shared: nobody writes to it.
	Table() *Table
	// Change edits a copy of the newest table. If that changes it, the copy is
	// the next generation, with by as its origin; it is durable when Change
	// returns. dryRun checks and keeps nothing. Not to be called concurrently,
	// nor with Take.
	Change(by belfry.NodeID, dryRun bool, edit func(*Table) error) (changed bool, err error)
	// Take keeps another node's table, if it is newer than this one's; it is
	// durable when Take returns. The error says why it can not be this
	// cluster's.
	Take(document []byte) (taken bool, err error)
}

// A Table is one generation of the member table.
type Table struct {
	Cluster    belfry.ClusterID `json:"cluster"`
	Name       string           `json:"name"`
	Generation uint64           `json:"generation"`      // from 1
	Origin     belfry.NodeID    `json:"origin,omitzero"` // who wrote this generation; zero: who made the cluster
	Epoch      uint32           `json:"epoch"`           // of the datagram keys
	Nodes      []Node           `json:"nodes"`
	Clients    []ClientRole     `json:"clients,omitempty"`

	// Tunables are the settings that were written, by name; the others have
	// their defaults.
	Tunables map[string]string `json:"tunables,omitempty"`
}

// A Node is one member.
type Node struct {
	ID       belfry.NodeID     `json:"id"`
	Number   belfry.NodeNumber `json:"number"` // from 1, unique
	Name     string            `json:"name"`   // unique; 1 to 63 of [a-z0-9-]
	Key      PublicKey         `json:"key"`    // its identity: what its certificate must carry
	Networks []Network         `json:"networks"`
	Streams  netip.AddrPort    `json:"streams"`
	Web      netip.AddrPort    `json:"web,omitzero"`      // only shown
	Stopped  bool              `json:"stopped,omitempty"` // held left until it is started
}

// A Network is one heartbeat address of a node.
type Network struct {
	Name      string         `json:"name"`
	Heartbeat netip.AddrPort `json:"heartbeat"`
}

// A ClientRole gives the holder of a client certificate its role.
type ClientRole struct {
	Name string `json:"name"`
	Role string `json:"role"` // reader, operator, witness, admin
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

// Node finds a member by its id.
func (t *Table) Node(id belfry.NodeID) (Node, bool) {
	i := slices.IndexFunc(t.Nodes, func(n Node) bool { return n.ID == id })
	if i < 0 {
		return Node{}, false
	}
	return t.Nodes[i], true
}

// Names lists the members for messages, sorted and joined by blanks.
func (t *Table) Names() string {
	names := make([]string, 0, len(t.Nodes))
	for _, n := range t.Nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
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

// Validate names everything that is wrong with t.
func (t *Table) Validate() error {
	var wrong []error
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if t.Cluster.IsZero() {
		bad("cluster: missing")
	}
	if t.Generation < 1 || t.Generation > maxGeneration {
		bad("generation: %d; want 1 to %d", t.Generation, uint64(maxGeneration))
	}
	if _, err := tunablesOf(t.Tunables); err != nil {
		wrong = append(wrong, err)
	}
	if len(t.Nodes) == 0 {
		bad("nodes: none")
	}
	names, numbers, ids := map[string]bool{}, map[belfry.NodeNumber]bool{}, map[belfry.NodeID]bool{}
	for i, n := range t.Nodes {
		if n.ID.IsZero() || ids[n.ID] {
			bad("nodes[%d].id: missing or used twice", i)
		}
		if n.Number == 0 || numbers[n.Number] {
			bad("nodes[%d].number: %d is zero or used twice", i, n.Number)
		}
		if !validName(n.Name) || names[n.Name] {
			bad("nodes[%d].name: %q; want 1 to 63 of a-z, 0-9 and -, used once", i, n.Name)
		}
		if len(n.Key) != ed25519.PublicKeySize {
			bad("nodes[%d].key: missing", i)
		}
		if len(n.Networks) == 0 || !n.Streams.IsValid() {
			bad("nodes[%d]: needs a heartbeat address and a streams address", i)
		}
		names[n.Name], numbers[n.Number], ids[n.ID] = true, true, true
	}
	return errors.Join(wrong...)
}

func validName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	return s != "" && len(s) <= 63 && strings.Trim(s, letters) == "" && s[0] != '-'
}

// memberFile is the member table of a cluster without repository: written by
// whoever made the cluster, and replaced with each change.
const memberFile = "members.json"

// maxMemberFile is security.md's limit of a document, in bytes.
const maxMemberFile = 1 << 20

// maxGeneration is far beyond what people can reach, and exact in JSON.
const maxGeneration = 1 << 53

// newer tells whether t is to replace o. Of two that were written at once on
// different nodes, all nodes choose the same.
func (t *Table) newer(o *Table) bool {
	return cmp.Or(cmp.Compare(t.Generation, o.Generation), t.Origin.Compare(o.Origin)) > 0
}

// encode is the form of the file and of the wire.
func (t *Table) encode() ([]byte, error) {
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("member table: %w", err)
	}
	return append(data, '\n'), nil
}

// decodeTable is the inverse of encode; the table is valid.
func decodeTable(data []byte) (*Table, error) {
	if len(data) > maxMemberFile {
		return nil, fmt.Errorf("%w: %d bytes; at most %d", belfry.ErrLimit, len(data), maxMemberFile)
	}
	table := new(Table)
	if err := json.Unmarshal(data, table); err != nil {
		return nil, err
	}
	return table, table.Validate()
}

// clone is a copy that can be edited: what a change may touch is its own.
func (t *Table) clone() *Table {
	next := *t
	next.Nodes = slices.Clone(t.Nodes)
	next.Tunables = maps.Clone(t.Tunables)
	return &next
}

// sameMembers compares all that can not change yet: who is a member, with
// which key and addresses, and the rights of clients.
func (t *Table) sameMembers(o *Table) error {
	if t.Cluster != o.Cluster {
		return fmt.Errorf("%w: it is of cluster %s, this node is of %s", belfry.ErrNotMember, t.Cluster, o.Cluster)
	}
	mine, err := o.fixed().encode()
	if err != nil {
		return err
	}
	its, err := t.fixed().encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(mine, its) {
		return fmt.Errorf("%w: it changes the members (%s; here %s), their keys or addresses, the clients or the key epoch, which this version can not", belfry.ErrUnsupported, t.Names(), o.Names())
	}
	return nil
}

// fixed is t without all that can change.
func (t *Table) fixed() *Table {
	f := t.clone()
	f.Generation, f.Origin, f.Tunables = 0, belfry.NodeID{}, nil
	for i := range f.Nodes {
		f.Nodes[i].Stopped = false
	}
	return f
}

// fileMembership is the table in a file of the state directory.
type fileMembership struct {
	state string
	table atomic.Pointer[Table]
}

func (m *fileMembership) Table() *Table { return m.table.Load() }

func (m *fileMembership) Change(by belfry.NodeID, dryRun bool, edit func(*Table) error) (changed bool, err error) {
	old := m.table.Load()
	next := old.clone()
	if err := edit(next); err != nil {
		return false, err
	}
	if slices.EqualFunc(old.Nodes, next.Nodes, func(a, b Node) bool { return a.Stopped == b.Stopped }) && maps.Equal(old.Tunables, next.Tunables) {
		return false, nil
	}
	next.Generation, next.Origin = old.Generation+1, by
	if err := errors.Join(next.Validate(), next.sameMembers(old)); err != nil {
		return false, fmt.Errorf("member table: %w", err)
	}
	if dryRun {
		return true, nil
	}
	return true, m.keep(next)
}

func (m *fileMembership) Take(document []byte) (taken bool, err error) {
	old := m.table.Load()
	next, err := decodeTable(document)
	if err != nil {
		return false, fmt.Errorf("member table: %w", err)
	}
	if err := next.sameMembers(old); err != nil {
		return false, fmt.Errorf("member table of generation %d: %w", next.Generation, err)
	}
	if _, ok := next.Node(next.Origin); !ok && !next.Origin.IsZero() {
		return false, fmt.Errorf("member table of generation %d: %w: written by %s, which is not listed", next.Generation, belfry.ErrNotMember, next.Origin)
	}
	if !next.newer(old) {
		return false, nil
	}
	return true, m.keep(next)
}

// keep makes a table the newest one once it is durable.
func (m *fileMembership) keep(t *Table) error {
	if err := WriteMembers(m.state, t); err != nil {
		return err
	}
	m.table.Store(t)
	return nil
}

// OpenMembers reads the member table in a state directory.
func OpenMembers(state string) (Membership, error) {
	path := filepath.Join(state, memberFile)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &belfry.Error{Op: "agent", Subject: state, Err: fmt.Errorf("%w: this directory belongs to no cluster; belfry up --state DIR makes one", belfry.ErrNotMember)}
	}
	if err != nil {
		return nil, fmt.Errorf("member table: %w", err)
	}
	if info.Size() > maxMemberFile {
		return nil, fmt.Errorf("member table %s: %w: %d bytes; at most %d", path, belfry.ErrLimit, info.Size(), maxMemberFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("member table: %w", err)
	}
	table, err := decodeTable(data)
	if err != nil {
		return nil, fmt.Errorf("member table %s: %w", path, err)
	}
	m := &fileMembership{state: state}
	m.table.Store(table)
	return m, nil
}

// WriteMembers puts the table into a state directory, whole or not at all.
func WriteMembers(state string, t *Table) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("member table: %w", err)
	}
	data, err := t.encode()
	if err != nil {
		return err
	}
	return security.ReplaceFile(filepath.Join(state, memberFile), data)
}
