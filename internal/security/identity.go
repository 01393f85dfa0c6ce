package security

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"github.com/belfry-ha/belfry"
)

// An Identity is who a certificate speaks for: a node or a client of one
// cluster. In the certificate it is the only alternative name, a URI:
// belfry://CLUSTER/node/NODE or belfry://CLUSTER/client/NAME.
type Identity struct {
	Cluster belfry.ClusterID
	Node    belfry.NodeID // zero: a client
	Client  string        // empty: a node; else as CheckClientName allows
}

const uriScheme = "belfry"

// URI is the alternative name.
func (id Identity) URI() *url.URL {
	u := &url.URL{Scheme: uriScheme, Host: id.Cluster.String(), Path: "/client/" + id.Client}
	if id.Client == "" {
		u.Path = "/node/" + id.Node.String()
	}
	return u
}

// String is "node ID" or "client NAME".
func (id Identity) String() string {
	if id.Client != "" {
		return "client " + id.Client
	}
	return "node " + id.Node.String()
}

// Peer tells who is at the other end of a connection made with one of the
// configurations of this package. It wraps ErrPermission if nobody has proved
// anything.
func Peer(state tls.ConnectionState) (Identity, error) {
	if !state.HandshakeComplete || len(state.PeerCertificates) == 0 {
		return Identity{}, fmt.Errorf("%w: the peer shows no certificate; a node's or a client's is needed", belfry.ErrPermission)
	}
	return certificateIdentity(state.PeerCertificates[0])
}

// certificateIdentity reads the one alternative name. A certificate with any
// other name is refused, because nothing here would have checked it.
func certificateIdentity(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 {
		return Identity{}, fmt.Errorf("%w: certificate with %d URI names; exactly one and no other name",
			belfry.ErrPermission, len(cert.URIs))
	}
	return parseIdentity(cert.URIs[0])
}

func parseIdentity(u *url.URL) (id Identity, err error) {
	wrong := func(why string) (Identity, error) {
		return Identity{}, fmt.Errorf("%w: certificate for %q: %s; %s://CLUSTER/node/NODE or %s://CLUSTER/client/NAME",
			belfry.ErrPermission, u, why, uriScheme, uriScheme)
	}
	if id.Cluster, err = belfry.ParseClusterID(u.Host); err != nil {
		return wrong(err.Error())
	}
	kind, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	switch kind {
	case "node":
		if id.Node, err = belfry.ParseNodeID(name); err != nil {
			return wrong(err.Error())
		}
	case "client":
		if err = CheckClientName(name); err != nil {
			return wrong(err.Error())
		}
		id.Client = name
	default:
		return wrong("neither a node nor a client")
	}
	// Only the form that URI writes: no port, query, fragment or other spelling.
	if u.String() != id.URI().String() {
		return wrong("not in canonical form")
	}
	if id.Client == "" && id.Node.IsZero() {
		return wrong("the zero node")
	}
	return id, nil
}

// CheckClientName wraps ErrUsage unless the name has 1 to 63 of a-z, 0-9, dot,
// dash and underscore, and begins with a letter or digit.
func CheckClientName(name string) error {
	ok := len(name) >= 1 && len(name) <= 63 && !strings.ContainsAny(name[:1], ".-_")
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("%w: client name %q; 1 to 63 of a-z, 0-9, dot, dash, underscore, beginning with a letter or digit",
			belfry.ErrUsage, name)
	}
	return nil
}
