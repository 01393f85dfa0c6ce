package agent

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

// A LocalNode says where one agent of a cluster on one machine lives.
type LocalNode struct {
	Name     string
	State    string         // its state directory; made 0700
	Networks []Network      // UDP
	Streams  netip.AddrPort // TCP; the same port on the address of each network
	Web      netip.AddrPort // TCP
}

// LocalClient is the name in the client certificate of such a cluster; its
// holder may do everything, as whoever holds the directory can.
const LocalClient = "local"

// CreateLocal makes a cluster on one machine: an authority, an identity and a
// certificate for each node, the group secret, one member table, and a client
// certificate in clientDir. It refuses state directories that hold a cluster
// already (ErrExist). With a path for it the configuration lies in a repository
// file, which must not be there yet; empty: the members keep it.
func CreateLocal(name string, nodes []LocalNode, clientDir, file string) (*Table, error) {
	for _, n := range nodes {
		if belongs(n.State) {
			return nil, &belfry.Error{Op: "up", Subject: n.State, Err: fmt.Errorf("%w: a cluster lives there", belfry.ErrExist)}
		}
	}
	opts := security.CreateOptions{Now: time.Now()}
	for _, n := range nodes {
		opts.Nodes = append(opts.Nodes, security.NewNode{Dir: filepath.Join(n.State, "keys")})
	}
	made, err := security.CreateCluster(opts)
	if err != nil {
		return nil, err
	}
	if err := security.CreateClient(clientDir, made.CA, opts.Now, LocalClient); err != nil {
		return nil, err
	}
	own, err := security.LoadClient(clientDir)
	if err != nil {
		return nil, err
	}
	table := newTable(name, made, opts.Now)
	table.Clients = []ClientRole{{Name: LocalClient, Role: "admin", Keys: []ClientKey{newClientKey(own.Certificate.Leaf)}}}
	for i, n := range nodes {
		table.Nodes = append(table.Nodes, Node{
			ID:       made.Nodes[i].Node,
			Number:   belfry.NodeNumber(i + 1),
			Name:     n.Name,
			Key:      PublicKey(made.Nodes[i].Public),
			Sealing:  made.Nodes[i].Sealing,
			Networks: n.Networks,
			Streams:  n.Streams,
			Web:      n.Web,
		})
	}
	if err := table.sealCA(made.CA); err != nil {
		return nil, err
	}
	var states []string
	for _, n := range nodes {
		if err := writeWebToken(n.State); err != nil {
			return nil, err
		}
		states = append(states, n.State)
	}
	// The table is written last: a directory that has one is complete.
	if file != "" {
		for i := range table.Nodes {
			table.Nodes[i].Capacity = machineCapacity()
		}
		plan := storagePlan{path: file, create: true, kind: repository.KindFile, layout: repository.DefaultLayout(max(fileHosts, len(nodes)), fileSlot)}
		return table, plan.found(states, table, opts.Now.UTC().Truncate(time.Millisecond))
	}
	for _, state := range states {
		if err := WriteMembers(state, table); err != nil {
			return nil, err
		}
	}
	return table, nil
}

// newTable is the first generation of a cluster that was just made, without
// its nodes.
func newTable(name string, made security.Created, now time.Time) *Table {
	return &Table{
		Cluster: made.Cluster, Name: name, Generation: 1,
		Epoch: made.Epoch, Secret: made.Secret, Since: now.UTC().Truncate(time.Second),
		CA: []Certificate{made.CA.Certificate.Raw},
	}
}

// caHolders is how many nodes can sign, the first ones unless they are removed.
const caHolders = 3

// sealCA gives an authority's key to the nodes that are to sign.
func (t *Table) sealCA(ca *security.CA) error {
	digest := Certificate(ca.Certificate.Raw).Digest()
	for _, n := range t.Nodes {
		if len(n.Sealing) == 0 || t.holds(n.ID, digest) || t.holders(digest) >= caHolders {
			continue
		}
		sealed, err := security.SealCA(ca, n.Sealing)
		if err != nil {
			return err
		}
		t.CAKeys = append(t.CAKeys, SealedKey{CA: digest, Holder: n.ID, Sealed: sealed})
	}
	return nil
}

// holds tells whether a node can sign with an authority's key.
func (t *Table) holds(node belfry.NodeID, ca Digest) bool {
	return slices.ContainsFunc(t.CAKeys, func(k SealedKey) bool { return k.Holder == node && k.CA == ca })
}

// holders counts the nodes that can sign with an authority's key.
func (t *Table) holders(ca Digest) (n int) {
	for _, k := range t.CAKeys {
		if k.CA == ca {
			n++
		}
	}
	return n
}

// offline tells whether the authority's key is kept out of the cluster. Where
// the last nodes that held it were removed it is not: another authority takes
// its place.
func (t *Table) offline() bool { return len(t.CA) > 0 && len(t.CAKeys) == 0 && !t.Exposed }

// dropKeys forgets the sealed keys of an authority that counts no more.
func (t *Table) dropKeys(ca Digest) {
	t.CAKeys = slices.DeleteFunc(t.CAKeys, func(k SealedKey) bool { return k.CA == ca })
}

// webTokenFile holds the token of the web listener, 0600: 128 bits as text.
const webTokenFile = "keys/web.token"

func writeWebToken(state string) error {
	var token [16]byte
	rand.Read(token[:])
	return security.ReplaceFile(filepath.Join(state, webTokenFile), []byte(base64.RawURLEncoding.EncodeToString(token[:])+"\n"))
}
