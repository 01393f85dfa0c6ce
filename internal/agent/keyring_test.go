package agent

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry/internal/security"
)

// TestAJoinerWaitsForTheNewCertificate: from the change of the authorities until
// this node's certificate is renewed, and not for ever.
func TestAJoinerWaitsForTheNewCertificate(t *testing.T) {
	t.Parallel()
	n := localNodes(t, 1)[0]
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(n.State, "keys")
		keys, err := security.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		next, err := security.NewCA(keys.Cluster, keys.Certificate.Leaf.NotBefore)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := next.IssueNode(keys.Certificate.Leaf.NotBefore, keys.Node, keys.Certificate.Leaf.PublicKey.(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		k := newKeyring(dir, keys)
		waited := func(do func()) time.Duration {
			begin, done := time.Now(), make(chan time.Time)
			go func() {
				k.settled(t.Context())
				done <- time.Now()
			}()
			time.Sleep(time.Second) //nolint:forbidigo // on virtual time
			do()
			return (<-done).Sub(begin)
		}
		both := [][]byte{next.Certificate.Raw, keys.CA[0].Raw}
		if got := waited(func() {}); got != 0 {
			t.Errorf("nothing changes: waited %s", got)
		}
		if err := k.follow([][]byte{keys.CA[0].Raw, next.Certificate.Raw}); err != nil {
			t.Fatal(err)
		}
		if got := waited(func() {}); got != 0 {
			t.Errorf("the new authority is the second one: waited %s", got)
		}
		if err := k.follow(both); err != nil {
			t.Fatal(err)
		}
		if got := waited(func() { err = k.renew(certificate, both) }); got != time.Second || err != nil {
			t.Errorf("renewed after a second: waited %s, %v", got, err)
		}
		if got := waited(func() {}); got != 0 {
			t.Errorf("renewed before: waited %s", got)
		}
		if err := k.follow([][]byte{keys.CA[0].Raw, next.Certificate.Raw}); err != nil {
			t.Fatal(err)
		}
		if got := waited(func() {}); got != settleTime {
			t.Errorf("not renewed: waited %s, want %s", got, settleTime)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := k.follow(both); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		k.settled(ended)
		if got := time.Since(begin); got != 0 {
			t.Errorf("the connection ended: waited %s", got)
		}
	})
}
