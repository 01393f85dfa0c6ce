package security

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// joinPrefix and a cluster's UUID are the server name (RFC 6066 3) under which
// a node lets somebody in who has no certificate yet.
const joinPrefix = "join."

// IsJoin tells whether a connection is of somebody without a certificate, who
// may reach the service for joining and nothing else.
func IsJoin(state tls.ConnectionState) bool {
	return state.HandshakeComplete && len(state.PeerCertificates) == 0 && strings.HasPrefix(state.ServerName, joinPrefix)
}

// joinServer is what NodeServerConfig answers under the server name for
// joining: no certificate is asked for, and the authority's is sent with the
// node's, so that the other side can compare it with its token.
func (o TLSOptions) joinServer() *tls.Config {
	cfg := baseConfig()
	cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if o.Settled != nil {
			o.Settled(hello.Context())
		}
		keys := o.Keys()
		shown := keys.Certificate
		if ca := keys.Issuer(); ca != nil {
			shown.Certificate = [][]byte{shown.Certificate[0], ca.Raw}
		}
		return &shown, nil
	}
	return cfg
}

// Issuer is the authority that the node's certificate is under; nil if it is
// none that counts any more.
func (k *Keys) Issuer() *x509.Certificate {
	for _, ca := range k.CA {
		if k.Certificate.Leaf.CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

// JoinClientConfig is for joining with a token: nothing is sent before the
// other side has proved that it is a node under the authority that the token
// names. Nil now: time.Now.
func JoinClientConfig(t Token, now func() time.Time) *tls.Config {
	return guestConfig(t.Cluster, now, func(ca *x509.Certificate) error {
		if sha256.Sum256(ca.Raw) != t.CA {
			return fmt.Errorf("%w: the node there is under another authority than the token names; compare the address, or make a new token if the authority was replaced", belfry.ErrPermission)
		}
		return nil
	})
}

// RenewClientConfig is for a node whose certificate has ended: it knows the
// authorities of its cluster.
func RenewClientConfig(k *Keys, now func() time.Time) *tls.Config {
	return guestConfig(k.Cluster, now, func(ca *x509.Certificate) error {
		for _, known := range k.CA {
			if known.Equal(ca) {
				return nil
			}
		}
		return fmt.Errorf("%w: the node there is under an authority that this node does not know; it needs a new token", belfry.ErrPermission)
	})
}

// MembershipClientConfig is for a node that asks one member whether it still is
// one itself. The member is whoever has the key that this node's own table lists
// for it. Authority and dates do not count: the authority is replaced when a node
// that holds its key is removed, of which that node hears nothing.
func MembershipClientConfig(cluster belfry.ClusterID, member belfry.NodeID, key ed25519.PublicKey) *tls.Config {
	return guestBase(cluster, func(state tls.ConnectionState) error {
		return verifyMember(state, Identity{Cluster: cluster, Node: member}, key)
	})
}

// verifyMember judges who answers by name and key. That it has the key has been
// shown by the handshake (RFC 8446 4.4.3).
func verifyMember(state tls.ConnectionState, member Identity, key ed25519.PublicKey) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("%w: no certificate; that of %s is needed", belfry.ErrPermission, member)
	}
	leaf := state.PeerCertificates[0]
	id, err := certificateIdentity(leaf)
	if err != nil {
		return err
	}
	if id != member {
		return fmt.Errorf("%w: %s of cluster %s answers where %s was expected", belfry.ErrPermission, id, id.Cluster, member)
	}
	if shown, ok := leaf.PublicKey.(ed25519.PublicKey); !ok || !shown.Equal(key) {
		return fmt.Errorf("%w: %s shows another key than the listed one", belfry.ErrPermission, member)
	}
	return nil
}

func guestConfig(cluster belfry.ClusterID, now func() time.Time, accept func(*x509.Certificate) error) *tls.Config {
	if now == nil {
		now = time.Now
	}
	return guestBase(cluster, func(state tls.ConnectionState) error { return verifyHost(state, cluster, now(), accept) })
}

