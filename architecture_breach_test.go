package belfry_test

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestEachRuleCanBeBroken feeds the law small trees that break one rule each,
// and lawful neighbours that it must let pass: a law that can not fail holds
// nothing.
func TestEachRuleCanBeBroken(t *testing.T) {
	t.Parallel()
	const doc = "// Package x is a test.\npackage x\n"
	tests := []struct {
		name string
		file string            // judged together with tree
		src  string            // its content
		more map[string]string // other files of the tree
		want string            // part of the only breach; empty: lawful
	}{
		{name: "folder not on the map", file: "internal/util/a.go", src: doc, want: "internal/util: folder is not on the map"},
		{name: "folder without Go files not on the map", file: "docs/drafts/a.md", want: "docs/drafts: folder is not on the map"},
		{name: "folder inside a mapped one", file: "internal/event/queue/a.go", src: doc, want: "not on the map"},
		{name: "producer of any name", file: "internal/producer/pressure/a.go", src: doc},
		{name: "folder inside a producer", file: "internal/producer/process/deep/a.go", src: doc, want: "not on the map"},
		{name: "Go file among texts", file: "packaging/a.go", src: doc, want: "holds Go files"},
		{name: "testdata is not judged", file: "internal/event/testdata/a.go", src: "package y\nfunc init() {}\n"},
		{name: "another module is not judged", file: "tools/x/a.go", src: "package y\n", more: map[string]string{"tools/go.mod": "module x\n"}},

		{name: "pure siblings", file: "internal/event/a.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/cluster"`, want: "a.go:3:8: internal/event imports internal/cluster"},
		{name: "pure siblings in a test", file: "internal/event/a_test.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/cluster"`, want: "internal/event imports internal/cluster"},
		{name: "the root from below", file: "internal/event/a.go", src: doc + `import _ "github.com/belfry-ha/belfry"`},
		{name: "below from the root", file: "a.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/event"`, want: ". imports internal/event"},
		{name: "upper row from the pure row", file: "internal/wire/a.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/transport"`, want: "internal/wire imports internal/transport"},
		{name: "pure row from the upper row", file: "internal/transport/a.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/wire"`},
		{name: "one producer from another", file: "internal/producer/file/a.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/producer/node"`, want: "internal/producer/file imports internal/producer/node"},
		{name: "client from inside", file: "client/a.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/event"`, want: "client imports internal/event"},
		{name: "agent from below", file: "internal/api/a.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/agent"`, want: "internal/api imports internal/agent"},
		{name: "test folder in the product", file: "internal/agent/a.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/producer/producertest"`, want: "internal/agent imports internal/producer/producertest"},
		{name: "test folder in a test", file: "internal/producer/file/a_test.go", src: doc + `import _ "github.com/belfry-ha/belfry/internal/producer/producertest"`},
		{name: "its own package from an external test", file: "internal/event/a_test.go", src: "package x_test\n" + `import _ "github.com/belfry-ha/belfry/internal/event"`},

		{name: "module in its folder", file: "internal/agent/a.go", src: doc + `import _ "github.com/expr-lang/expr/vm"`},
		{name: "module outside its folder", file: "internal/event/a.go", src: doc + `import _ "github.com/expr-lang/expr"`, want: "internal/event imports github.com/expr-lang/expr"},
		{name: "module that is in no table", file: "internal/agent/a.go", src: doc + `import _ "github.com/pkg/errors"`, want: "not in the table"},
		{name: "module with a known beginning", file: "internal/agent/a.go", src: doc + `import _ "golang.org/x/synctool"`, want: "not in the table"},
		{name: "module for tests in the product", file: "internal/event/a.go", src: doc + `import _ "pgregory.net/rapid"`, want: "it is for _test.go files"},
		{name: "module for tests in a test", file: "internal/event/a_test.go", src: doc + `import _ "pgregory.net/rapid"`},
		{name: "module for tests in a test folder", file: "internal/producer/producertest/a.go", src: doc + `import _ "pgregory.net/rapid"`},
		{name: "module for the tests of a folder", file: "cmd/belfry/a_test.go", src: doc + `import _ "google.golang.org/protobuf/proto"`},
		{name: "the same in its product", file: "cmd/belfry/a.go", src: doc + `import _ "google.golang.org/protobuf/proto"`, want: "cmd/belfry imports google.golang.org/protobuf/proto"},
		{name: "cgo", file: "internal/agent/a.go", src: doc + `import "C"`, want: "without cgo"},

		{name: "no package comment", file: "internal/event/a.go", src: "package x\n", want: "internal/event: no package comment"},
		{name: "a comment that is not the package's", file: "internal/event/a.go", src: "// License.\n\npackage x\n", want: "no package comment"},
		{name: "second package comment", file: "internal/event/b.go", src: doc, more: map[string]string{"internal/event/a.go": doc}, want: "b.go:2:1: second package comment; the first is in a.go"},
		{name: "tests only", file: "internal/event/a_test.go", src: "package x\n"},
		{name: "generated code has its own comments", file: "gen/belfry/v1/a.pb.go", src: "// Code generated by x. DO NOT EDIT.\n\npackage x\nfunc init() {}\n"},

		{name: "init", file: "internal/agent/a.go", src: doc + "func init() {}", want: "a.go:3:1: func init"},
		{name: "init in a test", file: "internal/agent/a_test.go", src: doc + "func init() {}", want: "func init"},
		{name: "a method of that name", file: "internal/agent/a.go", src: doc + "type t int\nfunc (t) init() {}"},

		{name: "sentinel outside package belfry", file: "internal/agent/a.go", src: doc + "var ErrLate error", want: "a.go:3:5: sentinel ErrLate"},
		{name: "sentinel of its own", file: "internal/agent/a.go", src: doc + "var errLate error"},
		{name: "sentinel in package belfry", file: "a.go", src: doc + "var ErrLate error"},

		{name: "context in a pure folder", file: "internal/event/a.go", src: doc + `import _ "context"`, want: "imports context"},
		{name: "atomics in a pure folder", file: "internal/event/a.go", src: doc + `import _ "sync/atomic"`, want: "imports sync/atomic"},
		{name: "slog in a pure folder", file: "internal/event/a.go", src: doc + `import _ "log/slog"`, want: "imports log/slog"},
		{name: "files in a pure folder", file: "internal/wire/a.go", src: doc + `import _ "os/exec"`, want: "imports os/exec"},
		{name: "sockets in a pure folder", file: "internal/wire/a.go", src: doc + `import _ "net"`, want: "imports net"},
		{name: "addresses in a pure folder", file: "internal/wire/a.go", src: doc + `import _ "net/netip"`},
		{name: "old randomness in a pure folder", file: "internal/wire/a.go", src: doc + `import _ "math/rand"`, want: "imports math/rand"},
		{name: "files in a pure folder's test", file: "internal/wire/a_test.go", src: doc + `import _ "os"`},
		{name: "files elsewhere", file: "internal/agent/a.go", src: doc + `import _ "os"`},

		{name: "the clock in a pure folder", file: "internal/cluster/a.go", src: doc + "import \"time\"\nvar t = time.Now()", want: "a.go:4:9: pure folder uses time.Now"},
		{name: "the clock by another name", file: "internal/cluster/a.go", src: doc + "import clock \"time\"\nvar t = clock.Since", want: "uses time.Since"},
		{name: "the clock with a dot", file: "internal/cluster/a.go", src: doc + "import . \"time\"\nvar t = Now()", want: "with a dot"},
		{name: "durations in a pure folder", file: "internal/cluster/a.go", src: doc + "import \"time\"\nvar t = time.Second.Seconds()"},
		{name: "global randomness", file: "internal/cluster/a.go", src: doc + "import \"math/rand/v2\"\nvar n = rand.IntN(2)", want: "uses math/rand/v2.IntN"},
		{name: "randomness of its own", file: "internal/cluster/a.go", src: doc + "import \"math/rand/v2\"\nvar n = rand.New(rand.NewPCG(1, 2)).IntN(2)"},
		{name: "goroutine", file: "internal/cluster/a.go", src: doc + "func f() { go f() }", want: "a.go:3:12: go statement"},
		{name: "println", file: "internal/cluster/a.go", src: doc + "func f() { println() }", want: "println in a pure folder"},
		{name: "Printf", file: "internal/cluster/a.go", src: doc + "import \"fmt\"\nfunc f() { fmt.Printf(\"\") }", want: "uses fmt.Printf"},
		{name: "Sprintf", file: "internal/cluster/a.go", src: doc + "import \"fmt\"\nvar s = fmt.Sprintf(\"\")"},
		{name: "goroutine elsewhere", file: "internal/agent/a.go", src: doc + "func f() { go f() }"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			files := fstest.MapFS{tt.file: {Data: []byte(tt.src)}}
			for name, src := range tt.more {
				files[name] = &fstest.MapFile{Data: []byte(src)}
			}
			tree, err := readTree(files)
			if err != nil {
				t.Fatal(err)
			}
			switch got := judge(tree); {
			case tt.want == "" && len(got) > 0:
				t.Errorf("lawful, but got:\n%s", strings.Join(got, "\n"))
			case tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)):
				t.Errorf("want one breach with %q, got %d:\n%s", tt.want, len(got), strings.Join(got, "\n"))
			}
		})
	}
}

// TestTablesAreSound looks for entries that can not mean anything: a folder
// twice, a pattern that no folder of the map fits.
func TestTablesAreSound(t *testing.T) {
	t.Parallel()
	var names []string
	for _, r := range folders {
		names = append(names, strings.ReplaceAll(r.folder, "*", "any"))
	}
	slices.Sort(names)
	if diff := cmp.Diff(slices.Compact(slices.Clone(names)), names); diff != "" {
		t.Errorf("a folder is in the table twice (-want +got):\n%s", diff)
	}
	lists := ""
	for _, r := range folders {
		lists += " " + r.uses + " " + r.tests
	}
	for _, d := range dependencies {
		if d.in != testOnly {
			lists += " " + d.in + " " + d.tests
		}
	}
	for pattern := range strings.FieldsSeq(lists) {
		if _, ok := ruleOf(pattern); !ok && !slices.ContainsFunc(names, func(name string) bool { return matches(pattern, name) }) {
			t.Errorf("pattern %q fits no folder of the map", pattern)
		}
	}
}
