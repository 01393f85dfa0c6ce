// Command notices writes THIRD_PARTY_NOTICES: the licenses of all that is
// linked into the product. It fails on a license that it does not know or that
// the product must not carry.
//
//	notices [-check] [-o THIRD_PARTY_NOTICES] [PACKAGE…]
//
// PACKAGE is what is shipped; default ./cmd/belfry and ./client. With -check
// nothing is written: a file that differs is an error.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	check := flag.Bool("check", false, "compare instead of writing")
	name := flag.String("o", "THIRD_PARTY_NOTICES", "file to write or to compare with")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./cmd/belfry", "./client"}
	}
	if err := run(*name, *check, packages); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

func run(name string, check bool, packages []string) error {
	modules, err := linked(packages)
	if err != nil {
		return err
	}
	text, err := render(modules)
	if err != nil {
		return err
	}
	if !check {
		return os.WriteFile(name, text, 0o644)
	}
	switch old, err := os.ReadFile(name); {
	case err != nil:
		return err
	case !bytes.Equal(old, text):
		return fmt.Errorf("%s is not what is linked now; run make generate", name)
	}
	return nil
}

// A module is one that is linked into the product. The standard library is one of them.
type module struct {
	Path, Version, Dir string
	Main               bool
}

// linked asks go for the modules of all packages that the product is made of,
// sorted. Test packages are not among them.
func linked(packages []string) ([]module, error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=Standard,Module"}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	modules, err := modulesOf(bytes.NewReader(out))
	if err != nil {
		return nil, err
	}
	// Trimmed builds have no runtime.GOROOT: ask.
	env, err := exec.Command("go", "env", "-json", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var goroot struct{ GOROOT, GOVERSION string }
	if err := json.Unmarshal(env, &goroot); err != nil {
		return nil, err
	}
	// The version of Go is that of the builder, so it is not written.
	return append([]module{{Path: "Go standard library", Dir: goroot.GOROOT}}, modules...), nil
}

func modulesOf(r io.Reader) ([]module, error) {
	seen := map[string]bool{}
	var list []module
	for d := json.NewDecoder(r); ; {
		var p struct {
			Module *module
		}
		switch err := d.Decode(&p); {
		case err == io.EOF:
			slices.SortFunc(list, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
			return list, nil
		case err != nil:
			return nil, err
		}
		if p.Module == nil || p.Module.Main || seen[p.Module.Path] {
			continue
		}
		seen[p.Module.Path] = true
		list = append(list, *p.Module)
	}
}

// render writes the notices of all modules, or says what is wrong with each.
func render(modules []module) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("Belfry is licensed under the Apache License 2.0 (LICENSE).\n" +
		"Its binary contains the following software. Made by tools/notices.\n")
	var bad error
	for _, m := range modules {
		texts, err := licenseTexts(m.Dir)
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("%s: %w", m.Path, err))
			continue
		}
		var kinds []string
		for _, t := range texts {
			kind, err := classify(t.text)
			if err != nil && !t.notice {
				bad = errors.Join(bad, fmt.Errorf("%s: %s: %w", m.Path, t.name, err))
				continue
			}
			if !t.notice && !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
		}
		fmt.Fprintf(&b, "\n%s\n%s (%s)\n", strings.Repeat("=", 76), strings.TrimSpace(m.Path+" "+m.Version), strings.Join(kinds, ", "))
		for _, t := range texts {
			fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(strings.ReplaceAll(t.text, "\r\n", "\n")))
		}
	}
	return b.Bytes(), bad
}

// A licenseText is a file that must travel with the module.
type licenseText struct {
	name, text string
	notice     bool // says whose work it is, not what is allowed (Apache-2.0 section 4d)
}

func licenseTexts(dir string) (texts []licenseText, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		notice := strings.HasPrefix(upper, "NOTICE")
		if e.IsDir() || filepath.Ext(upper) == ".GO" ||
			!notice && !strings.HasPrefix(upper, "LICENSE") && !strings.HasPrefix(upper, "LICENCE") && !strings.HasPrefix(upper, "COPYING") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		texts = append(texts, licenseText{e.Name(), string(text), notice})
	}
	if !slices.ContainsFunc(texts, func(t licenseText) bool { return !t.notice }) {
		return nil, errors.New("no license file; ask its authors, or do without it")
	}
	return texts, nil
}
