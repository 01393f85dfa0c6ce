package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func loadResources(t *testing.T, text string) (Settings, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "belfry.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(file, nil)
}

func TestResourcesOfAFile(t *testing.T) {
	t.Parallel()
	got, err := loadResources(t, `
resources:
  share/FS1/data: {}
  service/db:
    holders: [b, c]
    watch: [unit:db.service, "tcp:127.0.0.1:5432"]
    address: "10.0.0.50:5432"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Resource{
		{Name: "service/db", Holders: []string{"b", "c"}, Watch: []string{"unit:db.service", "tcp:127.0.0.1:5432"}, Address: "10.0.0.50:5432"},
		{Name: "share/FS1/data"},
	}
	if diff := cmp.Diff(want, got.Resources); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	changes := Diff(Default(), got)
	if len(changes) != 2 || !changes[0].Reloadable || changes[0].Key != "resources.service/db" {
		t.Errorf("changes %+v; want two that need no restart", changes)
	}
}

func TestEverythingWrongOfAResourceIsSaid(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`resources: {disk/x: {}}`:                             `unknown kind "disk"`,
		`resources: {node/a: {}}`:                             `a node is declared by nobody`,
		`resources: {service/db@a: {}}`:                       `without the @`,
		`resources: {"service/my db": {}}`:                    `its name is written service/my%20db`,
		`resources: {service/db: {holder: [a]}}`:              `unknown key resources.service/db.holder; did you mean holders?`,
		`resources: {service/db: {holders: [A]}}`:             `"A" is no name of a node`,
		`resources: {service/db: {watch: [db.service]}}`:      `write unit:NAME, process:exe=PATH, file:PATH, tcp:HOST:PORT or http://HOST:PORT/PATH`,
		`resources: {service/db: {address: db.example:5432}}`: `is none; write for example 10.0.0.50`,
		`witness: {enabled: "no"}`:                            `witness.enabled is text; it is true or false`,
		`witness: {keep_alive: 90s}`:                          `witness.keep_alive: "90s" is no time for it; write 1s to 1m`,
		`witness: {unused_timeout: 0s}`:                       `write 1s to 1h`,
		`witness: {max_per_source: 0}`:                        `witness.max_per_source is 0`,
		`resources: {service/db: {watch: "http:x"}}`:          `or http://HOST:PORT/PATH`,
		`resources: {service/db: {probe: "db:5432"}}`:         `probe "db:5432"; write IP:PORT or http://IP:PORT/PATH`,
		`witness: {max_registrations: 0}`:                     `witness.max_registrations is 0; 1 to 1000000 are possible`,
		`resources: {service/db: {watch: 5}}`:                 `it is text, or a list of texts`,
	} {
		_, err := loadResources(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}
