package security

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

// createOne makes a cluster of one node and returns its folder of keys.
func createOne(t *testing.T) (string, Created) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state", "keys")
	made, err := CreateCluster(CreateOptions{Nodes: []NewNode{{Dir: dir}}, Now: issued, CAKeyFile: filepath.Join(dir, "ca.key")})
	if err != nil {
		t.Fatal(err)
	}
	return dir, made
}

func TestCreateClusterWritesWhatLoadReads(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	for i, k := range tn.keys {
		if k.Cluster != tn.Cluster || k.Node != tn.Nodes[i].Node || !k.Public().Equal(tn.Nodes[i].Public) {
			t.Errorf("node %d: loaded %v of cluster %v, want %v of %v", i, k.Node, k.Cluster, tn.Nodes[i].Node, tn.Cluster)
		}
		if k.Epoch != 1 || len(k.Secrets) != 1 || k.Secrets[1] != tn.keys[0].Secrets[1] || k.Secrets[1] == (Secret{}) {
			t.Errorf("node %d: newest secret is of epoch %d of %d; want one of epoch 1, the same for all nodes", i, k.Epoch, len(k.Secrets))
		}
		for j := range i {
			if k.Public().Equal(tn.keys[j].Public()) || k.Node == tn.keys[j].Node {
				t.Errorf("nodes %d and %d have one identity", i, j)
			}
		}
	}
}

func TestFilesOfKeysAreTheirOwnersOnly(t *testing.T) {
	t.Parallel()
	dir, _ := createOne(t)
	var got []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		got = append(got, fmt.Sprintf("%s %s", info.Mode(), d.Name()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"drwx------ keys", "-rw------- ca.crt", "-rw------- ca.key", "-rw------- group-1",
		"-rw------- node.crt", "-rw------- node.key", "-rw------- seal.key",
	}
	if !slices.Equal(got, want) {
		t.Errorf("files:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Each row spoils one thing in a good folder of keys.
func TestLoadRefusesWhatIsWrongAndSaysWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	file := func(name string, data string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { replace(t, filepath.Join(dir, name), []byte(data)) }
	}
	mode := func(name string, mode fs.FileMode) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	stranger := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			other, _ := createOne(t)
			data, err := os.ReadFile(filepath.Join(other, name))
			if err != nil {
				t.Fatal(err)
			}
			replace(t, filepath.Join(dir, name), data)
		}
	}
	for _, test := range []struct {
		name  string
		spoil func(*testing.T, string)
		is    error
		want  string // KEYS stands for the folder
	}{
		{"key that the group can read", mode("node.key", 0o640), belfry.ErrPermission, "KEYS/node.key has mode 0640, others could use it; run: chmod 600 KEYS/node.key"},
		{"secret that all can read", mode("group-1", 0o604), belfry.ErrPermission, "KEYS/group-1 has mode 0604"},
		{"authority that the group can write", mode("ca.crt", 0o620), belfry.ErrPermission, "KEYS/ca.crt has mode 0620"},
		{"folder that all can write", mode(".", 0o777), belfry.ErrPermission, "run: chmod go-w KEYS"},
		{"no key", remove("node.key"), fs.ErrNotExist, "node.key"},
		{"no certificate", remove("node.crt"), fs.ErrNotExist, "node.crt"},
		{"no authority", remove("ca.crt"), fs.ErrNotExist, "ca.crt"},
		{"no secret", remove("group-1"), belfry.ErrNotFound, "no group secret in KEYS"},
		{"symbolic link", func(t *testing.T, dir string) {
			key := filepath.Join(dir, "node.key")
			if err := errors.Join(os.Rename(key, key+".old"), os.Symlink(key+".old", key)); err != nil {
				t.Fatal(err)
			}
		}, belfry.ErrPermission, "symbolic link"},
		{"folder in place of a file", func(t *testing.T, dir string) {
			key := filepath.Join(dir, "node.key")
			if err := errors.Join(os.Remove(key), os.Mkdir(key, 0o700)); err != nil {
				t.Fatal(err)
			}
		}, belfry.ErrPermission, "not a regular file"},
		{"empty key", file("node.key", ""), belfry.ErrUsage, "KEYS/node.key holds no key"},
		{"certificate for a key", func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(dir, "node.crt"))
			if err != nil {
				t.Fatal(err)
			}
			replace(t, filepath.Join(dir, "node.key"), data)
		}, belfry.ErrUsage, "KEYS/node.key holds no key"},
		{"empty certificate", file("node.crt", ""), belfry.ErrUsage, "KEYS/node.crt is empty"},
		{"short secret", file("group-1", strings.Repeat("a", 63)), belfry.ErrUsage, "64 hexadecimal digits"},
		{"long secret", file("group-1", strings.Repeat("a", 65)), belfry.ErrUsage, "64 hexadecimal digits"},
		{"secret of other letters", file("group-1", strings.Repeat("x", 64)), belfry.ErrUsage, "64 hexadecimal digits"},
		{"secret of no epoch", file("group-01", strings.Repeat("a", 64)), belfry.ErrUsage, "group-EPOCH"},
		{"huge file", file("ca.crt", strings.Repeat("\n", maxKeyFile+1)), belfry.ErrLimit, "no file of keys"},
		{"another node's key", stranger("node.key"), belfry.ErrUsage, "node.crt is not for the key in node.key"},
		{"another cluster's authority", stranger("ca.crt"), belfry.ErrUsage, "both of one cluster"},
		{"a client's certificate", func(t *testing.T, dir string) { clientCertificate(t, dir) }, belfry.ErrUsage, "a node's is needed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, _ := createOne(t)
			test.spoil(t, dir)
			k, err := Load(dir)
			want := strings.ReplaceAll(test.want, "KEYS", dir)
			if err == nil || !errors.Is(err, test.is) || !strings.Contains(err.Error(), want) {
				t.Errorf("Load: %v\nwant %q, wrapping %q", err, want, test.is)
			}
			if k != nil {
				t.Error("Load returned keys along with the error")
			}
		})
	}
}

