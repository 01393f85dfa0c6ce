package security

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// A request for a signature is a file that can be carried to where the
// authority's key is: the authority's certificate, and the certificate request
// with the identity that it is for.
const (
	requestsDir    = "requests"
	requestSuffix  = ".request"
	signedSuffix   = ".crt"
	pemRequest     = "BELFRY REQUEST"
	headerIdentity = "Identity"
)

// A PendingRequest waits for a signature.
type PendingRequest struct {
	File     string
	Identity Identity
	csr      []byte
	ca       *x509.Certificate
}

// requestFile is the name for a key, in a node's folder of keys.
func requestFile(dir string, public ed25519.PublicKey) string {
	digest := sha256.Sum256(public)
	return filepath.Join(dir, requestsDir, hex.EncodeToString(digest[:8])+requestSuffix)
}

// FindRequest reads the request for a key that lies in a node's folder of keys.
// It wraps fs.ErrNotExist if there is none.
func FindRequest(dir string, public ed25519.PublicKey) (PendingRequest, error) {
	return readRequest(requestFile(dir, public))
}

// Waiting are the requests in a node's folder of keys that nobody has signed, by
// file. An error is about one that could not be read; the others are given.
func Waiting(dir string) (waiting []PendingRequest, err error) {
	folder := filepath.Join(dir, requestsDir)
	files, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the requests for a signature: %w", err)
	}
	var errs []error
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), requestSuffix) {
			continue
		}
		r, err := readRequest(filepath.Join(folder, f.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // fetched meanwhile
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		}
		if _, err := r.Signed(); errors.Is(err, fs.ErrNotExist) {
			waiting = append(waiting, r)
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	return waiting, errors.Join(errs...)
}

// LeaveRequest puts a certificate request for an identity into a node's folder
// of keys, for somebody to sign. One for the same key is replaced.
func LeaveRequest(dir string, ca *x509.Certificate, id Identity, csr []byte) (PendingRequest, error) {
	public, err := CheckRequest(csr)
	if err != nil {
		return PendingRequest{}, err
	}
	if err := makeDir(filepath.Join(dir, requestsDir)); err != nil {
		return PendingRequest{}, err
	}
	r := PendingRequest{File: requestFile(dir, public), Identity: id, csr: csr, ca: ca}
	text := append(encodeCertificate(ca.Raw), pem.EncodeToMemory(&pem.Block{
		Type: pemRequest, Headers: map[string]string{headerIdentity: id.URI().String()}, Bytes: csr,
	})...)
	return r, ReplaceFile(r.File, text)
}

func readRequest(file string) (r PendingRequest, err error) {
	text, err := readFile(file)
	if err != nil {
		return r, err
	}
	wrong := func(why error) (PendingRequest, error) {
		return PendingRequest{}, fmt.Errorf("%w: %s is no request for a signature: %w; one lies in keys/requests of the member that was asked", belfry.ErrUsage, file, why)
	}
	first, rest := pem.Decode(text)
	if first == nil || first.Type != pemCert {
		return wrong(errors.New("the authority's certificate is missing"))
	}
	second, rest := pem.Decode(rest)
	if second == nil || second.Type != pemRequest || len(rest) != 0 {
		return wrong(errors.New("the request is missing"))
	}
	if r.ca, err = x509.ParseCertificate(first.Bytes); err != nil {
		return wrong(err)
	}
	u, err := url.Parse(second.Headers[headerIdentity])
	if err != nil {
		return wrong(err)
	}
	if r.Identity, err = parseIdentity(u); err != nil {
		return wrong(err)
	}
	r.File, r.csr = file, second.Bytes
	return r, nil
}

// Signed is the certificate that was made of the request, in DER, once it lies
// beside it and is right. It wraps fs.ErrNotExist before that.
func (r PendingRequest) Signed() ([]byte, error) {
	certs, err := readCertificates(r.signedFile())
	if err != nil {
		return nil, err
	}
	public, err := CheckRequest(r.csr)
	if err != nil {
		return nil, err
	}
	id, err := certificateIdentity(certs[0])
	switch {
	case err != nil:
		return nil, err
	case id != r.Identity || !public.Equal(certs[0].PublicKey) || certs[0].CheckSignatureFrom(r.ca) != nil:
		return nil, fmt.Errorf("%w: %s is not what was asked for; sign %s again", belfry.ErrUsage, r.signedFile(), r.File)
	}
	return certs[0].Raw, nil
}

func (r PendingRequest) signedFile() string {
	return r.File[:len(r.File)-len(filepath.Ext(r.File))] + signedSuffix
}

// Done removes the request and what was made of it.
func (r PendingRequest) Done() error {
	return errors.Join(removeFile(r.File), removeFile(r.signedFile()))
}

// SignRequest makes the certificate that a file asks for, with the authority's
// key in another, and puts it beside the request. It returns whom it is for and
// where it is. It wraps ErrUsage if the key is another authority's.
func SignRequest(file, keyFile string, now time.Time) (Identity, string, error) {
	id, to, err := signRequest(file, keyFile, now)
	if err != nil {
		return Identity{}, "", &belfry.Error{Op: "ca.sign", Subject: file, Err: err}
	}
	return id, to, nil
}

func signRequest(file, keyFile string, now time.Time) (id Identity, to string, err error) {
	if !strings.HasSuffix(file, requestSuffix) { // its mode is not judged: something else would be closed to others
		return id, "", fmt.Errorf("%w: %s is no request for a signature; one lies in keys/requests of the member that was asked, and ends in %s", belfry.ErrUsage, file, requestSuffix)
	}
	r, err := readRequest(file)
	if err != nil {
		return id, "", err
	}
	key, err := readKey(keyFile)
	if err != nil {
		return id, "", err
	}
	if !key.Public().(ed25519.PublicKey).Equal(r.ca.PublicKey) {
		return id, "", fmt.Errorf("%w: %s is not the key of the authority that is asked; that is %q", belfry.ErrUsage, keyFile, r.ca.Subject.CommonName)
	}
	cluster, err := caCluster(r.ca)
	if err == nil && cluster != r.Identity.Cluster {
		err = fmt.Errorf("%w: %s is of cluster %s and the authority of cluster %s", belfry.ErrUsage, r.Identity, r.Identity.Cluster, cluster)
	}
	if err != nil {
		return id, "", err
	}
	public, err := CheckRequest(r.csr)
	if err != nil {
		return id, "", err
	}
	ca := &CA{Cluster: cluster, Certificate: r.ca, key: key}
	var der []byte
	if r.Identity.Client != "" {
		der, err = ca.IssueClient(now, r.Identity.Client, public)
	} else {
		der, err = ca.IssueNode(now, r.Identity.Node, public)
	}
	if err != nil {
		return id, "", err
	}
	return r.Identity, r.signedFile(), ReplaceFile(r.signedFile(), encodeCertificate(der))
}

func removeFile(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return nil
}
