package belfry_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// modulePath is the first part of every import path of the project.
const modulePath = "github.com/belfry-ha/belfry"

// A rule says what one folder may hold. Lists are separated by blanks; a name
// in them is a path.Match pattern, so that * stands for one path element.
type rule struct {
	folder string // pattern; "." is the root
	pure   bool   // see impure
	text   bool   // holds no Go files
	module bool   // a Go module of its own: its inside is its own business
	uses   string // folders of the project it may import
	tests  string // folders that its _test.go files may import beyond uses
}

// pureRow is what the upper row builds on. Its members do not know each other:
// where two of them must talk, the agent carries values between them.
const pureRow = "internal/cluster internal/event internal/repository internal/license internal/witness internal/wire"

// upperRow touches the operating system. Its members do not know each other either.
const upperRow = "internal/transport internal/repository/disk internal/repository/etcd internal/producer internal/producer/*" +
	" internal/sink internal/sink/* internal/witness/swn internal/aha internal/api internal/security"

// folders is the map of the project: a folder that is not in it does not exist.
// The first rule that fits counts. A folder of the map comes into being with
// its first file.
var folders = []rule{
	{folder: "."},
	{folder: "client", uses: ". internal/codec gen/belfry/v1", tests: "internal/agent internal/api internal/config"},
	{folder: "proto", text: true}, // the generator's settings
	{folder: "proto/belfry/v1", text: true},
	{folder: "gen/belfry/v1"},
	{
		// What works without an agent takes the packages that know the forms: disks
		// (ADR 0027), licenses, the document and its view in YAML.
		folder: "cmd/belfry", uses: ". internal/agent internal/config internal/sim internal/cloudevents client gen/belfry/v1" +
			" internal/license internal/repository internal/repository/disk internal/strictyaml internal/api/configview",
		tests: upperRow + " " + pureRow,
	},

	{folder: "internal/cluster", pure: true, uses: "."},
	{folder: "internal/numbered", pure: true},
	{folder: "internal/event", pure: true, uses: ". internal/numbered"},
	{folder: "internal/repository", pure: true, uses: ".", tests: "internal/repository/repositorytest"},
	{folder: "internal/license", pure: true, uses: "."},
	{folder: "internal/witness", pure: true, uses: "."},
	{folder: "internal/wire", pure: true, uses: "."},
	{folder: "internal/sim", uses: ". " + pureRow},

	{folder: "internal/repository/repositorytest", uses: ". internal/repository"},
	{folder: "internal/repository/disk", uses: ". internal/repository", tests: "internal/repository/repositorytest"},
	{folder: "internal/repository/etcd", uses: ". internal/repository", tests: "internal/repository/repositorytest"},

	{folder: "internal/producer", uses: ". internal/event"},
	{folder: "internal/producer/producertest", uses: ". internal/event internal/producer"},
	// node (node.state) and user (user.*) watch the cluster and its users, not
	// the operating system; they are producers like the rest: ADR 0001.
	{
		folder: "internal/producer/*", uses: ". internal/event internal/producer internal/netlink gen/belfry/v1",
		tests: "internal/producer/producertest",
	},
	{folder: "internal/sink", uses: ". internal/event"},
	{folder: "internal/sink/*", uses: ". internal/event internal/sink internal/cloudevents internal/numbered gen/belfry/v1"},
	{folder: "internal/cloudevents", uses: ". gen/belfry/v1"},
	{folder: "internal/codec", uses: "gen/belfry/v1"},

	{folder: "internal/transport", uses: ". " + pureRow + " internal/codec internal/numbered gen/belfry/v1", tests: "internal/security internal/transport/transporttest"},
	{folder: "internal/transport/transporttest", uses: ". internal/transport internal/sim " + pureRow},
	{folder: "internal/security", uses: ". " + pureRow},
	{folder: "internal/aha", uses: ". internal/event gen/belfry/v1"},
	{folder: "internal/api", uses: ". " + pureRow + " internal/api/configview internal/api/licenseview internal/cloudevents internal/codec internal/numbered gen/belfry/v1", tests: "client internal/security"},
	{folder: "internal/api/configview", uses: ". internal/repository internal/strictyaml"},
	{folder: "internal/api/licenseview", uses: ". internal/repository internal/license internal/api/configview"},

	{folder: "internal/witness/dcerpc/pdu", pure: true},
	{folder: "internal/witness/dcerpc/ndr", pure: true},
	{folder: "internal/witness/dcerpc/spnego", pure: true},
	{folder: "internal/witness/dcerpc/ntlm", pure: true},
	{folder: "internal/witness/dcerpc/krb5"},
	{folder: "internal/witness/dcerpc/dcerpctest", uses: "internal/witness/dcerpc internal/witness/dcerpc/*"},
	{
		folder: "internal/witness/dcerpc", uses: ". internal/witness/dcerpc/pdu internal/witness/dcerpc/ndr" +
			" internal/witness/dcerpc/spnego internal/witness/dcerpc/ntlm internal/witness/dcerpc/krb5",
		tests: "internal/witness/dcerpc/dcerpctest",
	},
	{
		folder: "internal/witness/swn", uses: ". internal/witness internal/witness/dcerpc internal/witness/dcerpc/*",
		tests: "internal/witness/dcerpc/dcerpctest",
	},

	{folder: "internal/netlink", uses: "."}, // what producers that ask the kernel the same share
	{folder: "internal/config", uses: "."},
	{folder: "internal/strictyaml", uses: ". internal/config"},
	{
		folder: "internal/agent", uses: ". gen/belfry/v1 internal/config internal/api/configview internal/api/licenseview internal/cloudevents web " + upperRow + " " + pureRow,
		tests: "client internal/producer/producertest internal/transport/transporttest",
	},
	{folder: "web"},

	{folder: "web/src", text: true},
	{folder: "web/test", text: true},
	{folder: "packaging", text: true},
	{folder: "packaging/man", text: true},
	{folder: "docs", text: true},
	{folder: "docs/adr", text: true},
	{folder: "docs/schema", text: true},
	{folder: "tools", module: true},
	{folder: "bench", module: true},
}

