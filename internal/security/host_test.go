package security

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

func inTime() time.Time { return issued.Add(time.Hour) }

// imposter makes an authority that calls itself that of the cluster, and a
// node of it.
func imposter(t *testing.T, cluster belfry.ClusterID) (*CA, tls.Certificate) {
	t.Helper()
	ca, err := NewCA(cluster, issued)
	if err != nil {
		t.Fatal(err)
	}
	return ca, hostOf(t, ca)
}

// hostOf is a new node under an authority.
func hostOf(t *testing.T, ca *CA) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.IssueNode(issued, belfry.NewNodeID(), public)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// showing is a server that shows these certificates and holds the key of the
// first.
func showing(private any, chain ...[]byte) *tls.Config {
	cfg := baseConfig()
	cfg.Certificates = []tls.Certificate{{Certificate: chain, PrivateKey: private}}
	return cfg
}

func TestJoinerTrustsANodeUnderTheAuthorityOfItsToken(t *testing.T) {
	town := newTown(t)
	opts := town.options(0)
	opts.Guests = true
	server, client := handshake(t, NodeServerConfig(opts), JoinClientConfig(NewToken(town.Cluster, town.CA.Certificate), inTime))
	if server != nil || client != nil {
		t.Fatalf("server %v, client %v", server, client)
	}
}

// handshake ends where application data would begin.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	s, c := loopback(t)
	done := make(chan struct{})
	deadline := time.Now().Add(10 * time.Second)
	_ = s.SetDeadline(deadline)
	_ = c.SetDeadline(deadline)
	go func() {
		defer close(done)
		serverErr = tls.Server(s, server).Handshake()
	}()
	clientErr = tls.Client(c, client).Handshake()
	c.Close()
	<-done
	return serverErr, clientErr
}

func TestJoinerRefusesEveryOtherHost(t *testing.T) {
	town := newTown(t)
	token := NewToken(town.Cluster, town.CA.Certificate)
	foreign, foreignHost := imposter(t, town.Cluster)
	otherCA, otherHost := imposter(t, belfry.NewClusterID())
	real := hostOf(t, town.CA)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	client, err := town.CA.IssueClient(issued, "web", public)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := town.CA.issue(issued, Identity{Cluster: otherCA.Cluster, Node: belfry.NewNodeID()}, public, x509.ExtKeyUsageServerAuth)
	if err != nil {
		t.Fatal(err)
	}
	pinned := town.CA.Certificate.Raw
	old := showing(real.PrivateKey, real.Certificate[0], pinned)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, tt := range []struct {
		name   string
		server *tls.Config
		at     time.Duration // after issued; zero: an hour
	}{
		{"another authority for the same cluster", showing(foreignHost.PrivateKey, foreignHost.Certificate[0], foreign.Certificate.Raw), 0},
		{"another authority's node, the token's authority shown", showing(foreignHost.PrivateKey, foreignHost.Certificate[0], pinned), 0},
		{"both authorities shown", showing(foreignHost.PrivateKey, foreignHost.Certificate[0], foreign.Certificate.Raw, pinned), 0},
		{"another cluster", showing(otherHost.PrivateKey, otherHost.Certificate[0], otherCA.Certificate.Raw), 0},
		{"another cluster's name under the token's authority", showing(private, stranger, pinned), 0},
		{"no authority shown", showing(real.PrivateKey, real.Certificate[0]), 0},
		{"the authority itself as host", showing(town.CA.key, pinned, pinned), 0},
		{"the authority alone", showing(town.CA.key, pinned), 0},
		{"a client as host", showing(private, client, pinned), 0},
		{"the certificate of a node without its key", showing(private, real.Certificate[0], pinned), 0},
		{"a second late", showing(real.PrivateKey, real.Certificate[0], pinned), CertificateLife + time.Second},
		{"a second early", showing(real.PrivateKey, real.Certificate[0], pinned), -backdate - time.Second},
		{"TLS 1.2", old, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := inTime()
			if tt.at != 0 {
				now = issued.Add(tt.at)
			}
			if _, err := handshake(t, tt.server, JoinClientConfig(token, func() time.Time { return now })); err == nil {
				t.Fatal("the joiner would now send its token")
			}
		})
	}
	if _, err := handshake(t, showing(real.PrivateKey, real.Certificate[0], pinned), JoinClientConfig(token, inTime)); err != nil {
		t.Fatalf("the right host is refused: %v", err) // else the table shows nothing
	}
}

func TestGuestsAreLetInUnderTheNameForJoiningOnly(t *testing.T) {
	town := newTown(t)
	guest := JoinClientConfig(NewToken(town.Cluster, town.CA.Certificate), inTime)
	opts := town.options(0)
	if server, _ := handshake(t, NodeServerConfig(opts), guest); server == nil {
		t.Fatal("a guest is let in where none is expected")
	}
	opts.Guests = true
	for _, name := range []string{"", "join.", "join." + belfry.NewClusterID().String(), town.Cluster.String()} {
		cfg := guest.Clone()
		cfg.ServerName = name
		if server, _ := handshake(t, NodeServerConfig(opts), cfg); server == nil {
			t.Errorf("a guest is let in under %q", name)
		}
	}
}

