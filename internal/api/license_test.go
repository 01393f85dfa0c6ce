package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api/licenseview"
	"github.com/belfry-ha/belfry/internal/license"
	"github.com/belfry-ha/belfry/internal/repository"
)

// fakeLicenses judge the newest of the documents, as of a time that stands still.
type fakeLicenses struct {
	documents *fakeDocuments
	mu        sync.Mutex
	changed   chan struct{}
}

func (f *fakeLicenses) Standing() (*licenseview.Standing, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Latest(), f.changed
}

func (f *fakeLicenses) Latest() *licenseview.Standing {
	d, _ := f.documents.Document()
	return licenseview.Stand(&d, d.Nodes[0].ID, licenseview.Clock{Now: time.Now()})
}

func (*fakeLicenses) Mark(committed, _ time.Time) time.Time { return committed }

// again says that the document is another one.
func (f *fakeLicenses) again() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
}

// noLeader fails the test if somebody asks who makes changes.
type noLeader struct {
	alone
	t *testing.T
}

func (l noLeader) Lead(_ context.Context, method string, _ proto.Message, _ func(context.Context) error, _ proto.Message) error {
	l.t.Errorf("%s reaches the node that makes changes", method)
	return belfry.ErrRestricted
}

var acmeKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func acmeLicense(t *testing.T, key ed25519.PrivateKey, edit func(*license.License)) []byte {
	t.Helper()
	l := license.License{ID: "A-1", Product: "acme-db", Binding: license.Binding{Any: true}, IssuedAt: now}
	if edit != nil {
		edit(&l)
	}
	f, err := license.Sign(l, key)
	if err != nil {
		t.Fatal(err)
	}
	return f.Encode()
}

// startLicenseAgent trusts the key for acme-db, and nothing else.
func startLicenseAgent(t *testing.T, subject Subject, leader Leader) (*agent, *fakeLicenses) {
	t.Helper()
	f := newFakeDocuments(t)
	f.all[0].Licenses = repository.Licenses{Issuers: []repository.Issuer{{Product: "acme-db", Key: acmeKey.Public().(ed25519.PublicKey)}}}
	l := &fakeLicenses{documents: f, changed: make(chan struct{})}
	a := &agent{
		events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(t.TempDir(), "s"), subject: subject, config: f, licenses: l, leader: leader,
	}
	a.start(t)
	return a, l
}

// TestARefusedLicenseReachesNobody: it is judged where it is brought, before the
// node that makes changes is asked.
func TestARefusedLicenseReachesNobody(t *testing.T) { // P1
	t.Parallel()
	a, _ := startLicenseAgent(t, admin, noLeader{t: t})
	c := a.dial(t)
	rogue := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	for name, text := range map[string][]byte{
		"forged": acmeLicense(t, rogue, nil), "no license": []byte("x"),
		"another product's": acmeLicense(t, acmeKey, func(l *license.License) { l.Product = "other" }),
		"another cluster's": acmeLicense(t, acmeKey, func(l *license.License) { l.Binding = license.Binding{Cluster: belfry.ClusterID{1}} }),
		"ended":             acmeLicense(t, acmeKey, func(l *license.License) { l.NotAfter = now.AddDate(-1, 0, 0) }),
	} {
		if _, err := c.UnlockLicense(t.Context(), text, "", false); !errors.Is(err, belfry.ErrPermission) && !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s: %v; want a refusal", name, err)
		}
	}
	if answer, err := c.UnlockLicense(t.Context(), acmeLicense(t, acmeKey, nil), "", true); err != nil || !answer.GetChanged() {
		t.Errorf("a good one, only tried: %v, %v", answer, err)
	}
	if _, err := c.RemoveLicense(t.Context(), "A-9", "", false); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("one that is not there is removed: %v; want ErrNotFound", err)
	}
	if _, err := c.RevokeLicenses(t.Context(), []byte("x"), false); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("no list: %v; want ErrUsage", err)
	}
	if _, err := c.AddIssuer(t.Context(), "acme-db", "x", false); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("no key: %v; want ErrUsage", err)
	}
}

// TestALicenseIsToldNowAndWhenItChanges: the stream begins with the state, and says
// nothing twice.
func TestALicenseIsToldNowAndWhenItChanges(t *testing.T) {
	t.Parallel()
	a, l := startLicenseAgent(t, admin, nil)
	c := a.dial(t)
	follow, err := c.License(t.Context(), "acme-db")
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	if s, err := follow.Next(t.Context()); err != nil || s.State != belfry.LicenseLocked || s.Text != nil {
		t.Errorf("at first %s, %v", s.State, err)
	}
	l.again() // nothing is otherwise
	text := acmeLicense(t, acmeKey, nil)
	if _, err := c.UnlockLicense(t.Context(), text, "acme-db", false); err != nil {
		t.Fatal(err)
	}
	l.again()
	if s, err := follow.Next(t.Context()); err != nil || s.State != belfry.LicenseUnlocked || !bytes.Equal(s.Text, text) || s.ID != "A-1" {
		t.Errorf("then %s with %d bytes, %v; want unlocked, with the signed ones", s.State, len(s.Text), err)
	}
	list, err := c.Licenses(t.Context(), "")
	if err != nil || len(list.GetProducts()) != 1 || len(list.GetProducts()[0].GetFiles()) != 1 || list.GetProducts()[0].GetStatus().GetText() != "" {
		t.Errorf("the list is %v, %v", list, err)
	}
	status, err := c.Status(t.Context())
	if err != nil || len(status.GetLicenses().GetProducts()) != 1 || status.GetLicenses().GetProducts()[0].GetState() != "unlocked" {
		t.Errorf("the status has %v, %v", status.GetLicenses(), err)
	}
}