// A dependency is a module and the folders that may import it. A third-party
// type stays inside them; a new one needs an ADR (CONTRIBUTING.md).
type dependency struct {
	module string
	in     string // folders
	tests  string // folders whose _test.go files may import it as well
}

// testOnly are imported by _test.go files and by folders whose name ends in "test".
const testOnly = "test"

var dependencies = []dependency{
	{
		module: "google.golang.org/grpc", in: "internal/api internal/codec internal/transport internal/repository/etcd client gen/belfry/v1",
		tests: "internal/agent", // the benchmark of the witness has 10,000 clients
	},
	{
		module: "google.golang.org/protobuf", in: "gen/belfry/v1 internal/cloudevents internal/codec internal/api client internal/transport" +
			" internal/producer/* internal/sink/* internal/aha internal/agent",
		tests: "cmd/belfry", // they make the messages that the commands print
	},
	// Status details of gRPC (google.rpc.ErrorInfo) and the gateway's annotations.
	{module: "google.golang.org/genproto/googleapis/api", in: "internal/api client gen/belfry/v1"},
	{module: "google.golang.org/genproto/googleapis/rpc", in: "internal/api client gen/belfry/v1"},
	{module: "github.com/grpc-ecosystem/grpc-gateway/v2", in: "gen/belfry/v1 internal/api"},
	{module: "github.com/spf13/cobra", in: "cmd/belfry"},
	{module: "github.com/goccy/go-yaml", in: "internal/config internal/strictyaml internal/api cmd/belfry"},
	{module: "github.com/expr-lang/expr", in: "internal/agent"},
	{module: "github.com/prometheus/client_golang", in: "internal/agent internal/api"},
	{module: "golang.org/x/sys", in: "internal/producer/* internal/netlink internal/transport internal/repository/disk internal/aha internal/api internal/agent internal/sink/exec cmd/belfry"},
	{module: "golang.org/x/term", in: "internal/producer/* internal/transport internal/repository/disk internal/aha internal/api internal/agent internal/sink/exec cmd/belfry"},
	{module: "github.com/mdlayher/netlink", in: "internal/producer/* internal/netlink"},
	{module: "github.com/jsimonetti/rtnetlink/v2", in: "internal/producer/*"},
	{module: "github.com/prometheus/procfs", in: "internal/producer/*"},
	{module: "github.com/coreos/go-systemd/v22", in: "cmd/belfry internal/agent internal/producer/unit"},
	{module: "github.com/godbus/dbus/v5", in: "internal/producer/unit"},
	{module: "github.com/hanwen/go-fuse/v2", in: "internal/aha"},
	{module: "go.etcd.io/etcd/client/v3", in: "internal/repository/etcd"},
	{module: "go.etcd.io/etcd/api/v3", in: "internal/repository/etcd"}, // the client's errors
	{module: "go.uber.org/zap", in: "internal/repository/etcd"},        // keeps the client from writing to standard error
	{module: "go.etcd.io/bbolt", in: "internal/sink"},
	{module: "github.com/nats-io/nats.go", in: "internal/sink/nats"},
	{module: "github.com/nicholas-fedor/shoutrrr", in: "internal/sink/notify"},
	{module: "github.com/jcmturner/gokrb5/v8", in: "internal/witness/dcerpc/krb5"},
	{module: "golang.org/x/crypto", in: "internal/witness/dcerpc/ntlm"},
	{module: "golang.org/x/sync", in: "internal/agent"},
	{module: "charm.land/bubbletea/v2", in: "cmd/belfry"},
	{module: "charm.land/lipgloss/v2", in: "cmd/belfry"},
	{module: "github.com/rogpeppe/go-internal", in: testOnly},
	{module: "github.com/google/go-cmp", in: testOnly},
	{module: "pgregory.net/rapid", in: testOnly},
	{module: "github.com/anishathalye/porcupine", in: testOnly},
}

