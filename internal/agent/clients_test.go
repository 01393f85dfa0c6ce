package agent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

func keyNumber(n byte) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+n)), ed25519.SeedSize))).Public().(ed25519.PublicKey)
}

func TestAClientIsKnownByNameAndKey(t *testing.T) {
	t.Parallel()
	table := &Table{Clients: []ClientRole{{Name: "local", Role: "admin"}}}
	join := func(name, role string, key byte) error {
		return table.addClient(ClientRole{Name: name, Role: role, Keys: []Digest{sha256.Sum256(keyNumber(key))}})
	}
	for key := range byte(maxClientKeys + 2) {
		if err := join("ci", "reader", key); err != nil {
			t.Fatal(err)
		}
	}
	if err := join("local", "admin", 0); err != nil { // every key of it counts already
		t.Fatal(err)
	}
	if err := join("ci", "operator", 0); !errors.Is(err, belfry.ErrExist) {
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
	} {
		if err := a.clientListed(tt.name, keyNumber(tt.key)); (err == nil) != tt.ok {
			t.Errorf("%s with key %d: %v", tt.name, tt.key, err)
		}
	}
}

func TestClientsAreBounded(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	for i := range maxClients + 1 {
		table.Clients = append(table.Clients, ClientRole{Name: fmt.Sprint("c", i), Role: "reader"})
	}
	if err := table.Validate(); !errors.Is(err, belfry.ErrLimit) || !strings.Contains(err.Error(), "clients: 1025; at most 1024, remove some: belfry client remove NAME") {
		t.Errorf("%v", err)
	}
}
