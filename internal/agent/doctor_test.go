package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/security"
)

// TestDoctorFindsWhatWasBroken breaks one thing after the other in the state of
// an agent that runs.
func TestDoctorFindsWhatWasBroken(t *testing.T) {
	t.Parallel()
	hours := func(n int) time.Time { return time.Now().Add(time.Duration(n) * time.Hour) }
	for _, tt := range []struct {
		name  string
		spoil func(dir string) error
		now   time.Time
		check string
		level Level
		text  string // in the finding; STATE is the directory
	}{
		{name: "nothing", now: hours(0)},
		{"open directory", func(dir string) error { return os.Chmod(dir, 0o750) }, hours(0), "state", LevelFailure, "has mode 0750, others can look into it; run: chmod 700 STATE"},
		{"open key", func(dir string) error { return os.Chmod(filepath.Join(dir, "keys", "node.key"), 0o644) }, hours(0), "keys", LevelFailure, "node.key has mode 0644, others could use it; run: chmod 600"},
		{"no sealing key", func(dir string) error { return os.Remove(filepath.Join(dir, "keys", "seal.key")) }, hours(0), "keys", LevelWarning, "STATE/keys has no sealing key: this node can not sign"},
		{"another sealing key", otherSealingKey, hours(0), "keys", LevelWarning, "the sealing key in STATE/keys is not the one that the members know"},
		{"certificate near its end", nil, hours(21 * 24), "certificate", LevelWarning, "has not been renewed; see that a member that holds"},
		{"certificate at its end", nil, hours(31 * 24), "certificate", LevelFailure, "streams are refused; if that clock is ahead"},
		{"old secret", func(dir string) error {
			return os.Chtimes(filepath.Join(dir, "keys", "group-1"), hours(-50), hours(-50))
		}, hours(0), "secret", LevelWarning, "old; a running leader draws a new one each day"},
		{"half a request", halfARequest, hours(0), "requests", LevelFailure, "STATE/keys/requests/0123456789abcdef.request is no request for a signature: the authority's certificate is missing"},
		{"changed audit log", changeAudit, hours(0), "audit", LevelFailure, "line 2, after record 1: the chain is broken"},
		{"no audit log", func(dir string) error { return os.Remove(filepath.Join(dir, "audit.log")) }, hours(0), "audit", LevelWarning, "an agent writes it from its first start on"},
		{"no socket", func(dir string) error { return os.Remove(filepath.Join(dir, "s")) }, hours(0), "socket", LevelWarning, "no agent runs; start it"},
		{"open socket", func(dir string) error { return os.Chmod(filepath.Join(dir, "s"), 0o666) }, hours(0), "socket", LevelFailure, "every user reaches it; run: chmod 660"},
	} {
		n := localNodes(t, 1)[0]
		a := startAgent(t, n)
		a.auditor.Audit(security.Record{Operation: "planted", Result: security.ResultDone})
		awaitLine(t, filepath.Join(n.State, "audit.log"), "planted")
		if tt.spoil != nil {
			if err := tt.spoil(n.State); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range Diagnose(settingsOf(n), tt.now, Checks[:8], Ask{Status: noAgent}) {
			spoilt := f.Check == tt.check || tt.name == "open key" && f.Check != "state" && f.Check != "socket" && f.Check != "requests" // all others need the keys
			want := LevelOK
			if spoilt {
				want = tt.level
			} else if f.Check == "certificate" || f.Check == "secret" && tt.check == "certificate" {
				continue // time has gone by for it too
			}
			if f.Level != want || spoilt && !strings.Contains(f.Text, strings.ReplaceAll(tt.text, "STATE", n.State)) {
				t.Errorf("%s: %s %s: %s\nwant %s, %s", tt.name, f.Level, f.Check, f.Text, want, tt.text)
			}
		}
		stopAgent(t, a)
	}
}

func otherSealingKey(dir string) error {
	keys := filepath.Join(dir, keysDir)
	key, err := security.NewSealingKey()
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(keys, "seal.key")); err != nil {
		return err
	}
	return security.WriteSealingKey(keys, key)
}

// noAgent is the status of an agent that does not run.
func halfARequest(dir string) error {
	folder := filepath.Join(dir, "keys", "requests")
	return errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(filepath.Join(folder, "0123456789abcdef.request"), []byte("-----BEGIN CERT"), 0o600))
}

func noAgent() (*belfryv1.GetStatusResponse, error) {
	return nil, fmt.Errorf("%w at /run/belfry/s: start one", belfry.ErrNoAgent)
}

// changeAudit changes one word of the log and adds a line that no agent wrote.
func changeAudit(dir string) error {
	name := filepath.Join(dir, "audit.log")
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	data = append(bytes.Replace(data, []byte("planted"), []byte("pleased"), 1), []byte(`{"n":2}`+"\n")...)
	return os.WriteFile(name, data, 0o600)
}

// awaitLine waits until a file has a whole line with that word.
func awaitLine(t *testing.T, name, word string) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // a file tells nobody
		data, err := os.ReadFile(name)
		if err == nil && bytes.Contains(data, []byte(word)) && bytes.HasSuffix(data, []byte("\n")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has no line with %s: %v", name, word, err)
		}
	}
}

func TestDoctorWithoutAnyAgentSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	settings := config.Default()
	settings.State, settings.Socket.Path = filepath.Join(dir, "none"), filepath.Join(dir, "s")
	var got []string
	for _, f := range Diagnose(settings, time.Now(), []string{"socket", "state", "nonsense", "keys", "clock", "members", "limits", "addresses"}, Ask{Status: noAgent}) {
		got = append(got, fmt.Sprintf("%s %s", f.Level, f.Check))
	}
	want := []string{"warning socket", "failure state", "failure keys", "unknown clock", "unknown members", "unknown limits", "unknown addresses"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