func replace(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func clientCertificate(t *testing.T, dir string) {
	t.Helper()
	ca, err := LoadCA(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.IssueClient(issued, "web", keys.Public())
	if err != nil {
		t.Fatal(err)
	}
	replace(t, filepath.Join(dir, "node.crt"), encodeCertificate(der))
}

func TestLoadRefusesAForeignOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs: root")
	}
	dir, _ := createOne(t)
	key := filepath.Join(dir, "node.key")
	if err := os.Chown(key, 4711, -1); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir)
	want := key + " belongs to uid 4711 and the agent runs as uid 0; run: chown 0 " + key
	if !errors.Is(err, belfry.ErrPermission) || !strings.Contains(err.Error(), want) {
		t.Errorf("Load: %v\nwant %q", err, want)
	}
}

func TestKeysAreNeverOverwritten(t *testing.T) {
	t.Parallel()
	dir, _ := createOne(t)
	before := contents(t, dir)
	_, err := CreateCluster(CreateOptions{Nodes: []NewNode{{Dir: dir}}, Now: issued})
	if !errors.Is(err, belfry.ErrExist) || !strings.Contains(err.Error(), filepath.Join(dir, "node.key")) {
		t.Errorf("CreateCluster over keys: %v; want ErrExist that names the file", err)
	}
	if err := WriteSecret(dir, 1, NewSecret()); !errors.Is(err, belfry.ErrExist) {
		t.Errorf("WriteSecret over a secret: %v; want ErrExist", err)
	}
	if after := contents(t, dir); after != before {
		t.Errorf("the folder changed:\n%s\nwas\n%s", after, before)
	}
}

