package agent

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/security"
)

// needles are the forms in which a secret could be printed; a part of it
// would be enough to tell.
func needles(secret []byte) (forms []string) {
	part := secret[:min(len(secret), 12)] // a multiple of 3: base64 of it begins base64 of all
	for _, b := range [][]byte{part, secret[len(secret)-min(len(secret), 12):]} {
		decimal := fmt.Sprint(b) //nolint:staticcheck // as a log might print it
		forms = append(forms, string(b), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)),
			strings.Trim(decimal, "[]"), strings.ReplaceAll(strings.Trim(decimal, "[]"), " ", ", "), fmt.Sprintf("%q", b)[1:])
	}
	return append(forms, base64.StdEncoding.EncodeToString(part), base64.URLEncoding.EncodeToString(part))
}

// A vault holds what must not be found.
type vault map[string][]byte

// gather takes the secrets in the state directories of these machines.
func (v vault) gather(t *testing.T, machines ...*machine) {
	t.Helper()
	for _, m := range machines {
		dir := filepath.Join(m.State, "keys")
		keys, err := security.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(keys.Certificate.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		v[m.Name+" identity"] = der[len(der)-32:] // the seed (RFC 8410)
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			base := filepath.Base(name)
			data, err := os.ReadFile(name)
			if err != nil {
				continue // a secret that has just ended
			}
			if strings.HasPrefix(base, "group-") || strings.Contains(base, "seal") {
				v[m.Name+" "+base] = plain(data)
			}
		}
	}
}

// plain is the secret that a file keeps: digits, or the end of a key in PEM.
func plain(data []byte) []byte {
	data = bytes.TrimSpace(data)
	if secret, err := hex.DecodeString(string(data)); err == nil {
		return secret
	}
	if block, _ := pem.Decode(data); block != nil {
		return block.Bytes[len(block.Bytes)-32:]
	}
	return data
}

// find names the secrets that are in a text.
func (v vault) find(text []byte) (found []string) {
	for name, secret := range v { // the order only shows in a failure
		for _, form := range needles(secret) {
			if bytes.Contains(text, []byte(form)) {
				found = append(found, name)
				break
			}
		}
	}
	return found
}

// A notebook is a log that all may write to.
type notebook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (n *notebook) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

func (n *notebook) copy() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Clone(n.text.Bytes())
}

// startLogged starts an agent that logs all that it can into the notebook.
func (m *machine) startLogged(t *testing.T, log *notebook) {
	t.Helper()
	var err error
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug - 4}))
	if m.agent, err = New(Options{Config: m.settings(), Version: "test", Logger: logger}); err != nil {
		t.Fatal(err)
	}
	if err := m.agent.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.stop(t) })
}

// TestSecretsAreFoundNowhere forms a cluster, gives it wrong and right tokens in
// right and wrong places, has it replace its secret and its authority, breaks
// its files, and looks for every secret in all that was said.
func TestSecretsAreFoundNowhere(t *testing.T) {
	t.Parallel()
	m, log, secrets := machines(t, 3), new(notebook), vault{}
	if _, err := Init(m[0].Place, InitOptions{Name: "test", Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	m[0].startLogged(t, log)
	secrets.gather(t, m[0])
	token := m[0].token(t, client.TokenRequest{})
	secrets.addToken(t, "token", token)
	misuse(t, m, token, log)
	if _, err := m[1].join(t.Context(), m[0], token); err != nil {
		t.Fatal(err)
	}
	m[1].startLogged(t, log)
	m[0].waitConnected(t, 1)
	if _, err := m[2].join(t.Context(), m[0], token); err != nil { // used
		fmt.Fprintln(log, err)
	} else {
		t.Error("a used token was accepted")
	}
	if _, err := m[0].agent.RotateCA(t.Context()); err != nil {
		t.Fatal(err)
	}
	secrets.gather(t, m[:2]...)
	if _, err := m[0].dial(t).RemoveNode(t.Context(), m[1].Name, false); err != nil { // draws a new secret
		t.Fatal(err)
	}
	secrets.gather(t, m[0])
	m[0].stop(t)
	examine(t, m[0], log)
	for _, at := range m[:2] {
		audit, err := os.ReadFile(filepath.Join(at.State, "audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = log.Write(audit)
	}
	said := log.copy()
	if found := secrets.find(said); len(found) > 0 {
		t.Errorf("found: %v", found)
	}
	if len(secrets) < 6 || !bytes.Contains(said, []byte("level=DEBUG")) && !bytes.Contains(said, []byte("level=INFO")) || !bytes.Contains(said, []byte("CreateToken")) {
		t.Errorf("%d secrets, %d bytes said: too little to find anything", len(secrets), len(said))
	}
	for name, secret := range secrets { // what is there is found, in any form
		for _, form := range []string{string(secret), hex.EncodeToString(secret), fmt.Sprint(secret), base64.StdEncoding.EncodeToString(secret)} { //nolint:staticcheck // as a log might print it
			if len((vault{name: secret}).find([]byte("x="+form))) == 0 {
				t.Errorf("%s is not found where it is", name)
			}
		}
	}
}

func (v vault) addToken(t *testing.T, name, text string) {
	t.Helper()
	token, err := security.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	v[name] = token.Secret[:]
	v[name+" as text"] = []byte(text[len(text)-30:])
}

// misuse gives a token, and some that are nearly it, where they do not belong.
func misuse(t *testing.T, m []*machine, token string, log *notebook) {
	t.Helper()
	broken := []string{token + "x", "x" + token, token[:len(token)-3], token[:len(token)-1] + "!"}
	for _, text := range broken {
		if _, err := m[2].join(t.Context(), m[0], text); err == nil {
			t.Error("a broken token was accepted")
		} else {
			fmt.Fprintln(log, err)
		}
	}
	c := m[0].dial(t)
	_, create := c.CreateToken(t.Context(), client.TokenRequest{Name: token})
	_, revoke := c.RevokeToken(t.Context(), token)
	_, remove := c.RemoveNode(t.Context(), token, false)
	_, show := c.Node(t.Context(), token)
	for _, err := range []error{create, revoke, remove, show} {
		if err == nil {
			t.Error("a token was taken for something else")
		}
	}
}

// examine has the doctor look at a state directory that is whole, and then at
// one with a file after the other broken.
func examine(t *testing.T, m *machine, log *notebook) {
	t.Helper()
	look := func() {
		for _, f := range Diagnose(m.settings(), time.Now(), Checks, Ask{Status: noAgent}) {
			fmt.Fprintln(log, f.Level, f.Check, f.Text)
		}
	}
	look()
	files, err := filepath.Glob(filepath.Join(m.State, "keys", "*"))
	if err != nil || len(files) < 4 {
		t.Fatalf("files: %v, %v", files, err)
	}
	for _, name := range append(files, filepath.Join(m.State, memberFile)) {
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, broken := range [][]byte{data[:len(data)-1], append(bytes.Clone(data), 'x'), data[1:], bytes.Replace(data, []byte("PRIVATE"), []byte("PUBLIC"), 1)} {
			if err := os.WriteFile(name, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			look()
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
