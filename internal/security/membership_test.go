package security

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

// TestAMemberIsWhoHasItsListedKey shows a node that asks whether it still is a
// member all that may answer in the place of node a.
func TestAMemberIsWhoHasItsListedKey(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	next, err := NewCA(tn.Cluster, issued)
	if err != nil {
		t.Fatal(err)
	}
	a, b := tn.keys[0], tn.keys[1]
	certify := func(ca *CA, node belfry.NodeID, k *Keys) []byte {
		der, err := ca.IssueNode(issued, node, k.Public())
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	elsewhere, err := NewCA(belfry.NewClusterID(), issued)
	if err != nil {
		t.Fatal(err)
	}
	client, err := tn.CA.IssueClient(issued, "web", a.Public())
	if err != nil {
		t.Fatal(err)
	}
	ended, err := tn.CA.IssueNode(issued.AddDate(-1, 0, 0), a.Node, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	keyOf := func(k *Keys) any { return k.Certificate.PrivateKey }
	for _, tt := range []struct {
		name   string
		server *tls.Config
		want   string // empty: it is believed
	}{
		{"node a", NodeServerConfig(tn.guests(0)), ""},
		{"node a whose certificate has ended", showing(keyOf(a), ended, tn.CA.Certificate.Raw), ""},
		{"node a under the next authority", showing(keyOf(a), certify(next, a.Node, a), next.Certificate.Raw), ""},
		{"node b", NodeServerConfig(tn.guests(1)), "answers where node " + a.Node.String() + " was expected"},
		{"node b with a certificate for a", showing(keyOf(b), certify(tn.CA, a.Node, b), tn.CA.Certificate.Raw), "another key than the listed one"},
		{"a's certificate without its key", showing(keyOf(b), a.Certificate.Certificate[0]), "invalid signature"},
		{"a's key for another cluster", showing(keyOf(a), certify(elsewhere, a.Node, a)), "of cluster " + elsewhere.Cluster.String()},
		{"a's key for a client", showing(keyOf(a), client), "client web"},
		{"a's key for b", showing(keyOf(a), certify(tn.CA, b.Node, a)), "answers where"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := handshake(t, tt.server, MembershipClientConfig(tn.Cluster, a.Node, a.Public()))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v; want an error with %q", err, tt.want)
			}
		})
	}
	if err := verifyMember(tls.ConnectionState{}, a.Identity(), a.Public()); err == nil {
		t.Error("no certificate is believed")
	}
}
