package licenseview_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/api/licenseview"
	"github.com/belfry-ha/belfry/internal/license"
	"github.com/belfry-ha/belfry/internal/repository"
)

var (
	now     = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	cluster = belfry.ClusterID{0xc1}
	vendor  = key(1)
	rogue   = key(2)
)

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func node(n byte) belfry.NodeID { return belfry.NodeID{0xa0, n} }

// document is a cluster of a, b and c that trusts the vendor's key.
func document() repository.Document {
	d := repository.Document{
		Schema: repository.Schema, Cluster: repository.Cluster{Name: "dev", UUID: cluster}, Networks: []repository.Network{{Name: "net1"}},
		Repository: repository.Storage{Kind: repository.KindMembers},
		Licenses:   repository.Licenses{Issuers: []repository.Issuer{{Product: "acme-db", Key: public(vendor)}}},
		Security:   repository.Security{Datagram: repository.Datagram{Epoch: 1}},
		History:    []repository.Entry{{Generation: 1, Time: now, Author: "uid 0 on a", Text: "init"}},
	}
	for i := range byte(3) {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, i + 1}), 7431)
		d.Nodes = append(d.Nodes, repository.Node{
			Name: string('a' + rune(i)), ID: node(i + 1), Number: belfry.NodeNumber(i + 1), Key: bytes.Repeat([]byte{i + 1}, 32),
			Addresses: []repository.Address{{Network: "net1", Heartbeat: at}}, Streams: netip.AddrPortFrom(at.Addr(), 7432),
			Capacity: repository.Capacity{Cores: 4}, Joined: repository.Moment{Generation: 1, Time: now},
		})
	}
	return d
}

// file is a license of acme-db for everywhere, but for what edit changes.
func file(t testing.TB, id string, k ed25519.PrivateKey, edit func(*license.License)) []byte {
	t.Helper()
	l := license.License{
		ID: license.ID(id), Product: "acme-db", Features: []string{}, Binding: license.Binding{Any: true}, GraceDays: 14,
		IssuedAt: now.Add(-24 * time.Hour), Supersedes: []license.ID{},
	}
	if edit != nil {
		edit(&l)
	}
	f, err := license.Sign(l, k)
	if err != nil {
		t.Fatal(err)
	}
	return f.Encode()
}

func list(t testing.TB, serial int64, k ed25519.PrivateKey, ids ...license.ID) []byte {
	t.Helper()
	f, err := license.SignRevocations(license.Revocations{Product: "acme-db", Serial: serial, IssuedAt: now.Add(-time.Hour), Revoked: ids}, k)
	if err != nil {
		t.Fatal(err)
	}
	return f.Encode()
}

// marker takes what is committed, or else now.
func marker(committed, issued time.Time) time.Time {
	for _, at := range []time.Time{committed, issued} {
		if at.After(now) {
			return at
		}
	}
	return now
}

// next is what a change makes of a document; its error, and that it changed.
func next(d repository.Document, c configview.Change) (repository.Document, bool, error) {
	return c.Next(d, repository.Entry{Time: now, Author: "uid 0 on a", Node: node(1)}, configview.Tunables{})
}

func mustNext(t testing.TB, d repository.Document, c configview.Change) repository.Document {
	t.Helper()
	to, changed, err := next(d, c)
	if err != nil || !changed {
		t.Fatalf("%s: changed %t, %v", c.Text, changed, err)
	}
	return to
}

func unlock(text []byte) configview.Change {
	return licenseview.Unlocking{Text: text, Node: node(2), Operator: "uid 0 on b", Mark: marker}.Change()
}

// states are how a product stands on each member, as a(unlocked) b(locked).
func states(d repository.Document) string {
	var words []string
	for _, m := range licenseview.Members(&d, "acme-db", licenseview.Clock{Now: now}) {
		words = append(words, fmt.Sprintf("%s(%s)", m.Name, m.Verdict.State))
	}
	return strings.Join(words, " ")
}