// contents is the folder as text: leftovers of a failed write would show.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %q\n", e.Name(), data)
	}
	return b.String()
}

func TestWriteFileReplacesWholeFilesOnly(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "node.crt")
	for _, text := range []string{"first", "second"} {
		if err := writeFile(name, []byte(text), true); err != nil {
			t.Fatal(err)
		}
		if got, err := readFile(name); err != nil || string(got) != text {
			t.Errorf("read %q, %v; want %q", got, err, text)
		}
	}
	if err := writeFile(filepath.Join(filepath.Dir(name), "no", "such"), nil, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("write into a missing folder: %v; want ErrNotExist", err)
	}
	if got := contents(t, filepath.Dir(name)); got != "node.crt \"second\"\n" {
		t.Errorf("folder after: %s", got)
	}
}

func TestNewestSecretIsThePresentOne(t *testing.T) {
	t.Parallel()
	dir, _ := createOne(t)
	second, tenth := NewSecret(), NewSecret()
	if err := errors.Join(WriteSecret(dir, 10, tenth), WriteSecret(dir, 2, second)); err != nil {
		t.Fatal(err)
	}
	k, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if k.Epoch != 10 || k.Secrets[10] != tenth || k.Secrets[2] != second || len(k.Secrets) != 3 {
		t.Errorf("epoch %d of %d secrets; want 10 of 3", k.Epoch, len(k.Secrets))
	}
	if err := errors.Join(RemoveSecret(dir, 2), RemoveSecret(dir, 2)); err != nil {
		t.Fatal(err)
	}
	if k, err = Load(dir); err != nil || len(k.Secrets) != 2 {
		t.Errorf("after removing epoch 2: %v", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	k := Keys{Secrets: map[uint32]Secret{1: {0xab, 0xab, 0xab}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d"} {
		if text := strings.ToLower(fmt.Sprintf(verb, k.Secrets)); strings.Contains(text, "abab") || strings.Contains(text, "171") || strings.Contains(text, "0xab") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func TestLoadCAFindsItsCertificate(t *testing.T) {
	t.Parallel()
	dir, made := createOne(t)
	ca, err := LoadCA(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil || ca.Cluster != made.Cluster || !bytes.Equal(ca.Certificate.Raw, made.CA.Certificate.Raw) {
		t.Fatalf("LoadCA: %v", err)
	}
	if _, err := LoadCA(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "node.key")); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("LoadCA with the node's key: %v; want ErrUsage", err)
	}
}

func TestExpiredCertificateStillLoads(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := CreateCluster(CreateOptions{Nodes: []NewNode{{Dir: dir}}, Now: issued.AddDate(-20, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err != nil {
		t.Errorf("Load: %v; heartbeats hang on the configuration, not on dates", err)
	}
}

func TestCertificatesNeedAName(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	if _, err := tn.CA.IssueNode(issued, belfry.NodeID{}, tn.Nodes[0].Public); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("zero node: %v; want ErrUsage", err)
	}
	for _, name := range []string{"", ".", "-a", "A", "a b", "a/b", "é", strings.Repeat("a", 64)} {
		if _, err := tn.CA.IssueClient(issued, name, tn.Nodes[0].Public); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("client %q: %v; want ErrUsage", name, err)
		}
	}
	for _, name := range []string{"a", "web", "0-x_y.z", strings.Repeat("a", 63)} {
		der, err := tn.CA.IssueClient(issued, name, tn.Nodes[0].Public)
		if err != nil {
			t.Fatal(err)
		}
		cert := mustParse(t, &tls.Certificate{Certificate: [][]byte{der}})
		if id, err := certificateIdentity(cert); err != nil || id.Client != name {
			t.Errorf("certificate of client %q is for %v, %v", name, id, err)
		}
		if got := cert.NotAfter.Sub(issued); got != CertificateLife {
			t.Errorf("certificate lives %v, want %v", got, CertificateLife)
		}
	}
}
