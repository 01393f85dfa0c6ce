package security

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"time"

	"github.com/belfry-ha/belfry"
)

// Names of files in the folder of a client's keys; the authority's certificate
// lies beside them as it does in a node's.
const (
	clientKeyFile  = "client.key"
	clientCertFile = "client.crt"
)

// CreateClient makes a client's identity and writes its folder of keys: what
// [LoadClient] reads. The configuration says what a client of that name may
// do. It wraps ErrExist if there are keys already: they are kept.
func CreateClient(dir string, ca *CA, now time.Time, name string) error {
	if err := createClient(dir, ca, now, name); err != nil {
		return &belfry.Error{Op: "keys.create", Subject: dir, Err: err}
	}
	return nil
}

func createClient(dir string, ca *CA, now time.Time, name string) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	public, private, err := newKey()
	if err != nil {
		return err
	}
	defer clear(private)
	cert, err := ca.IssueClient(now, name, public)
	if err != nil {
		return err
	}
	if err := writeKey(filepath.Join(dir, clientKeyFile), private); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, caCertFile), encodeCertificate(ca.Certificate.Raw), false); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, clientCertFile), encodeCertificate(cert), false)
}

// LoadClient reads a client's folder of keys. It wraps fs.ErrNotExist for what
// is missing, ErrPermission for a key that others can read, ErrUsage for what
// is malformed.
func LoadClient(dir string) (ClientOptions, error) {
	opts, err := loadClient(dir)
	if err != nil {
		return ClientOptions{}, &belfry.Error{Op: "keys.load", Subject: dir, Err: err}
	}
	return opts, nil
}

func loadClient(dir string) (opts ClientOptions, err error) {
	key, err := readKey(filepath.Join(dir, clientKeyFile))
	if err != nil {
		return opts, err
	}
	chain, err := readCertificates(filepath.Join(dir, clientCertFile))
	if err != nil {
		return opts, err
	}
	id, err := certificateIdentity(chain[0])
	if err != nil {
		return opts, err
	}
	if id.Client == "" {
		return opts, fmt.Errorf("%w: %s is of %s; a client's is needed", belfry.ErrUsage, clientCertFile, id)
	}
	opts.Cluster = id.Cluster
	opts.Certificate = tls.Certificate{Certificate: [][]byte{chain[0].Raw}, PrivateKey: key, Leaf: chain[0]}
	opts.CA, err = readCertificates(filepath.Join(dir, caCertFile))
	return opts, err
}