func TestAFileInTheDocumentUnlocksEveryMember(t *testing.T) { // P2
	t.Parallel()
	d := document()
	if got, want := states(d), "a(locked) b(locked) c(locked)"; got != want {
		t.Errorf("before: %s; want %s", got, want)
	}
	text := file(t, "L-1", vendor, nil)
	to := mustNext(t, d, unlock(text))
	if got, want := states(to), "a(unlocked) b(unlocked) c(unlocked)"; got != want {
		t.Errorf("after: %s; want %s", got, want)
	}
	want := []repository.Activation{{License: "L-1", Node: node(2), Time: now, Operator: "uid 0 on b"}}
	if diff := cmp.Diff(want, to.Licenses.Activations); diff != "" {
		t.Errorf("activations (-want +got):\n%s", diff)
	}
	if !to.Licenses.Mark.Equal(now) {
		t.Errorf("the time mark is %s; want that of the marker", to.Licenses.Mark)
	}
	if e := to.History[len(to.History)-1]; e.Text != "license L-1 of acme-db is unlocked" || e.Author != "uid 0 on a" {
		t.Errorf("the history has %q by %q", e.Text, e.Author)
	}
	if len(d.Licenses.Files) > 0 {
		t.Error("the document that the change was made of has it too")
	}
	if _, changed, err := next(to, unlock(text)); changed || err != nil {
		t.Errorf("once more: changed %t, %v; want neither", changed, err)
	}
	if unlock(text).Notice != repository.NoticeUnlock {
		t.Error("members are not told to unlock")
	}
}

// TestWhatIsRefusedChangesNothing: the document stays as it is, and each error
// says what is wrong and what would be right.
func TestWhatIsRefusedChangesNothing(t *testing.T) { // P1
	t.Parallel()
	good := file(t, "L-1", vendor, nil)
	flipped := slices.Clone(good)
	flipped[len("-----BEGIN BELFRY LICENSE-----\n")+80] ^= 1
	revoked := mustNext(t, document(), licenseview.Revoke(list(t, 3, vendor, "L-1"), marker))
	there := mustNext(t, document(), unlock(good))
	for name, tt := range map[string]struct {
		d       repository.Document
		text    []byte
		want    error
		message string
	}{
		"nobody trusts the key":   {document(), file(t, "L-1", rogue, nil), belfry.ErrPermission, "register it with `belfry license issuer add`"},
		"another product's":       {document(), file(t, "L-1", vendor, func(l *license.License) { l.Product = "other" }), belfry.ErrPermission, "signs for acme-db, not for other; ask the issuer of other"},
		"another cluster's":       {document(), file(t, "L-1", vendor, func(l *license.License) { l.Binding = license.Binding{Cluster: belfry.ClusterID{9}} }), belfry.ErrPermission, "ask its issuer for one for cluster"},
		"of nodes that are not":   {document(), file(t, "L-1", vendor, func(l *license.License) { l.Binding = license.Binding{Nodes: []belfry.NodeID{{9}}} }), belfry.ErrPermission, "ask its issuer"},
		"ended":                   {document(), file(t, "L-1", vendor, func(l *license.License) { l.NotAfter = now.AddDate(0, -6, 0) }), belfry.ErrPermission, "renew it"},
		"revoked":                 {revoked, good, belfry.ErrPermission, "ask them for another one"},
		"a changed byte":          {document(), flipped, nil, ""},
		"cut off":                 {document(), good[:len(good)-40], belfry.ErrUsage, "cut off; get it from its issuer again"},
		"not a license":           {document(), []byte("hello"), belfry.ErrUsage, "not one PEM block"},
		"two":                     {document(), append(slices.Clone(good), good...), belfry.ErrUsage, "want one, in a file of its own"},
		"another file of that id": {there, file(t, "L-1", vendor, func(l *license.License) { l.Edition = "gold" }), belfry.ErrExist, "belfry license remove"},
		"superseded": {
			mustNext(t, document(), unlock(file(t, "L-2", vendor, func(l *license.License) { l.Supersedes = []license.ID{"L-1"} }))), good, belfry.ErrStale, "use that one",
		},
	} {
		before, err := repository.Encode(tt.d)
		if err != nil {
			t.Fatal(err)
		}
		to, changed, err := next(tt.d, unlock(tt.text))
		if changed || err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s: changed %t, %v; want %v that says %q", name, changed, err, tt.want, tt.message)
		}
		if after, err := repository.Encode(to); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: the document is another one (%v)", name, err)
		}
	}
}

