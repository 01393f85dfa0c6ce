package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry/bench/side"
)

// roleEtcd is a server of etcd as it comes, of one member; withTLS is its argument
// where it demands certificates.
const (
	roleEtcd = "etcd"
	withTLS  = "tls"
)

// playEtcd serves until in ends. It says its address, its process and, with TLS,
// certificate and key in base64.
func playEtcd(args []string, in io.Reader, out io.Writer) error {
	dir, err := os.MkdirTemp("", "belfry-bench-etcd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = filepath.Join(dir, "data"), "fatal"
	cfg.LogOutputs = []string{"stderr"}
	clients := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	peers := clients
	pair := ""
	if len(args) == 1 && args[0] == withTLS {
		clients.Scheme = "https"
		if pair, err = sealEtcd(cfg, dir); err != nil {
			return err
		}
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peers}, []url.URL{peers}
	cfg.InitialCluster = cfg.Name + "=" + peers.String()
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	case <-time.After(side.EndTimeout):
		return errors.New("the server is not ready")
	}
	fmt.Fprintln(out, e.Clients[0].Addr(), pair)
	_, err = io.Copy(io.Discard, in)
	return err
}

// sealEtcd makes a certificate that server and clients share: as many handshakes
// of the same kind as Belfry's.
func sealEtcd(cfg *embed.Config, dir string) (pair string, err error) {
	own, err := side.OwnCertificate()
	if err != nil {
		return "", err
	}
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		return "", err
	}
	certFile, keyFile := filepath.Join(dir, "crt.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile, cfg.ClientTLSInfo.TrustedCAFile = certFile, keyFile, certFile
	cfg.ClientTLSInfo.ClientCertAuth = true
	cfg.TlsMinVersion = "TLS1.3"
	encode := base64.StdEncoding.EncodeToString
	return encode(own.Certificate[0]) + " " + encode(key), err
}

// etcd is a server in a process of its own.
type etcd struct {
	child   *side.Child
	address string
	tls     *tls.Config // nil: plain
	client  *clientv3.Client
	puts    int
}

func startEtcd(args ...string) (_ *etcd, err error) {
	c, line, err := side.StartRole(roleEtcd, args...)
	if err != nil {
		return nil, err
	}
	e := &etcd{child: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.End())
		}
	}()
	words := strings.Fields(line)
	e.address = words[0]
	scheme := "http://"
	if len(words) == 3 {
		scheme = "https://"
		if e.tls, err = clientOf(words[1], words[2]); err != nil {
			return nil, err
		}
	}
	e.client, err = clientv3.New(clientv3.Config{Endpoints: []string{scheme + e.address}, TLS: e.tls, DialTimeout: side.EndTimeout})
	return e, err
}

func clientOf(certificate, key string) (*tls.Config, error) {
	der, err := base64.StdEncoding.DecodeString(certificate)
	if err != nil {
		return nil, err
	}
	secret, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(secret)
	if err != nil {
		return nil, err
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	return &tls.Config{
		RootCAs: pool, MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1", NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
	}, nil
}

const watchedKey = "bench/b"

func (e *etcd) name() string {
	if e.tls != nil {
		return "etcd, mutual TLS"
	}
	return "etcd"
}

func (e *etcd) open(ctx context.Context, _ int) (*connection, error) {
	c, err := connect(ctx, e.address, e.tls)
	if err != nil {
		return nil, err
	}
	create := &etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
		CreateRequest: &etcdserverpb.WatchCreateRequest{Key: []byte(watchedKey)},
	}}
	return c, c.call("/etcdserverpb.Watch/Watch", create, false)
}

func (e *etcd) begun(message []byte) (bool, error) {
	var m etcdserverpb.WatchResponse
	err := proto.Unmarshal(message, &m)
	return m.GetCreated(), err
}

func (e *etcd) news(message []byte) (bool, error) {
	var m etcdserverpb.WatchResponse
	err := proto.Unmarshal(message, &m)
	return len(m.GetEvents()) > 0, err
}

func (e *etcd) change(ctx context.Context) error {
	e.puts++
	_, err := e.client.Put(ctx, watchedKey, fmt.Sprint(e.puts))
	return err
}

func (e *etcd) pid() int { return e.child.PID() }

func (e *etcd) stop() error { return errors.Join(e.client.Close(), e.child.End()) }
