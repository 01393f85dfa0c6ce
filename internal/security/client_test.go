package security

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

func TestCreatedClientIsLetIn(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	dir := filepath.Join(t.TempDir(), "client")
	if err := CreateClient(dir, tn.CA, issued, "web"); err != nil {
		t.Fatal(err)
	}
	if err := CreateClient(dir, tn.CA, issued, "web"); !errors.Is(err, belfry.ErrExist) {
		t.Errorf("a second time: %v; want ErrExist", err)
	}
	opts, err := LoadClient(dir)
	if err != nil {
		t.Fatal(err)
	}
	opts.Now = func() time.Time { return issued }
	atServer, _, serverErr, clientErr := shake(t, NodeServerConfig(tn.options(0)), ClientConfig(opts))
	if want := (Identity{Cluster: tn.Cluster, Client: "web"}); serverErr != nil || clientErr != nil || atServer != want {
		t.Errorf("handshake: %v, %v, %v; want %v", atServer, serverErr, clientErr, want)
	}
	other := newTown(t)
	_, _, _, err = shake(t, NodeServerConfig(other.options(0)), ClientConfig(opts))
	check(t, "client at another cluster", err, "an authority that this identity does not know")
}

func TestLoadClientRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, dir, other string)
		is    error
		want  string
	}{
		{"no key", func(t *testing.T, dir, _ string) { copyFile(t, "", filepath.Join(dir, clientKeyFile)) }, fs.ErrNotExist, clientKeyFile},
		{"another key", func(t *testing.T, dir, other string) {
			copyFile(t, filepath.Join(other, clientKeyFile), filepath.Join(dir, clientKeyFile))
		}, belfry.ErrUsage, "both of one client"},
		{"the authority's certificate", func(t *testing.T, dir, _ string) {
			copyFile(t, filepath.Join(dir, caCertFile), filepath.Join(dir, clientCertFile))
		}, belfry.ErrPermission, "neither a node nor a client"},
		{"readable key", func(t *testing.T, dir, _ string) {
			if err := os.Chmod(filepath.Join(dir, clientKeyFile), 0o644); err != nil {
				t.Fatal(err)
			}
		}, belfry.ErrPermission, "mode 0644"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tn := newTown(t)
			dir, other := filepath.Join(t.TempDir(), "x"), filepath.Join(t.TempDir(), "y")
			if err := errors.Join(CreateClient(dir, tn.CA, issued, "x"), CreateClient(other, tn.CA, issued, "y")); err != nil {
				t.Fatal(err)
			}
			test.spoil(t, dir, other)
			if _, err := LoadClient(dir); !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("LoadClient: %v; want %q, wrapping %q", err, test.want, test.is)
			}
		})
	}
}

// copyFile overwrites to; without from it removes it.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if from == "" {
		if err := os.Remove(to); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, to, data)
}