// TestArchitecture holds every folder and file of the tree against the tables
// above. It parses the files itself: `go list` inside a test goes stale in the
// test cache, files that the test opens do not.
func TestArchitecture(t *testing.T) {
	t.Parallel()
	tree, err := readTree(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree["."].files) == 0 {
		t.Fatal("found no Go files in the root: the test does not run where it should")
	}
	for _, breach := range judge(tree) {
		t.Error(breach)
	}
}

// A folder is what the law looks at.
type folder struct {
	files map[string]*ast.File // by name; build constraints are not looked at
	fset  *token.FileSet
	other bool // holds a file that is not Go
}

// readTree parses all Go files below root. It leaves out what git ignores,
// testdata, and the inside of other modules (which stay as folders).
func readTree(root fs.FS) (map[string]*folder, error) {
	tree := map[string]*folder{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && skipped(name) {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil && name != "." {
				tree[name] = &folder{other: true}
				return fs.SkipDir
			}
			tree[name] = &folder{files: map[string]*ast.File{}, fset: token.NewFileSet()}
			return nil
		}
		in := tree[path.Dir(name)]
		if filepath.Ext(name) != ".go" {
			in.other = true
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		in.files[path.Base(name)], err = parser.ParseFile(in.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
		return err
	})
	return tree, err
}

func skipped(name string) bool {
	switch base := path.Base(name); {
	case strings.HasPrefix(base, "."), strings.HasPrefix(base, "_"), base == "testdata", base == "node_modules":
		return true
	}
	switch name { // what .gitignore names
	case "bin", "dev", "dist", "web/dist":
		return true
	}
	return false
}
