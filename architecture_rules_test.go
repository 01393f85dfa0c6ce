package belfry_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// judge returns each breach of the law as `file:line: what is wrong; what would be right`, sorted.
func judge(tree map[string]*folder) []string {
	var breaches []string
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		in := tree[name]
		if len(in.files) == 0 && !in.other {
			continue // only the way to other folders, or empty (git does not keep those)
		}
		law, ok := ruleOf(name)
		if !ok {
			breaches = append(breaches, name+": folder is not on the map; add it to architecture_test.go and ARCHITECTURE.md, or use one that is")
			continue
		}
		if law.text && len(in.files) > 0 {
			breaches = append(breaches, name+": holds Go files; this folder is for other files")
			continue
		}
		for _, file := range slices.Sorted(maps.Keys(in.files)) {
			j := judgement{law: law, name: name, in: in, file: in.files[file], test: strings.HasSuffix(file, "_test.go")}
			breaches = append(breaches, j.all()...)
		}
		breaches = append(breaches, packageComments(name, in)...)
	}
	return breaches
}

func ruleOf(name string) (rule, bool) {
	for _, r := range folders {
		if matches(r.folder, name) {
			return r, true
		}
	}
	return rule{}, false
}

// matches tells whether name fits one of the patterns of a list.
func matches(list, name string) bool {
	return slices.ContainsFunc(strings.Fields(list), func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		if err != nil {
			panic(fmt.Sprintf("pattern %q in the tables: %v", pattern, err))
		}
		return ok
	})
}

// packageComments wants exactly one, so that the reader finds it and the tools do.
func packageComments(name string, in *folder) (breaches []string) {
	var first string
	var handWritten int
	for _, base := range slices.Sorted(maps.Keys(in.files)) {
		f := in.files[base]
		if strings.HasSuffix(base, "_test.go") || ast.IsGenerated(f) {
			continue
		}
		handWritten++
		if f.Doc == nil {
			continue
		}
		if first != "" {
			breaches = append(breaches, fmt.Sprintf("%s: second package comment; the first is in %s, keep one", in.fset.Position(f.Package), first))
			continue
		}
		first = base
	}
	if handWritten > 0 && first == "" {
		breaches = append(breaches, name+": no package comment; write one sentence that begins with the package's name")
	}
	return breaches
}

// A judgement looks at one file.
type judgement struct {
	law  rule
	name string // of the folder
	in   *folder
	file *ast.File
	test bool // a _test.go file

	breaches []string
}

func (j *judgement) all() []string {
	for _, spec := range j.file.Imports {
		j.imported(spec)
	}
	if !ast.IsGenerated(j.file) {
		j.inits()
	}
	if j.law.pure && !j.test {
		j.purity()
	}
	if j.name != "." && !j.test {
		j.sentinels()
	}
	return j.breaches
}

func (j *judgement) breach(at token.Pos, format string, args ...any) {
	j.breaches = append(j.breaches, j.in.fset.Position(at).String()+": "+fmt.Sprintf(format, args...))
}

// imported judges one import: of the project, of the standard library, or of a third party.
func (j *judgement) imported(spec *ast.ImportSpec) {
	imported := pathOf(spec)
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case imported == modulePath:
		j.project(spec, ".")
	case strings.HasPrefix(imported, modulePath+"/"):
		j.project(spec, strings.TrimPrefix(imported, modulePath+"/"))
	case strings.Contains(first, "."):
		j.thirdParty(spec, imported)
	case imported == "C":
		j.breach(spec.Pos(), "imports C; the product is built without cgo")
	case j.law.pure && !j.test && impureImport(imported):
		j.breach(spec.Pos(), "pure folder imports %s; take values from the driver instead", imported)
	}
}

func (j *judgement) project(spec *ast.ImportSpec, imported string) {
	if imported == j.name && j.test { // package x_test
		return
	}
	allowed := j.law.uses
	if j.test {
		allowed += " " + j.law.tests
	}
	if !matches(allowed, imported) || !j.test && isTestFolder(imported) && !isTestFolder(j.name) {
		j.breach(spec.Pos(), "%s imports %s; the map does not allow it (architecture_test.go)", j.name, imported)
	}
}

