package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/belfry-ha/belfry"
)

// scheme begins the URL of a repository in etcd.
const scheme = "etcd://"

// unixScheme begins an endpoint that is a socket of this machine.
const unixScheme = "unix://"

// defaultPort is where etcd listens for clients.
const defaultPort = "2379"

// ParseURL reads etcd://HOST[:PORT][,HOST[:PORT]…][/PREFIX], for Endpoints and
// Prefix of a [Config]. Credentials are no part of it: an URL is printed.
func ParseURL(url string) (endpoints []string, prefix string, err error) {
	rest, ok := strings.CutPrefix(url, scheme)
	hosts, prefix, _ := strings.Cut(rest, "/")
	if !ok || strings.ContainsAny(rest, "?#@ ") {
		return nil, "", fmt.Errorf("%w: %q is not the place of a repository in etcd; write etcd://HOST:PORT/PREFIX, and credentials into the agent's settings", belfry.ErrUsage, url)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), defaultPort)
		}
		if name, port, err := net.SplitHostPort(host); err != nil || name == "" || port == "" {
			return nil, "", fmt.Errorf("%w: %q names no host; write etcd://HOST:PORT/PREFIX", belfry.ErrUsage, url)
		}
		endpoints = append(endpoints, host)
	}
	return endpoints, strings.Trim(prefix, "/"), nil
}

// URL is what [ParseURL] reads, of endpoints that are none of unix sockets.
func URL(endpoints []string, prefix string) string {
	url := scheme + strings.Join(endpoints, ",")
	if prefix != "" {
		url += "/" + prefix
	}
	return url
}

// key is <prefix>/<cluster UUID>/config.
func (c Config) key() string {
	key := "/" + c.Cluster.String() + "/config"
	if prefix := strings.Trim(c.Prefix, "/"); prefix != "" {
		key = "/" + prefix + key
	}
	return key
}

// urls are the endpoints as etcd's client wants them. Without TLS they must be
// on this machine: whoever is between could hold an old value against us, and
// the certificate says which etcd it is.
func (c Config) urls() (urls []string, err error) {
	if len(c.Endpoints) == 0 {
		return nil, fmt.Errorf("%w: no endpoint of etcd; give at least one", belfry.ErrUsage)
	}
	if c.Cluster.IsZero() || c.UUID == [16]byte{} {
		return nil, fmt.Errorf("%w: no UUID of cluster or repository", belfry.ErrUsage)
	}
	for _, e := range c.Endpoints {
		switch {
		case strings.HasPrefix(e, unixScheme):
			urls = append(urls, e)
		case c.TLS != nil:
			urls = append(urls, "https://"+e)
		case Local(e):
			urls = append(urls, "http://"+e)
		default:
			return nil, fmt.Errorf("%w: etcd at %s without TLS; give its authority's certificate with repository.etcd.ca, or use a loopback address", belfry.ErrUsage, e)
		}
	}
	return urls, nil
}

// Local tells whether an endpoint is on this machine: a unix socket, or a loopback
// address. Others are reached over TLS only.
func Local(endpoint string) bool {
	if strings.HasPrefix(endpoint, unixScheme) {
		return true
	}
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback() // RFC 6761 6.3
}

// Files are what etcd's own clients take, in PEM.
type Files struct {
	CA   string // that signs etcd's certificates; empty: those that this machine trusts
	Cert string // of this client, and its key; both empty: none
	Key  string
}

// TLS reads the files. The certificate of the client is read again for each
// connection, so that a renewed one is used.
func (f Files) TLS() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("certificates of etcd's authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%w: %s: no certificate in PEM; name the file of etcd's authority", belfry.ErrUsage, f.CA)
		}
	}
	if f.Cert == "" && f.Key == "" {
		return c, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s and key %s for etcd: %w", f.Cert, f.Key, err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return c, nil
}