// TestWhoMayObserveReadsALicenseAndWhoAdministersUnlocks over HTTP too, where
// nobody is an administrator.
func TestWhoMayObserveReadsALicenseAndWhoAdministersUnlocks(t *testing.T) {
	t.Parallel()
	a, _ := startLicenseAgent(t, operator, noLeader{t: t})
	c := a.dial(t)
	if _, err := c.License(t.Context(), "acme-db"); err != nil {
		t.Errorf("an operator reads: %v", err)
	}
	if _, err := c.UnlockLicense(t.Context(), acmeLicense(t, acmeKey, nil), "", false); !errors.Is(err, belfry.ErrPermission) || !strings.Contains(err.Error(), "it takes admin") {
		t.Errorf("an operator unlocks: %v; want ErrPermission", err)
	}
	web := a.Web(WebOptions{Token: func(text string) bool { return text == "token" }})
	for path, want := range map[string]struct {
		method, body string
		code         int
		text         string
	}{
		"/v1/licenses":            {"GET", "", http.StatusOK, `"product":"acme-db"`},
		"/v1/licenses/acme-db":    {"GET", "", http.StatusOK, `"state":"locked"`},
		"/v1/licenses/-":          {"GET", "", http.StatusBadRequest, "want 1 to 63"},
		"/v1/licenses:unlock":     {"POST", `{"text":"x"}`, http.StatusForbidden, "it takes admin"},
		"/v1/licenses:remove":     {"POST", `{"licenseId":"A-1"}`, http.StatusForbidden, "it takes admin"},
		"/v1/licenses:revoke":     {"POST", `{"text":"x"}`, http.StatusForbidden, "it takes admin"},
		"/v1/issuers":             {"POST", `{"product":"acme-db"}`, http.StatusForbidden, "it takes admin"},
		"/v1/issuers:remove":      {"POST", `{"product":"acme-db"}`, http.StatusForbidden, "it takes admin"},
		"/v1/config:plan":         {"POST", `{"text":"cluster: {name: x}"}`, http.StatusOK, `"next":"9"`},
		"/v1/config/generations":  {"GET", "", http.StatusOK, `"generation":"8"`},
		"/v1/config:diff?from=8":  {"GET", "", http.StatusOK, `"to":"8"`},
		"/v1/config?path=cluster": {"GET", "", http.StatusOK, `cluster:`},
	} {
		r := httptest.NewRequest(want.method, "http://localhost"+path, strings.NewReader(want.body))
		r.Header.Set("Authorization", "Bearer token")
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		web.ServeHTTP(w, r)
		if got := strings.ReplaceAll(w.Body.String(), `": `, `":`); w.Code != want.code || !strings.Contains(got, want.text) {
			t.Errorf("%s %s: %d, %s; want %d with %s", want.method, path, w.Code, got, want.code, want.text)
		}
	}
}

func TestAClusterWithoutARepositoryHasNoLicenses(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	c := a.dial(t)
	if _, err := c.License(t.Context(), "acme-db"); !errors.Is(err, belfry.ErrUnsupported) || !strings.Contains(err.Error(), "belfry init --repository") {
		t.Errorf("%v; want ErrUnsupported with a remedy", err)
	}
	if status, err := c.Status(t.Context()); err != nil || status.GetLicenses() != nil {
		t.Errorf("the status has %v, %v", status.GetLicenses(), err)
	}
}

// A licenseStream takes what a call sends.
type licenseStream struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *belfryv1.LicenseStatus
}

func (s *licenseStream) Context() context.Context { return s.ctx }

func (s *licenseStream) Send(resp *belfryv1.WatchLicenseResponse) error {
	s.sent <- resp.GetStatus()
	return nil
}

// TestAStreamOfALicenseSaysNothingTwice: what is judged again and is the same is
// not sent.
func TestAStreamOfALicenseSaysNothingTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeDocuments(t)
		l := &fakeLicenses{documents: f, changed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		stream := &licenseStream{ctx: ctx, sent: make(chan *belfryv1.LicenseStatus, 8)}
		service := &licenseService{s: New(Options{Cluster: &fakeCluster{}, Documents: f, Licenses: l})}
		var group sync.WaitGroup
		group.Go(func() { _ = service.WatchLicense(&belfryv1.WatchLicenseRequest{Product: "acme-db"}, stream) })
		for range 3 {
			synctest.Wait()
			l.again()
		}
		synctest.Wait()
		if n := len(stream.sent); n != 1 {
			t.Errorf("%d statuses were sent; want the first one", n)
		}
		cancel()
		group.Wait()
	})
}