func TestAProductThatIsAskedForIsHeldTo(t *testing.T) {
	t.Parallel()
	text := file(t, "L-1", vendor, nil)
	d := mustNext(t, document(), unlock(text))
	for _, d := range []repository.Document{document(), d} {
		u := licenseview.Unlocking{Text: text, Product: "other", Node: node(1), Mark: marker}
		if _, err := u.Admit(&d, licenseview.Clock{Now: now}); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("a license of acme-db for other: %v; want ErrPermission", err)
		}
	}
}

func TestCapacityIsThatOfTheDocument(t *testing.T) {
	t.Parallel()
	d := mustNext(t, document(), unlock(file(t, "L-1", vendor, func(l *license.License) { l.Capacity.Nodes = 2 })))
	if got, want := states(d), "a(unlocked) b(unlocked) c(over_capacity)"; got != want {
		t.Errorf("two nodes: %s; want %s", got, want)
	}
	if licenseview.Counts(&d) {
		t.Error("a license for nodes takes the size of machines")
	}
	d = mustNext(t, document(), unlock(file(t, "L-1", vendor, func(l *license.License) { l.Capacity.Cores = 11 })))
	if got, want := states(d), "a(unlocked) b(unlocked) c(over_capacity)"; got != want {
		t.Errorf("eleven cores: %s; want %s", got, want)
	}
	if !licenseview.Counts(&d) {
		t.Error("a license for cores does not take the size of machines")
	}
	d.Nodes[0].Capacity = repository.Capacity{} // nothing is known of it
	if got, want := states(d), "a(over_capacity) b(over_capacity) c(over_capacity)"; got != want {
		t.Errorf("an unknown one first: %s; want %s", got, want)
	}
}

func TestRemovingTakesWhatBelongsToIt(t *testing.T) {
	t.Parallel()
	d := mustNext(t, document(), licenseview.AddIssuer("other", public(rogue)))
	d = mustNext(t, d, unlock(file(t, "L-1", vendor, nil)))
	d = mustNext(t, d, unlock(file(t, "L-1", rogue, func(l *license.License) { l.Product = "other" })))
	d = mustNext(t, d, unlock(file(t, "L-2", vendor, nil)))
	if _, _, err := next(d, licenseview.Remove("L-1", "")); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "acme-db and of other; say which product") {
		t.Errorf("of two products: %v", err)
	}
	if _, _, err := next(d, licenseview.Remove("L-9", "")); !errors.Is(err, belfry.ErrNotFound) || !strings.Contains(err.Error(), "there is L-1 of acme-db, L-2 of acme-db, L-1 of other") {
		t.Errorf("none: %v", err)
	}
	d = mustNext(t, d, licenseview.Remove("L-1", "other"))
	if len(d.Licenses.Files) != 2 || len(d.Licenses.Activations) != 3 {
		t.Errorf("%d files, %d activations; want 2 and 3: acme-db still has L-1", len(d.Licenses.Files), len(d.Licenses.Activations))
	}
	d = mustNext(t, d, licenseview.Remove("L-1", ""))
	if len(d.Licenses.Files) != 1 || len(d.Licenses.Activations) != 1 || d.Licenses.Activations[0].License != "L-2" {
		t.Errorf("%d files, activations %v; want those of L-2", len(d.Licenses.Files), d.Licenses.Activations)
	}
}

