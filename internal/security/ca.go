package security

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"time"

	"github.com/belfry-ha/belfry"
)

// Lifetimes of certificates (security.md, Keys).
const (
	CALife          = 10 * 365 * 24 * time.Hour
	CertificateLife = 30 * 24 * time.Hour
	// backdate lets a node whose clock is a little slow use its certificate at once.
	backdate = 5 * time.Minute
)

// A CA is the authority of one cluster. It is safe for concurrent use.
type CA struct {
	Cluster     belfry.ClusterID
	Certificate *x509.Certificate
	key         ed25519.PrivateKey
}

// NewCA makes the authority of a cluster, valid for CALife from now.
func NewCA(cluster belfry.ClusterID, now time.Time) (*CA, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Belfry CA " + cluster.String()},
		URIs:                  []*url.URL{caURI(cluster)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(CALife),
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs nodes and clients, no further authorities
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	return &CA{Cluster: cluster, Certificate: cert, key: private}, nil
}

// IssueNode makes the certificate of a node for the public half of its
// identity, in DER, valid for CertificateLife from now.
func (ca *CA) IssueNode(now time.Time, node belfry.NodeID, public ed25519.PublicKey) ([]byte, error) {
	if node.IsZero() {
		return nil, fmt.Errorf("%w: certificate for the zero node; a node id is needed", belfry.ErrUsage)
	}
	return ca.issue(now, Identity{Cluster: ca.Cluster, Node: node}, public,
		x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// IssueClient is IssueNode for a client. Its role is looked up in the
// configuration by the name, so that revoking it takes effect at once. It
// wraps ErrUsage as CheckClientName does.
func (ca *CA) IssueClient(now time.Time, name string, public ed25519.PublicKey) ([]byte, error) {
	if err := CheckClientName(name); err != nil {
		return nil, err
	}
	return ca.issue(now, Identity{Cluster: ca.Cluster, Client: name}, public, x509.ExtKeyUsageClientAuth)
}

func (ca *CA) issue(now time.Time, id Identity, public ed25519.PublicKey, usage ...x509.ExtKeyUsage) ([]byte, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: id.String()}, // for people; nothing reads it
		URIs:                  []*url.URL{id.URI()},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(CertificateLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usage,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of %s: %w", id, err)
	}
	return der, nil
}

func caURI(cluster belfry.ClusterID) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: cluster.String(), Path: "/ca"}
}

// caCluster tells whose authority a certificate is.
func caCluster(cert *x509.Certificate) (belfry.ClusterID, error) {
	if !cert.IsCA || len(cert.URIs) != 1 {
		return belfry.ClusterID{}, fmt.Errorf("%w: not the certificate of a cluster's authority; one made by this program", belfry.ErrUsage)
	}
	cluster, err := belfry.ParseClusterID(cert.URIs[0].Host)
	if err != nil || cert.URIs[0].String() != caURI(cluster).String() {
		return belfry.ClusterID{}, fmt.Errorf("%w: authority for %q; %s://CLUSTER/ca", belfry.ErrUsage, cert.URIs[0], uriScheme)
	}
	return cluster, nil
}
