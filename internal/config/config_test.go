package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// load writes text into a file of its own and loads it; the file's directory
// does not show in faults.
func load(t *testing.T, text string, environ []string, flags ...string) (Settings, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "belfry.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(file, environ, flags...)
	if err != nil {
		err = fault{strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", ""), err}
	}
	return s, err
}

// TestFilesScripts plays testdata/files.txt: a title, a settings file, four
// dashes, what comes out of it.
func TestFilesScripts(t *testing.T) {
	t.Parallel()
	name := filepath.Join("testdata", "files.txt")
	script, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimSpace(string(script)), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		input, _, found := strings.Cut(block+"\n", "\n----\n")
		if !found {
			t.Fatalf("block without ----:\n%s", block)
		}
		out.WriteString(input + "\n----\n")
		for strings.HasPrefix(input, "#") { // the heading of the script
			_, input, _ = strings.Cut(input, "\n")
		}
		_, text, _ := strings.Cut(input, ":\n") // the title
		s, err := loadWithoutSecrets(t, text)
		if err != nil {
			out.WriteString(err.Error() + "\n")
			continue
		}
		for _, c := range Diff(Default(), s) {
			out.WriteString(c.Key + ": " + c.Old + " -> " + c.New + "\n")
		}
	}
	if *update {
		if err := os.WriteFile(name, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(script), out.String()); diff != "" && !*update {
		t.Errorf("files.txt (-want +got), -update rewrites it:\n%s", diff)
	}
}

// loadWithoutSecrets leaves out the look at the key file, which the script's
// files do not have.
func loadWithoutSecrets(t *testing.T, text string) (Settings, error) {
	t.Helper()
	s := Default()
	if faults := s.parse("belfry.yaml", []byte(text)); len(faults) > 0 {
		return s, errors.Join(faults...)
	}
	return s, s.Validate()
}

func TestFlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	t.Parallel()
	text := "state: /file\nsocket: {path: /file.sock, group: file}\n"
	env := []string{"HOME=/root", "BELFRY_STATE=/env", "BELFRY_SOCKET_PATH=/env.sock", "BELFRY_SOCKET=/not-a-setting", "BELFRY_NODE=x"}
	got, err := load(t, text, env, "state=/flag")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.State, want.Socket = "/flag", Socket{Path: "/env.sock", Group: "file"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestEveryKeyHasAVariable(t *testing.T) {
	t.Parallel()
	var env []string
	for _, k := range keys {
		value := "v-" + k.name
		if k.number != nil {
			value = "4711"
		}
		if k.flag != nil {
			before := Default()
			value = strconv.FormatBool(!*k.flag(&before))
		}
		env = append(env, k.variable()+"="+value)
	}
	s := Default()
	if faults := s.setEnvironment(env); len(faults) > 0 {
		t.Fatal(faults)
	}
	if got, want := len(Diff(Default(), s)), len(keys); got != want {
		t.Errorf("%d keys changed by their variables, want all %d", got, want)
	}
}

func TestMisspeltVariablesAndFlagsAreRefused(t *testing.T) {
	t.Parallel()
	_, err := load(t, "", []string{"BELFRY_PORTS_HARTBEAT=7", "BELFRY_PORTS_STREAMS=x", "BELFRY_LOG_=1"}, "stat=/x", "ports.heartbeat=")
	want := `BELFRY_LOG_: unknown setting
BELFRY_PORTS_HARTBEAT: unknown setting; did you mean BELFRY_PORTS_HEARTBEAT?
BELFRY_PORTS_STREAMS: "x" is not a number; write digits only
unknown setting stat; did you mean state?
ports.heartbeat: "" is not a number; write digits only`
	if diff := cmp.Diff(want, text(err)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if !errors.Is(err, belfry.ErrUsage) {
		t.Error("faults do not wrap ErrUsage")
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestMissingFileIsNotFound(t *testing.T) {
	t.Parallel()
	_, err := Load("/nowhere/belfry.yaml", nil)
	if want := "settings: /nowhere/belfry.yaml: no such file or directory; name a file that exists"; text(err) != want || !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("got %q, want %q, which wraps ErrNotFound", err, want)
	}
}

func TestTooLargeFileIsRefusedBeforeItIsParsed(t *testing.T) {
	t.Parallel()
	_, err := load(t, strings.Repeat("# filler\n", maxFileBytes/9+1), nil)
	if want := "settings: belfry.yaml: 1048581 bytes; at most 1048576"; text(err) != want {
		t.Errorf("got %q, want %q", text(err), want)
	}
}

func TestPrivateKeyThatOthersMayReadIsRefused(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "web.key")
	settings := "web: {tls: {cert: /etc/web.crt, key: " + key + "}}"
	if _, err := load(t, settings, nil); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("without the file: %v, want ErrNotFound", err)
	}
	if err := os.WriteFile(key, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := load(t, settings, nil)
	if want := "mode 0640 lets others read the private key; make it 0600"; !strings.HasSuffix(text(err), want) {
		t.Errorf("got %q, want it to end with %q", text(err), want)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, settings, nil); err != nil {
		t.Errorf("with mode 0600: %v", err)
	}
}

// What proves this machine to etcd is readable by its owner only, and comes in pairs.
func TestWhatEtcdIsReachedWithIsChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open, closed := file("open", 0o644), file("closed", 0o600)
	for settings, want := range map[string]string{
		"cert: /c, key: " + closed:                "",
		"user: belfry, password_file: " + closed:  "",
		"endpoints: [\"10.0.0.5:2379\"], ca: /ca": "",
		"cert: /c":                             "repository.etcd: cert and key belong together; set both or neither",
		"user: belfry":                         "repository.etcd: user and password_file belong together; set both or neither",
		"endpoints: [\"\"]":                    "repository.etcd: is empty; write HOST:PORT",
		"cert: /c, key: " + open:               "repository.etcd.key: " + open + ": mode 0644 lets others read the private key; make it 0600",
		"user: belfry, password_file: " + open: "repository.etcd.password_file: " + open + ": mode 0644 lets others read the password; make it 0600",
	} {
		_, err := load(t, "repository: {etcd: {"+settings+"}}", nil)
		if got := text(err); got != want {
			t.Errorf("%s: got %q, want %q", settings, got, want)
		}
	}
}

func TestDefaultIsValid(t *testing.T) {
	t.Parallel()
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

// shipped is the settings file that packages install.
var shipped = filepath.Join("..", "..", "packaging", "belfry.yaml")

func TestShippedFileIsTheDefault(t *testing.T) {
	t.Parallel()
	got, err := Load(shipped, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Errorf("%s (-default +got):\n%s", shipped, diff)
	}
}

// TestShippedFileHasEveryKey, so that it can be found by reading.
func TestShippedFileHasEveryKey(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		parts := strings.Split(k.name, ".")
		last := len(parts) - 1
		if !strings.Contains(string(text), "\n"+strings.Repeat("  ", last)+parts[last]+":") {
			t.Errorf("%s does not have %s", shipped, k.name)
		}
	}
}

func TestSocketPathHasTheKernelsLimit(t *testing.T) {
	t.Parallel()
	s := Default()
	s.Socket.Path = "/" + strings.Repeat("x", 106)
	if err := s.Validate(); err != nil {
		t.Errorf("107 bytes: %v", err)
	}
	s.Socket.Path += "x"
	if want := "socket.path: 108 bytes; a unix socket's path has at most 107"; text(s.Validate()) != want {
		t.Errorf("108 bytes: %v, want %s", s.Validate(), want)
	}
}

func TestLoopbackNeedsNoTLS(t *testing.T) {
	t.Parallel()
	for listen, ok := range map[string]bool{
		"127.0.0.1:1": true, "127.3.2.1:1": true, "[::1]:1": true, "localhost:1": true, "": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false, "example.org:1": false,
	} {
		s := Default()
		s.Web.Listen = listen
		if err := s.Validate(); (err == nil) != ok {
			t.Errorf("%q: %v, want accepted: %v", listen, err, ok)
		}
		s.Web.TLS = TLS{Cert: "/c", Key: "/k"}
		if err := s.Validate(); err != nil {
			t.Errorf("%q with TLS: %v", listen, err)
		}
	}
}

func TestDiffTellsWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	changed := Default()
	changed.Log.Level, changed.Ports.Streams = "debug", 1
	want := []Change{
		{Key: "log.level", Old: "info", New: "debug", Reloadable: true},
		{Key: "ports.streams", Old: "7432", New: "1"},
	}
	got := Diff(Default(), changed)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if got[0].String() != "reloaded" || got[1].String() != "needs restart" {
		t.Errorf("words: %v, want reloaded and needs restart", got)
	}
	if d := Diff(changed, changed); d != nil {
		t.Errorf("nothing changed, but %v", d)
	}
}

func TestNearestFindsTypingErrorsOnly(t *testing.T) {
	t.Parallel()
	known := []string{"file.modify", "file.attribute", "dir.modify", "node.state", "a"}
	for name, want := range map[string]string{
		"file.modfy": "file.modify", "file.modifiy": "file.modify", "flie.modify": "file.modify", "node.stat": "node.state",
		"b": "a", "": "a", "pressure.cpu": "", "xx": "", "nodestate": "node.state",
	} {
		if got, _ := Nearest(name, known); got != want {
			t.Errorf("nearest to %q: %q, want %q", name, got, want)
		}
	}
}

// FuzzSettings: no text makes the parser panic, and what it accepts as valid
// is written back as flags to the same settings.
func FuzzSettings(f *testing.F) {
	f.Add([]byte("node: {name: a}\nports: {heartbeat: 1}\n"))
	f.Add([]byte("state: &s /a\nsocket: {path: *s, <<: *s}\n"))
	f.Add([]byte("? [a]\n: !!str 1\n--- |\n x\n...\n"))
	f.Add([]byte("web:\n  listen: >-\n    127.0.0.1:1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := Default()
		if faults := s.parse("f", text); len(faults) > 0 || s.Validate() != nil {
			return
		}
		var flags []string
		for _, c := range Diff(Default(), s) {
			flags = append(flags, c.Key+"="+c.New)
		}
		again := Default()
		if faults := again.setFlags(flags); len(faults) > 0 {
			t.Fatalf("accepted by the file, refused as flags: %v", faults)
		}
		if diff := cmp.Diff(s, again); diff != "" {
			t.Errorf("settings written back (-want +got):\n%s", diff)
		}
	})
}

// Who may write the file would have commands run with the agent's rights.
func TestHandlersComeFromAFileThatOthersCanNotWrite(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "belfry.yaml")
	text := "handlers: {page: {on: node.state, exec: [/p]}}\n"
	for mode, want := range map[os.FileMode]string{
		0o600: "", 0o644: "", 0o664: "mode 0664 lets others say what the agent runs; make it 0644 or less",
		0o646: "mode 0646 lets others say what the agent runs; make it 0644 or less",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file, nil)
		switch {
		case want == "" && err != nil:
			t.Errorf("%04o: %v", mode, err)
		case want != "" && (err == nil || !strings.HasSuffix(err.Error(), want) || !errors.Is(err, belfry.ErrUsage)):
			t.Errorf("%04o: %v, want %s", mode, err, want)
		}
	}
	if os.Geteuid() != 0 {
		return // only root can give a file away
	}
	if err := errors.Join(os.Chmod(file, 0o644), os.Chown(file, 12345, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), "owner uid 12345") {
		t.Errorf("a stranger's file: %v", err)
	}
}