// guestBase is for connections under the server name for joining; verify judges
// the other side.
func guestBase(cluster belfry.ClusterID, verify func(tls.ConnectionState) error) *tls.Config {
	cfg := baseConfig()
	cfg.ServerName = joinPrefix + cluster.String()
	cfg.InsecureSkipVerify = true // host names mean nothing here: verify checks who it is
	cfg.VerifyConnection = func(state tls.ConnectionState) error { return refuse(verify(state)) }
	return cfg
}

// verifyHost judges the node that lets somebody join.
func verifyHost(state tls.ConnectionState, cluster belfry.ClusterID, now time.Time, accept func(*x509.Certificate) error) error {
	certs := state.PeerCertificates
	if len(certs) != 2 {
		return fmt.Errorf("%w: the one that answers is no node of cluster %s, which the token is for; compare the address", belfry.ErrPermission, cluster)
	}
	leaf, ca := certs[0], certs[1]
	if of, err := caCluster(ca); err != nil || of != cluster {
		return fmt.Errorf("%w: a node of another cluster answers; the token is for cluster %s", belfry.ErrPermission, cluster)
	}
	if err := accept(ca); err != nil {
		return err
	}
	if err := verifyChain(leaf, pool([]*x509.Certificate{ca}), now, x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	id, err := certificateIdentity(leaf)
	if err == nil && (id.Cluster != cluster || id.Client != "") {
		err = fmt.Errorf("%w: %s answers; a node of cluster %s should", belfry.ErrPermission, id, cluster)
	}
	return err
}

const (
	proofLabel  = "EXPORTER-belfry-join"
	proofDomain = "belfry-join-v1\x00"
)

// proofText is what the identity signs: keying material that only the two ends
// of this one connection have (RFC 9266), so that a proof is worth nothing on
// another.
func proofText(state tls.ConnectionState) ([]byte, error) {
	material, err := state.ExportKeyingMaterial(proofLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("%w: channel binding: %w", belfry.ErrPermission, err)
	}
	return append([]byte(proofDomain), material...), nil
}

func prove(state tls.ConnectionState, identity ed25519.PrivateKey) ([]byte, error) {
	text, err := proofText(state)
	if err != nil {
		return nil, err
	}
	return ed25519.Sign(identity, text), nil
}

// CheckProof says whether the holder of an identity is at the other end of a
// connection. It wraps ErrPermission.
func CheckProof(state tls.ConnectionState, identity ed25519.PublicKey, proof []byte) error {
	text, err := proofText(state)
	if err != nil {
		return err
	}
	if !ed25519.Verify(identity, text, proof) {
		return fmt.Errorf("%w: the identity is not at the other end of this connection", belfry.ErrPermission)
	}
	return nil
}

// Prove is the proof that the joiner is at this end of a connection.
func (j *Joiner) Prove(state tls.ConnectionState) ([]byte, error) { return prove(state, j.identity) }

// Prove is the proof that the node is at this end of a connection.
func (k *Keys) Prove(state tls.ConnectionState) ([]byte, error) {
	return prove(state, k.Certificate.PrivateKey.(ed25519.PrivateKey))
}

// A Joiner is a node that is about to join: it has its keys and nothing that
// another gave it. They are on disk before anything is sent, so that a join
// that was cut off goes on with the same identity.
type Joiner struct {
	dir      string
	identity ed25519.PrivateKey
	Sealing  *SealingKey
}

// PrepareJoin makes the keys of a node in a folder, or takes those that an
// earlier try left there. It wraps what Load wraps.
func PrepareJoin(dir string) (*Joiner, error) {
	j, err := prepareJoin(dir)
	if err != nil {
		return nil, &belfry.Error{Op: "keys.create", Subject: dir, Err: err}
	}
	return j, nil
}

func prepareJoin(dir string) (*Joiner, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	key, err := readKey(filepath.Join(dir, nodeKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, key, err = newKey(); err == nil {
			err = writeKey(filepath.Join(dir, nodeKeyFile), key)
		}
	}
	if err != nil {
		return nil, err
	}
	seal, err := LoadSealingKey(dir)
	if err == nil && seal == nil {
		if seal, err = NewSealingKey(); err == nil {
			err = WriteSealingKey(dir, seal)
		}
	}
	if err != nil {
		return nil, err
	}
	return &Joiner{dir: dir, identity: key, Sealing: seal}, nil
}

// Request is the certificate request of the identity, in DER.
func (j *Joiner) Request() ([]byte, error) { return NewRequest(j.identity) }

// SealingSignature binds the sealing key to the identity.
func (j *Joiner) SealingSignature() []byte { return j.Sealing.Sign(j.identity) }

// Public is the public half of the identity.
func (j *Joiner) Public() ed25519.PublicKey { return j.identity.Public().(ed25519.PublicKey) }

// Finish completes the folder with what the cluster gave and checks that it
// belongs together. It can be repeated. The certificate is written last: as
// long as it is not there, the folder is no node's.
func (j *Joiner) Finish(certificate []byte, authorities [][]byte, epoch uint32, secret Secret) (*Keys, error) {
	if err := j.finish(certificate, authorities, epoch, secret); err != nil {
		return nil, &belfry.Error{Op: "keys.create", Subject: j.dir, Err: err}
	}
	return Load(j.dir)
}

func (j *Joiner) finish(certificate []byte, authorities [][]byte, epoch uint32, secret Secret) error {
	if err := WriteAuthorities(j.dir, authorities); err != nil {
		return err
	}
	if err := removeSecrets(j.dir); err != nil { // of a try before this one, perhaps at another cluster
		return err
	}
	if err := WriteSecret(j.dir, epoch, secret); err != nil {
		return err
	}
	return WriteCertificate(j.dir, certificate)
}

// WriteCertificate replaces a node's certificate, given in DER.
func WriteCertificate(dir string, certificate []byte) error {
	if _, err := x509.ParseCertificate(certificate); err != nil {
		return fmt.Errorf("%w: certificate: %w", belfry.ErrUsage, err)
	}
	return ReplaceFile(filepath.Join(dir, nodeCertFile), encodeCertificate(certificate))
}

// WriteAuthorities replaces the authorities of a folder of keys, given in DER.
func WriteAuthorities(dir string, authorities [][]byte) error {
	var text []byte
	for _, der := range authorities {
		text = append(text, encodeCertificate(der)...)
	}
	certs, err := parseCertificates(caCertFile, text)
	if err != nil {
		return err
	}
	for _, c := range certs {
		if _, err := caCluster(c); err != nil {
			return err
		}
	}
	return ReplaceFile(filepath.Join(dir, caCertFile), text)
}

// ParseAuthorities reads certificates of authorities in DER.
func ParseAuthorities(authorities [][]byte) (certs []*x509.Certificate, err error) {
	for _, der := range authorities {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: authority: %w", belfry.ErrUsage, err)
		}
		if _, err := caCluster(c); err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// Renewed is k with another certificate of the same identity, in DER, and these
// authorities. It wraps what Load wraps.
func (k *Keys) Renewed(certificate []byte, authorities [][]byte) (*Keys, error) {
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", belfry.ErrUsage, err)
	}
	next := *k
	if next.CA, err = ParseAuthorities(authorities); err != nil {
		return nil, err
	}
	key := k.Certificate.PrivateKey.(ed25519.PrivateKey)
	next.Certificate = tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	if err := next.check("", key); err != nil {
		return nil, err
	}
	if next.Cluster != k.Cluster || next.Node != k.Node {
		return nil, fmt.Errorf("%w: a certificate for %s; this is %s", belfry.ErrPermission, next.Identity(), k.Identity())
	}
	return &next, nil
}

// Request is a certificate request for the node's identity, in DER.
func (k *Keys) Request() ([]byte, error) {
	return NewRequest(k.Certificate.PrivateKey.(ed25519.PrivateKey))
}

// RenewAfter is the age at which a certificate is renewed, give or take
// RenewSpread, so that the nodes of a cluster do not all ask at once.
const (
	RenewAfter  = 20 * 24 * time.Hour
	RenewSpread = 24 * time.Hour
)
