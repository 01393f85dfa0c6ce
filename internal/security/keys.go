package security

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"

	"github.com/belfry-ha/belfry"
)

// Names of files in the folder of keys, $STATE/keys. The secrets lie beside
// them as group-EPOCH.
const (
	nodeKeyFile  = "node.key" // PKCS #8 in PEM
	nodeCertFile = "node.crt"
	caCertFile   = "ca.crt" // one certificate, two while the CA is rotated
)

// Types of PEM blocks.
const (
	pemKey  = "PRIVATE KEY"
	pemCert = "CERTIFICATE"
)

// Keys is what a node proves itself with. It is read-only after Load and safe
// for concurrent use.
type Keys struct {
	Cluster     belfry.ClusterID
	Node        belfry.NodeID
	Certificate tls.Certificate // with the node's identity as private key
	CA          []*x509.Certificate
	Secrets     map[uint32]Secret // by epoch
	Epoch       uint32            // the newest of them
}

// Public is the public half of the node's identity, as the configuration
// lists it.
func (k *Keys) Public() ed25519.PublicKey {
	return k.Certificate.Leaf.PublicKey.(ed25519.PublicKey) // Load has checked the type
}

// Identity is what the node's certificate says.
func (k *Keys) Identity() Identity { return Identity{Cluster: k.Cluster, Node: k.Node} }

// roots is the CA set as a pool.
func (k *Keys) roots() *x509.CertPool { return pool(k.CA) }

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// Load reads a folder of keys and checks that its parts belong together. An
// expired certificate is no error: heartbeats hang on the configuration, not
// on dates. It wraps fs.ErrNotExist or ErrNotFound for what is missing,
// ErrPermission for a file that others can read or that is not this user's,
// ErrUsage for what is malformed or does not fit.
func Load(dir string) (*Keys, error) {
	k, err := load(dir)
	if err != nil {
		return nil, &belfry.Error{Op: "keys.load", Subject: dir, Err: err}
	}
	return k, nil
}

func load(dir string) (*Keys, error) {
	if err := checkMode(dir, 0o022, "go-w"); err != nil {
		return nil, err
	}
	key, err := readKey(filepath.Join(dir, nodeKeyFile))
	if err != nil {
		return nil, err
	}
	chain, err := readCertificates(filepath.Join(dir, nodeCertFile))
	if err != nil {
		return nil, err
	}
	k := &Keys{Certificate: tls.Certificate{Certificate: [][]byte{chain[0].Raw}, PrivateKey: key, Leaf: chain[0]}}
	if k.CA, err = readCertificates(filepath.Join(dir, caCertFile)); err != nil {
		return nil, err
	}
	if k.Secrets, k.Epoch, err = readSecrets(dir); err != nil {
		return nil, err
	}
	return k, k.check(dir, key)
}

func (k *Keys) check(dir string, key ed25519.PrivateKey) error {
	leaf := k.Certificate.Leaf
	if !key.Public().(ed25519.PublicKey).Equal(leaf.PublicKey) {
		return fmt.Errorf("%w: %s is not for the key in %s; both of one node", belfry.ErrUsage, nodeCertFile, nodeKeyFile)
	}
	id, err := certificateIdentity(leaf)
	if err != nil {
		return err
	}
	if id.Client != "" {
		return fmt.Errorf("%w: %s is of %s; a node's is needed", belfry.ErrUsage, nodeCertFile, id)
	}
	for _, ca := range k.CA {
		if cluster, err := caCluster(ca); err != nil {
			return err
		} else if cluster != id.Cluster {
			return fmt.Errorf("%w: %s is of cluster %s and %s of cluster %s; both of one cluster",
				belfry.ErrUsage, caCertFile, cluster, nodeCertFile, id.Cluster)
		}
	}
	// At the time when it was issued, so that its end does not matter.
	if err := verifyChain(leaf, k.roots(), leaf.NotBefore.Add(backdate), x509.ExtKeyUsageServerAuth); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, nodeCertFile), err)
	}
	k.Cluster, k.Node = id.Cluster, id.Node
	return nil
}

// writeIdentity puts a node's key and certificates in place.
func writeIdentity(dir string, key ed25519.PrivateKey, cert []byte, ca *x509.Certificate) error {
	if err := writeKey(filepath.Join(dir, nodeKeyFile), key); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, caCertFile), encodeCertificate(ca.Raw), false); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, nodeCertFile), encodeCertificate(cert), false)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})
}

func newKey() (ed25519.PublicKey, ed25519.PrivateKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	return public, private, nil
}

func writeKey(name string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})
	defer clear(text)
	return writeFile(name, text, false)
}

func readKey(name string) (ed25519.PrivateKey, error) {
	text, err := readFile(name)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemKey || len(rest) != 0 {
		return nil, fmt.Errorf("%w: %s holds no key; one PEM block %q", belfry.ErrUsage, name, pemKey)
	}
	defer clear(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; an Ed25519 key in PKCS #8", belfry.ErrUsage, name, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: %s holds a %T; an Ed25519 key", belfry.ErrUsage, name, parsed)
	}
	return key, nil
}

// readCertificates reads one or more.
func readCertificates(name string) (certs []*x509.Certificate, err error) {
	text, err := readFile(name)
	if err != nil {
		return nil, err
	}
	return parseCertificates(name, text)
}

func parseCertificates(name string, text []byte) (certs []*x509.Certificate, err error) {
	for len(text) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != pemCert {
			return nil, fmt.Errorf("%w: %s holds something else than certificates; PEM blocks %q only", belfry.ErrUsage, name, pemCert)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w; certificates made by this program", belfry.ErrUsage, name, err)
		}
		if _, ok := cert.PublicKey.(ed25519.PublicKey); !ok {
			return nil, fmt.Errorf("%w: %s holds a certificate for a %T; Ed25519 only", belfry.ErrUsage, name, cert.PublicKey)
		}
		certs, text = append(certs, cert), rest
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: %s is empty; at least one certificate", belfry.ErrUsage, name)
	}
	return certs, nil
}
