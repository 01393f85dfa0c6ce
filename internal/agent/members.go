package agent

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
}

// A Table is one generation of the member table.
type Table struct {
	Cluster    belfry.ClusterID `json:"cluster"`
	Name       string           `json:"name"`
	Generation uint64           `json:"generation"` // from 1
	Epoch      uint32           `json:"epoch"`      // of the datagram keys
	Nodes      []Node           `json:"nodes"`
	Clients    []ClientRole     `json:"clients,omitempty"`
}

// A Node is one member.
type Node struct {
	ID       belfry.NodeID     `json:"id"`
	Number   belfry.NodeNumber `json:"number"` // from 1, unique
	Name     string            `json:"name"`   // unique; 1 to 63 of [a-z0-9-]
	Key      PublicKey         `json:"key"`    // its identity: what its certificate must carry
	Networks []Network         `json:"networks"`
	Streams  netip.AddrPort    `json:"streams"`
	Web      netip.AddrPort    `json:"web,omitzero"` // only shown
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

// memberFile is the member table of a cluster without repository, written
// once by whoever made the cluster.
const memberFile = "members.json"

// maxMemberFile is security.md's limit of a document, in bytes.
const maxMemberFile = 1 << 20

type fileMembership struct{ table *Table }

func (m fileMembership) Table() *Table { return m.table }

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
	table := new(Table)
	if err := json.Unmarshal(data, table); err != nil {
		return nil, fmt.Errorf("member table %s: %w", path, err)
	}
	if err := table.Validate(); err != nil {
		return nil, fmt.Errorf("member table %s: %w", path, err)
	}
	return fileMembership{table}, nil
}

// WriteMembers puts the table into a state directory, whole or not at all.
func WriteMembers(state string, t *Table) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("member table: %w", err)
	}
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("member table: %w", err)
	}
	return security.ReplaceFile(filepath.Join(state, memberFile), append(data, '\n'))
}
