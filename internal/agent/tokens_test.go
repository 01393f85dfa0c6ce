package agent

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/security"
)

// TestNoWrongTokenIsAccepted tries 10,000 that are wrong, used, revoked or have
// ended, and 10,000 pins, with what an attacker could know: ids, names, other
// tokens' secrets. None may be accepted, and the table stays what it was.
func TestNoWrongTokenIsAccepted(t *testing.T) {
	t.Parallel()
	const tries = 10_000
	m := machines(t, 2)
	formed(t, m[:1])
	a := m[0].agent
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))

	var used, revoked, ended, good security.Token
	for i, token := range []*security.Token{&used, &revoked, &ended, &good} {
		parsed, err := security.ParseToken(m[0].token(t, client.TokenRequest{Name: fmt.Sprintf("x%d", i)}))
		if err != nil {
			t.Fatal(err)
		}
		*token = parsed
	}
	if _, err := a.RevokeToken(t.Context(), revoked.ID.String()); err != nil {
		t.Fatal(err)
	}
	_, _, err := a.commit(t.Context(), func(table *Table) error {
		for i := range table.Tokens {
			if table.Tokens[i].ID == ended.ID.String() {
				table.Tokens[i].Expires = time.Now().Add(-time.Second)
			}
		}
		return table.useToken(JoinToken{ID: used.ID.String(), Hash: used.Secret.Hash()})
	})
	if err != nil {
		t.Fatal(err)
	}
	j, err := security.PrepareJoin(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := j.Request()
	if err != nil {
		t.Fatal(err)
	}
	request := func(id security.TokenID, secret []byte) *belfryv1.JoinRequest {
		return &belfryv1.JoinRequest{
			TokenId: id[:], TokenSecret: secret, Csr: csr, Sealing: j.Sealing.Public(), SealingSignature: j.SealingSignature(),
			Name: "n2", Streams: m[1].address(), Networks: []*belfryv1.JoinAddress{{Address: netip.AddrPortFrom(m[1].Addresses[0].Addr(), 7431).String(), Prefix: 24}},
		}
	}
	accepted := 0
	for i := range tries {
		var id security.TokenID
		secret := make([]byte, 16)
		switch i % 8 {
		case 0:
			id, secret = used.ID, used.Secret[:]
		case 1:
			id, secret = revoked.ID, revoked.Secret[:]
		case 2:
			id, secret = ended.ID, ended.Secret[:]
		case 3: // another token's secret
			id, secret = used.ID, good.Secret[:]
		case 4: // a good secret under an id that there is not
			id, secret = security.TokenID(bytesOf(r, 8)), good.Secret[:]
		case 5: // one bit beside a token that has ended
			copy(secret, ended.Secret[:])
			id = ended.ID
			secret[r.IntN(16)] ^= 1 << r.IntN(8)
		case 6: // too short, too long, empty
			id, secret = good.ID, bytesOf(r, r.IntN(40))
			if len(secret) == 16 {
				secret = secret[:15]
			}
			if i != 6 && r.IntN(1000) > 0 { // ten of these use the good one up
				id = revoked.ID
			}
		case 7:
			id, secret = security.TokenID(bytesOf(r, 8)), bytesOf(r, 16)
		}
		if _, err := a.admit(t.Context(), request(id, secret)); err == nil {
			accepted++
		}
	}
	if n := len(a.members.Table().Nodes); accepted != 0 || n != 1 {
		t.Errorf("seed %d: %d of %d accepted, %d members; want none, and 1", seed, accepted, tries, n)
	}
	pins := 0
	for range tries {
		wrong := good
		wrong.CA[r.IntN(len(wrong.CA))] ^= 1 << r.IntN(8)
		cfg := security.JoinClientConfig(wrong, nil)
		if cfg.VerifyConnection(shownBy(a)) == nil {
			pins++
		}
	}
	if pins != 0 || security.JoinClientConfig(good, nil).VerifyConnection(shownBy(a)) != nil {
		t.Errorf("seed %d: %d of %d wrong pins accepted, or the right one is not", seed, pins, tries)
	}
	if _, err := a.admit(t.Context(), request(good.ID, good.Secret[:])); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// shownBy is a connection on which the agent shows what it shows to guests.
func shownBy(a *Agent) tls.ConnectionState {
	keys := a.keys.now()
	return tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{keys.Certificate.Leaf, keys.Issuer()}}
}

func bytesOf(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestTenFailuresUseATokenUp: whoever guesses has ten tries for each token that
// somebody made. Its owner is told nothing either, but the administrator can see
// why the token is refused, at any member.
func TestTenFailuresUseATokenUp(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	log := &logText{}
	m[1].log = log
	formed(t, m[:2])
	a := m[0].agent
	token, err := security.ParseToken(m[0].token(t, client.TokenRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	j, err := security.PrepareJoin(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := j.Request()
	if err != nil {
		t.Fatal(err)
	}
	for i := range tokenFailures {
		if tokens := a.Tokens(); len(tokens) != 1 || tokens[0].GetWrongSecrets() != 0 {
			t.Fatalf("after %d failures the tokens are %v; want one that can be used", i, tokens)
		}
		if _, err := a.admit(t.Context(), &belfryv1.JoinRequest{TokenId: token.ID[:], TokenSecret: make([]byte, 16), Csr: csr}); err == nil {
			t.Fatal("a wrong secret is accepted")
		}
	}
	for _, member := range m[:2] {
		tokens, err := member.dial(t).Tokens(t.Context())
		if err != nil || len(tokens) != 1 || tokens[0].GetId() != token.ID.String() || tokens[0].GetWrongSecrets() != tokenFailures {
			t.Errorf("%s lists %v, %v; want %s, used up by %d", member.Name, tokens, err, token.ID, tokenFailures)
		}
	}
	a.misses.mu.Lock()
	a.misses.of = nil // as at another leader, or after a restart
	a.misses.mu.Unlock()
	_, err = m[2].join(t.Context(), m[1], token.Text())
	neutral := regexp.MustCompile(`^permission denied: join refused; the reason is in the log of the node that was asked \(audit ([0-9a-f]{12})\)$`)
	said := neutral.FindStringSubmatch(fmt.Sprint(err))
	if said == nil {
		t.Fatalf("the owner is told %q; want %s", err, neutral)
	}
	reason := fmt.Sprintf("audit=%s err=\".*token %s was used up by %d wrong secrets; make a new one with belfry token create\"", said[1], token.ID, tokenFailures)
	if text := log.String(); !regexp.MustCompile(reason).MatchString(text) {
		t.Errorf("the log of the node that was asked:\n%swant in it %s", text, reason)
	}
	// It is no obstacle: another one is made, and it can be revoked.
	m[2].mustJoin(t, m[1])
	if _, err := a.RevokeToken(t.Context(), token.ID.String()); err != nil {
		t.Error(err)
	}
	if tokens := a.Tokens(); len(tokens) != 0 {
		t.Errorf("tokens: %v; want none", tokens)
	}
}

func TestTokensAliveAreBounded(t *testing.T) {
	t.Parallel()
	m := machines(t, 1)
	formed(t, m)
	c := m[0].dial(t)
	for range maxTokens {
		if _, err := c.CreateToken(t.Context(), client.TokenRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.CreateToken(t.Context(), client.TokenRequest{}); belfry.Code(err) != belfry.Code(belfry.ErrLimit) {
		t.Errorf("one more: %v; want ErrLimit", err)
	}
}