func TestCAKeyOpensForItsHolderOnly(t *testing.T) {
	town := newTown(t)
	holder, err := NewSealingKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewSealingKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := SealCA(town.CA, holder.Public())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := OpenCA(town.CA.Certificate, sealed, holder)
	if err != nil || !ca.key.Equal(town.CA.key) || ca.Cluster != town.Cluster {
		t.Fatalf("opened %v: %v", ca, err)
	}
	foreign, _ := imposter(t, town.Cluster)
	if _, err := OpenCA(town.CA.Certificate, sealed, other); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("another node: %v", err)
	}
	if _, err := OpenCA(foreign.Certificate, sealed, holder); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("another authority: %v", err)
	}
	// The same key under another certificate is another authority: its hash is
	// what tokens name.
	template := *town.CA.Certificate
	template.SerialNumber = big.NewInt(7)
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, town.CA.key.Public(), town.CA.key)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(twin, sealed, holder); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("another certificate of the same key: %v", err)
	}
	for i := range sealed {
		sealed[i] ^= 1
		if _, err := OpenCA(town.CA.Certificate, sealed, holder); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := OpenCA(town.CA.Certificate, sealed[:i], holder); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
		sealed[i] ^= 1
	}
}

// A grant is what a cluster gives who joins.
type grant struct {
	certificate []byte
	ca          [][]byte
	epoch       uint32
	secret      Secret
}

func granted(t *testing.T, town town, j *Joiner, epoch uint32) grant {
	t.Helper()
	der, err := town.CA.IssueNode(issued, belfry.NewNodeID(), j.Public())
	if err != nil {
		t.Fatal(err)
	}
	return grant{der, [][]byte{town.CA.Certificate.Raw}, epoch, NewSecret()}
}

func (g grant) finish(j *Joiner) (*Keys, error) {
	return j.Finish(g.certificate, g.ca, g.epoch, g.secret)
}

// Each file that Finish writes is made impossible in turn, by a folder in its
// place: what stood before it stays, and that is no node.
func TestJoinThatBreaksOffLeavesNoNodeAndCanGoOn(t *testing.T) {
	town := newTown(t)
	for _, step := range []string{caCertFile, secretPrefix + "7", nodeCertFile} {
		t.Run(step, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			j, err := PrepareJoin(dir)
			if err != nil {
				t.Fatal(err)
			}
			g := granted(t, town, j, 7)
			obstacle := filepath.Join(dir, step)
			if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := g.finish(j); err == nil {
				t.Fatal("it did not break off")
			}
			if err := os.RemoveAll(obstacle); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("a node is there: %v", err)
			}
			again, err := PrepareJoin(dir)
			if err != nil || !again.Public().Equal(j.Public()) {
				t.Fatalf("another identity after the break: %v", err)
			}
			keys, err := g.finish(again)
			if err != nil || !keys.Public().Equal(j.Public()) || keys.Secrets[7] != g.secret {
				t.Fatalf("it does not go on: %v", err)
			}
		})
	}
}

// A folder that broke off between the secret and the certificate, and then
// joined a cluster whose epochs are lower, must not seal with the first one's.
func TestSecretOfABrokenOffJoinIsForgotten(t *testing.T) {
	first, second := newTown(t), newTown(t)
	dir := filepath.Join(t.TempDir(), "keys")
	j, err := PrepareJoin(dir)
	if err != nil {
		t.Fatal(err)
	}
	broken := granted(t, first, j, 9)
	broken.certificate = []byte("cut off")
	if _, err := broken.finish(j); err == nil {
		t.Fatal("it did not break off")
	}
	g := granted(t, second, j, 2)
	keys, err := g.finish(j)
	if err != nil || keys.Epoch != 2 || len(keys.Secrets) != 1 || keys.Secrets[2] != g.secret {
		t.Fatalf("epoch %d of %d secrets: %v; want 2 of 1", keys.Epoch, len(keys.Secrets), err)
	}
}

func TestAuthorityOfAnotherFormIsNoAuthority(t *testing.T) {
	town := newTown(t)
	for _, der := range [][]byte{nil, []byte("x"), town.keys[0].Certificate.Certificate[0]} {
		if _, err := ParseAuthorities([][]byte{der}); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%d bytes: %v", len(der), err)
		}
	}
	c := *town.CA.Certificate
	c.URIs = []*url.URL{{Scheme: "https", Host: town.Cluster.String(), Path: "/ca"}}
	if _, err := caCluster(&c); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("an authority for %v: %v", c.URIs[0], err)
	}
}
