package agent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
)

func keyNumber(n byte) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+n)), ed25519.SeedSize))).Public().(ed25519.PublicKey)
}

// clientKey is of somebody who joined so many days after the first one, with a
// certificate of 30 days.
func clientKey(number byte, day int) ClientKey {
	joined := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, day)
	return ClientKey{Key: sha256.Sum256(keyNumber(number)), Serial: fmt.Sprint(number), Joined: joined, Expires: joined.AddDate(0, 0, 30)}
}

func TestAClientIsKnownByNameAndKey(t *testing.T) {
	t.Parallel()
	table := &Table{Clients: []ClientRole{{Name: "local", Role: "admin"}}}
	for key := range byte(maxClientKeys + 2) {
		if err := table.addClient("ci", "reader", clientKey(key, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.addClient("local", "admin", clientKey(0, 0)); err != nil { // every key of it counts already
		t.Fatal(err)
	}
	for day, key := range []byte{0, 1, 0} { // the first one has ended, and comes again with another certificate
		if err := table.addClient("web", "reader", clientKey(key, 20*day)); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.addClient("ci", "operator", clientKey(0, 0)); !errors.Is(err, belfry.ErrExist) || !strings.Contains(err.Error(), "client ci joined as reader; remove it first: belfry client remove ci") {
		t.Errorf("another role: %v", err)
	}
	a := &Agent{members: &fileMembership{}}
	a.members.(*fileMembership).table.Store(table)
	for _, tt := range []struct {
		name string
		key  byte
		ok   bool
	}{
		{"ci", 0, false},
		{"ci", 1, false},
		{"ci", 2, true},
		{"ci", maxClientKeys + 1, true},
		{"ci", maxClientKeys + 2, false},
		{"local", 0, true},
		{"local", 7, true},
		{"nobody", 2, false},
		{"web", 0, true},
		{"web", 1, true},
	} {
		if err := a.clientListed(tt.name, keyNumber(tt.key)); (err == nil) != tt.ok {
			t.Errorf("%s with key %d: %v", tt.name, tt.key, err)
		}
	}
	var serials []string
	for _, k := range a.Clients()[2].GetCertificates() {
		serials = append(serials, k.GetSerial()+" "+k.GetJoined().AsTime().Format(time.DateOnly)+" "+k.GetExpires().AsTime().Format(time.DateOnly))
	}
	if diff := cmp.Diff([]string{"0 2026-02-10 2026-03-12", "1 2026-01-21 2026-02-20"}, serials); diff != "" {
		t.Errorf("certificates of web (-want +got):\n%s", diff)
	}
}

// TestCertificatesThatHaveEndedMakeRoom for those that come; a client is not
// kept for longer than it joins again and again.
func TestCertificatesThatHaveEndedMakeRoom(t *testing.T) {
	t.Parallel()
	table := &Table{}
	for key := range byte(5) {
		if err := table.addClient("ci", "reader", clientKey(key, 25*int(key))); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(table.Clients[0].Keys); got != 2 {
		t.Errorf("%d keys are kept; want the newest and the one that goes on for 5 days", got)
	}
}

// TestClientsAreBounded when they join; a table with more, of an older agent, is
// read all the same.
func TestClientsAreBounded(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	for i := range maxClients + 1 {
		table.Clients = append(table.Clients, ClientRole{Name: fmt.Sprint("c", i), Role: "reader"})
	}
	if err := table.Validate(); err != nil {
		t.Error(err)
	}
	want := "1025 clients are listed, at most 1024; remove some: belfry client remove NAME"
	if err := table.addClient("one-more", "reader", clientKey(0, 0)); !errors.Is(err, belfry.ErrLimit) || !strings.Contains(err.Error(), want) {
		t.Errorf("one more: %v", err)
	}
	if err := table.addClient("c7", "reader", clientKey(0, 0)); err != nil {
		t.Errorf("one that is listed, again: %v", err)
	}
}

func TestTablesFromBeforeClientsWereDescribedAreRead(t *testing.T) {
	t.Parallel()
	digest := fmt.Sprintf("%x", sha256.Sum256(keyNumber(3)))
	for name, tt := range map[string]struct {
		clients string
		want    ClientRole
	}{
		"without keys": {`{"name":"ci","role":"reader"}`, ClientRole{Name: "ci", Role: "reader"}},
		"the digest alone": {
			`{"name":"ci","role":"reader","keys":["` + digest + `"],"joined":"2026-01-01T00:00:00Z"}`,
			ClientRole{Name: "ci", Role: "reader", Keys: []ClientKey{{Key: sha256.Sum256(keyNumber(3))}}},
		},
	} {
		document := strings.Replace(string(encoded(t, testTable(t))), `"nodes"`, `"clients":[`+tt.clients+`],"nodes"`, 1)
		table, err := decodeTable([]byte(document))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff([]ClientRole{tt.want}, table.Clients); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if !table.Clients[0].knows(sha256.Sum256(keyNumber(3))) {
			t.Errorf("%s: its key does not count", name)
		}
	}
	want := ClientRole{Name: "ci", Role: "operator", TokenRole: "reader", Keys: []ClientKey{clientKey(1, 0), clientKey(2, 1)}}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got ClientRole
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("there and back (-want +got):\n%s", diff)
	}
}

// TestNothingIsLeftToTheNextOneOfAName neither what was given to the client that
// was removed, nor what an older agent's removal left behind.
func TestNothingIsLeftToTheNextOneOfAName(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	for _, name := range []string{"ci", "web"} {
		if err := table.addClient(name, "reader", clientKey(0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	given := []security.Grant{
		{Subjects: []string{"client:ci"}, Role: "admin"},
		{Subjects: []string{"client:ci", "client:web"}, Allow: []string{"emit:user.x"}},
	}
	table.Roles = given
	table.removeClient("ci")
	want := []security.Grant{{Subjects: []string{"client:web"}, Allow: []string{"emit:user.x"}}}
	if diff := cmp.Diff(want, table.Roles); diff != "" || table.client("ci") >= 0 || table.client("web") < 0 {
		t.Errorf("clients %v, roles (-want +got):\n%s", table.Clients, diff)
	}
	if diff := cmp.Diff([]string{"client:ci", "client:web"}, given[1].Subjects); diff != "" {
		t.Errorf("the generation before has changed:\n%s", diff)
	}
	table.Roles = append(table.Roles, given[0])
	if err := table.addClient("ci", "reader", clientKey(1, 0)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, table.Roles); diff != "" {
		t.Errorf("after another one has joined (-want +got):\n%s", diff)
	}
}
