package security

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/belfry-ha/belfry"
)

// Names of files in a client's folder; the authority's is ca.crt, as a node's.
const (
	clientKeyFile  = "client.key"
	clientCertFile = "client.crt"
)

// CreateClient writes a client's folder: key, certificate for name, and the
// authority's certificate. It wraps ErrExist if there is one already, and
// ErrUsage as CheckClientName does. A client's role stands in the
// configuration, by its name.
func CreateClient(dir string, ca *CA, now time.Time, name string) error {
	if err := createClient(dir, ca, now, name); err != nil {
		return &belfry.Error{Op: "keys.create", Subject: dir, Err: err}
	}
	return nil
}

func createClient(dir string, ca *CA, now time.Time, name string) error {
	public, private, err := newKey()
	if err != nil {
		return err
	}
	defer clear(private)
	cert, err := ca.IssueClient(now, name, public)
	if err != nil {
		return err
	}
	if err := makeDir(dir); err != nil {
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

// LoadClient reads a client's folder; its cluster is the one whose authority
// made the certificate. It wraps what Load wraps.
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
	if opts.CA, err = readCertificates(filepath.Join(dir, caCertFile)); err != nil {
		return opts, err
	}
	id, err := certificateIdentity(chain[0])
	if err != nil {
		return opts, err
	}
	if id.Client == "" {
		return opts, fmt.Errorf("%w: %s is of %s; a client's is needed", belfry.ErrUsage, clientCertFile, id)
	}
	if !key.Public().(ed25519.PublicKey).Equal(chain[0].PublicKey) {
		return opts, fmt.Errorf("%w: %s is not for the key in %s; both of one client", belfry.ErrUsage, clientCertFile, clientKeyFile)
	}
	opts.Cluster = id.Cluster
	opts.Certificate = tls.Certificate{Certificate: [][]byte{chain[0].Raw}, PrivateKey: key, Leaf: chain[0]}
	return opts, nil
}

// PrepareClient makes the key of a client in a folder, or takes the one that an
// earlier try left there. It wraps ErrExist if the folder holds a client's
// certificate already, and what Load wraps.
func PrepareClient(dir string) (*Joiner, error) {
	j, err := prepareClient(dir)
	if err != nil {
		return nil, &belfry.Error{Op: "keys.create", Subject: dir, Err: err}
	}
	return j, nil
}

func prepareClient(dir string) (*Joiner, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, clientCertFile)); err == nil {
		return nil, fmt.Errorf("%w: a client's identity is there; name another directory", belfry.ErrExist)
	}
	key, err := readKey(filepath.Join(dir, clientKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, key, err = newKey(); err == nil {
			err = writeKey(filepath.Join(dir, clientKeyFile), key)
		}
	}
	if err != nil {
		return nil, err
	}
	return &Joiner{dir: dir, identity: key}, nil
}

// FinishClient completes a client's folder with what the cluster gave, the
// certificate last, and checks that it belongs together.
func (j *Joiner) FinishClient(certificate []byte, authorities [][]byte) error {
	err := WriteAuthorities(j.dir, authorities)
	if err == nil {
		err = ReplaceFile(filepath.Join(j.dir, clientCertFile), encodeCertificate(certificate))
	}
	if err != nil {
		return &belfry.Error{Op: "keys.create", Subject: j.dir, Err: err}
	}
	_, err = LoadClient(j.dir)
	return err
}