func (j *judgement) thirdParty(spec *ast.ImportSpec, imported string) {
	i := slices.IndexFunc(dependencies, func(d dependency) bool {
		return imported == d.module || strings.HasPrefix(imported, d.module+"/")
	})
	switch {
	case i < 0:
		j.breach(spec.Pos(), "imports %s, a module that is not in the table; a new dependency needs an ADR", imported)
	case dependencies[i].in == testOnly:
		if !j.test && !isTestFolder(j.name) {
			j.breach(spec.Pos(), "imports %s; it is for _test.go files and folders that end in test", imported)
		}
	case j.test && matches(dependencies[i].tests, j.name):
	case !matches(dependencies[i].in, j.name):
		j.breach(spec.Pos(), "%s imports %s; it stays in %s", j.name, imported, dependencies[i].in)
	}
}

func isTestFolder(name string) bool { return strings.HasSuffix(name, "test") }

func pathOf(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(err) // the parser has checked it
	}
	return p
}

// inits refuses func init: what runs before main is run by nobody's decision.
func (j *judgement) inits() {
	for _, decl := range j.file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			j.breach(f.Pos(), "func init; call it from main or from New")
		}
	}
}

// sentinels keeps exported errors in package belfry, where the client, the exit
// statuses and the API's codes find them.
func (j *judgement) sentinels() {
	for _, decl := range j.file.Decls {
		vars, ok := decl.(*ast.GenDecl)
		if !ok || vars.Tok != token.VAR {
			continue
		}
		for _, spec := range vars.Specs {
			for _, name := range spec.(*ast.ValueSpec).Names {
				if strings.HasPrefix(name.Name, "Err") {
					j.breach(name.Pos(), "sentinel %s outside package belfry; declare it there, or do not export it", name.Name)
				}
			}
		}
	}
}

// impureImport names packages through which the world outside gets into a pure
// folder. net/netip and net/url are values only.
func impureImport(p string) bool {
	switch p {
	case "net/netip", "net/url":
		return false
	case "context", "sync", "syscall", "math/rand", "crypto/rand", "io/ioutil", "unsafe":
		return true
	}
	first, _, _ := strings.Cut(p, "/")
	return first == "log" || first == "net" || first == "os" || strings.HasPrefix(p, "sync/")
}

// impure are the names that bring in the clock, global randomness or output. A
// nil set means: all but those in pureRand.
var impure = map[string][]string{
	"time":         {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"},
	"fmt":          {"Print", "Println", "Printf", "Scan", "Scanln", "Scanf"},
	"math/rand/v2": nil,
}

// pureRand are the names of math/rand/v2 that do not touch the global generator.
var pureRand = []string{"New", "NewPCG", "NewChaCha8", "NewZipf", "Rand", "PCG", "ChaCha8", "Zipf", "Source"}

// purity looks for what a pure folder must not do. It judges names, not calls:
// `now: time.Now` reads the clock as well.
func (j *judgement) purity() {
	watched := map[string]string{} // local name → import path
	for _, spec := range j.file.Imports {
		p := pathOf(spec)
		if _, ok := impure[p]; !ok {
			continue
		}
		local := path.Base(strings.TrimSuffix(p, "/v2"))
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == "." {
			j.breach(spec.Pos(), "pure folder imports %s with a dot; name it, so that its use can be seen", p)
		}
		watched[local] = p
	}
	ast.Inspect(j.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			j.breach(n.Pos(), "go statement in a pure folder; goroutines belong to drivers")
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "print" || f.Name == "println") {
				j.breach(n.Pos(), "%s in a pure folder; what is worth knowing is in Output", f.Name)
			}
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok {
				j.selected(n, watched[pkg.Name])
			}
		}
		return true
	})
}

// selected judges one name of an imported package; imported is empty for others.
func (j *judgement) selected(n *ast.SelectorExpr, imported string) {
	if imported == "" {
		return
	}
	bad := slices.Contains(impure[imported], n.Sel.Name)
	if imported == "math/rand/v2" {
		bad = !slices.Contains(pureRand, n.Sel.Name)
	}
	if bad {
		j.breach(n.Pos(), "pure folder uses %s.%s; time, randomness and output come from the driver", imported, n.Sel.Name)
	}
}
