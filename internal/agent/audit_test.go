package agent

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/security"
)

// A logText is a log that can be read while it is written.
type logText struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is what was written until now.
func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// TestWhatIsDoneIsInTheAuditLogAndSecretsAreNowhere starts an agent twice: the
// chain goes on.
func TestWhatIsDoneIsInTheAuditLogAndSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	n := localNodes(t, 1)[0]
	text := &logText{}
	var token string
	for _, value := range []string{"10s", "11s"} {
		a, err := New(Options{Config: settingsOf(n), Version: "test", WebToken: "planted-web-token", Logger: slog.New(slog.NewTextHandler(text, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := dialAgent(t, n)
		if _, err := c.SetConfig(t.Context(), "tunables.stall_max", value, false); err != nil {
			t.Error(err)
		}
		made, err := c.CreateToken(t.Context(), client.TokenRequest{})
		if err != nil {
			t.Fatal(err)
		}
		token = made.GetToken()
		for _, misuse := range []string{token, "tunables." + token} { // a token where a name belongs
			if _, err := c.SetConfig(t.Context(), misuse, "1", false); err == nil {
				t.Errorf("%s was set", misuse)
			}
		}
		stopAgent(t, a)
	}
	keys, err := security.Load(filepath.Join(n.State, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := security.CheckAudit(n.State, keys.Public()); err != nil || sum.Last != sum.Signed || sum.First != 1 {
		t.Errorf("%+v, %v; want a whole chain that ends signed", sum, err)
	}
	audit, err := os.ReadFile(filepath.Join(n.State, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	fields := regexp.MustCompile(`"role":"(.*)","right":"(.*)","operation":"(.*)","target":"(.*)","generation":(\d+),"result":"(.*?)"`)
	for line := range strings.Lines(string(audit)) {
		m := fields.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a record: %s", line)
		}
		if m[3] == "CreateToken" {
			m[4] = "ID"
		}
		got = append(got, strings.Join(m[1:], " "))
	}
	want := []string{
		"admin configure SetConfig tunables.stall_max 2 done", "admin admit CreateToken ID 3 done", "  audit.checkpoint  0 ",
		"admin configure SetConfig tunables.stall_max 4 done", "admin admit CreateToken ID 5 done", "  audit.checkpoint  0 ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for where, data := range map[string]string{"audit log": string(audit), "log": text.String()} {
		wantNoSecrets(t, where, data, token, keys)
	}
}

// wantNoSecrets looks for what this test knows to be secret, in each form in
// which it could have been written.
func wantNoSecrets(t *testing.T, where, data, token string, keys *security.Keys) {
	t.Helper()
	secret := keys.Secrets[keys.Epoch]
	planted := map[string]string{
		"token": token, "web token": "planted-web-token", "group secret, raw": string(secret[:]),
		"group secret, hex": hex.EncodeToString(secret[:]), "group secret, base64": base64.StdEncoding.EncodeToString(secret[:]),
	}
	for what, s := range planted {
		if s == "" {
			t.Errorf("%s: empty, so that it would be found nowhere", what)
		} else if strings.Contains(data, s) {
			t.Errorf("the %s holds a secret: %s", where, what)
		}
	}
}