func TestOnlyANewerListOfTheIssuerIsTaken(t *testing.T) {
	t.Parallel()
	d := mustNext(t, document(), unlock(file(t, "L-1", vendor, nil)))
	if _, _, err := next(d, licenseview.Revoke(list(t, 9, rogue, "L-1"), marker)); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("by nobody's key: %v; want ErrPermission", err)
	}
	third := list(t, 3, vendor, "L-1")
	d = mustNext(t, d, licenseview.Revoke(third, marker))
	if got, want := states(d), "a(revoked) b(revoked) c(revoked)"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	if _, changed, err := next(d, licenseview.Revoke(third, marker)); changed || err != nil {
		t.Errorf("the same: changed %t, %v; want neither", changed, err)
	}
	for _, serial := range []int64{2, 3} {
		if _, _, err := next(d, licenseview.Revoke(list(t, serial, vendor), marker)); !errors.Is(err, belfry.ErrStale) {
			t.Errorf("list %d after 3: %v; want ErrStale", serial, err)
		}
	}
	d = mustNext(t, d, licenseview.Revoke(list(t, 4, vendor), marker))
	if got, want := states(d), "a(unlocked) b(unlocked) c(unlocked)"; got != want || len(d.Licenses.Revocations) != 1 {
		t.Errorf("%s by %d lists; want %s by one", got, len(d.Licenses.Revocations), want)
	}
}

func TestAnIssuerThatGoesTakesItsLicensesAlong(t *testing.T) {
	t.Parallel()
	d := mustNext(t, document(), unlock(file(t, "L-1", vendor, nil)))
	if _, changed, err := next(d, licenseview.AddIssuer("acme-db", public(vendor))); changed || err != nil {
		t.Errorf("once more: changed %t, %v; want neither", changed, err)
	}
	if _, _, err := next(d, licenseview.AddIssuer("-", public(vendor))); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("a product called -: %v; want ErrUsage", err)
	}
	id := license.KeyIDOf(public(vendor)).String()
	if _, _, err := next(d, licenseview.RemoveIssuer("other", id)); !errors.Is(err, belfry.ErrNotFound) || !strings.Contains(err.Error(), "there is acme-db "+id) {
		t.Errorf("of another product: %v", err)
	}
	d = mustNext(t, d, licenseview.RemoveIssuer("acme-db", id))
	if got, want := states(d), "a(locked) b(locked) c(locked)"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	if got := licenseview.Products(&d); !slices.Equal(got, []string{"acme-db"}) {
		t.Errorf("products %v; want that of the file that is left", got)
	}
}

// TestAStandingKnowsWhenItEnds: what a node does not need to be told of.
func TestAStandingKnowsWhenItEnds(t *testing.T) {
	t.Parallel()
	d := mustNext(t, document(), unlock(file(t, "L-1", vendor, func(l *license.License) { l.NotAfter = now.Add(24*time.Hour - time.Second) })))
	s := licenseview.Stand(&d, node(1), licenseview.Clock{Now: now})
	if v := s.Verdict("acme-db"); v.State != belfry.LicenseUnlocked || !s.Until().Equal(now.Add(24*time.Hour)) {
		t.Errorf("%s until %s; want unlocked for a day", v.State, s.Until())
	}
	if v := s.Verdict("nothing"); v.State != belfry.LicenseLocked || !strings.Contains(v.Reason, "belfry license unlock FILE") {
		t.Errorf("a product that nobody knows: %s, %q", v.State, v.Reason)
	}
	if !licenseview.Dated(&d) {
		t.Error("a license that ends has no dates")
	}
	s = licenseview.Stand(&d, node(1), licenseview.Clock{Now: now.Add(-10 * 24 * time.Hour), Mark: now.Add(30 * 24 * time.Hour)})
	if v := s.Verdict("acme-db"); v.State != belfry.LicenseExpired || s.Behind != 40*24*time.Hour {
		t.Errorf("a clock that was set back: %s, behind %s; want expired by the mark that the node has saved", v.State, s.Behind)
	}
	d.Licenses.Mark = now.Add(50 * 24 * time.Hour)
	if s := licenseview.Stand(&d, node(1), licenseview.Clock{Now: now}); s.Behind != 50*24*time.Hour {
		t.Errorf("behind %s; want 1200h by the mark in the document", s.Behind)
	}
	if s := licenseview.Stand(&d, node(9), licenseview.Clock{Now: now}); s.Verdict("acme-db").State != belfry.LicenseLocked {
		t.Error("a node that is no member is not locked")
	}
}
