package security

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"time"

	"github.com/belfry-ha/belfry"
)

// CreateOptions says what CreateCluster makes.
type CreateOptions struct {
	Cluster belfry.ClusterID // zero: a new one
	Now     time.Time        // begin of the certificates; zero: now
	Nodes   []NewNode        // at least one
	Epoch   uint32           // of the group secret; zero: 1
	// CAKeyFile is where the authority's private key is written, 0600. Empty:
	// nowhere; whoever calls seals it to nodes with SealCA.
	CAKeyFile string
}

// NewNode is one node of a cluster to be made.
type NewNode struct {
	Dir  string        // its folder of keys, $STATE/keys; made if it is not there
	Node belfry.NodeID // zero: a new one
}

// Created is a cluster that was made: what its configuration lists.
type Created struct {
	Cluster belfry.ClusterID
	CA      *CA
	Epoch   uint32
	Secret  [sha256.Size]byte // SHA-256 of the epoch's group secret
	Nodes   []CreatedNode     // in the order of CreateOptions
}

// CreatedNode is one node and the public halves of its keys.
type CreatedNode struct {
	Node    belfry.NodeID
	Public  ed25519.PublicKey
	Sealing []byte // X25519
}

// CreateCluster makes an authority, a group secret and the identities of all
// nodes, and writes each node's folder of keys. This is for clusters that begin
// on one machine; private keys of nodes elsewhere are made there. It wraps
// ErrExist if there are keys already: they are kept.
func CreateCluster(opts CreateOptions) (Created, error) {
	made, err := create(opts)
	if err != nil {
		return Created{}, &belfry.Error{Op: "keys.create", Err: err}
	}
	return made, nil
}

func create(opts CreateOptions) (made Created, err error) {
	if len(opts.Nodes) == 0 {
		return made, fmt.Errorf("%w: cluster without nodes; at least one", belfry.ErrUsage)
	}
	if opts.Cluster.IsZero() {
		opts.Cluster = belfry.NewClusterID()
	}
	if opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	opts.Epoch = max(opts.Epoch, 1)
	ca, err := NewCA(opts.Cluster, opts.Now)
	if err != nil {
		return made, err
	}
	if opts.CAKeyFile != "" {
		if err := makeDir(filepath.Dir(opts.CAKeyFile)); err != nil {
			return made, err
		}
		if err := writeKey(opts.CAKeyFile, ca.key); err != nil {
			return made, err
		}
	}
	made = Created{Cluster: opts.Cluster, CA: ca, Epoch: opts.Epoch}
	secret := NewSecret()
	made.Secret = sha256.Sum256(secret[:])
	for _, n := range opts.Nodes {
		node, err := createNode(ca, n, opts, secret)
		if err != nil {
			return Created{}, err
		}
		made.Nodes = append(made.Nodes, node)
	}
	return made, nil
}

func createNode(ca *CA, n NewNode, opts CreateOptions, secret Secret) (CreatedNode, error) {
	if n.Node.IsZero() {
		n.Node = belfry.NewNodeID()
	}
	if err := makeDir(n.Dir); err != nil {
		return CreatedNode{}, err
	}
	public, private, err := newKey()
	if err != nil {
		return CreatedNode{}, err
	}
	defer clear(private)
	cert, err := ca.IssueNode(opts.Now, n.Node, public)
	if err != nil {
		return CreatedNode{}, err
	}
	if err := writeIdentity(n.Dir, private, cert, ca.Certificate); err != nil {
		return CreatedNode{}, err
	}
	seal, err := NewSealingKey()
	if err != nil {
		return CreatedNode{}, err
	}
	if err := WriteSealingKey(n.Dir, seal); err != nil {
		return CreatedNode{}, err
	}
	return CreatedNode{Node: n.Node, Public: public, Sealing: seal.Public()}, WriteSecret(n.Dir, opts.Epoch, secret)
}

// LoadCA reads the authority from its certificate (ca.crt of any node) and its
// private key. It wraps what Load wraps.
func LoadCA(certFile, keyFile string) (*CA, error) {
	key, err := readKey(keyFile)
	if err != nil {
		return nil, &belfry.Error{Op: "ca.load", Subject: keyFile, Err: err}
	}
	certs, err := readCertificates(certFile)
	if err != nil {
		return nil, &belfry.Error{Op: "ca.load", Subject: certFile, Err: err}
	}
	for _, cert := range certs {
		if key.Public().(ed25519.PublicKey).Equal(cert.PublicKey) {
			cluster, err := caCluster(cert)
			if err != nil {
				return nil, &belfry.Error{Op: "ca.load", Subject: certFile, Err: err}
			}
			return &CA{Cluster: cluster, Certificate: cert, key: key}, nil
		}
	}
	return nil, &belfry.Error{
		Op: "ca.load", Subject: keyFile,
		Err: fmt.Errorf("%w: it is not the key of an authority in %s", belfry.ErrUsage, certFile),
	}
}
