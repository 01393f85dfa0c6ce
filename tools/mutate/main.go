// Command mutate changes the code in one place at a time and wants a test to
// notice: each safety claim has a mutant, each reported bug adds one.
//
//	mutate [-run REGEXP] [DIR…]
//
// It looks for testdata/mutants.txt in every package below each DIR (default
// the current folder). The list is a txtar-like text: a line `-- NAME --` for
// each mutant, then
//
//	file: verdict.go
//	test: TestStalledIsNotDown
//	old: if silent > maxWait {
//	new: if silent >= maxWait {
//
// test is a pattern as in `go test -run`. Old or new text of several lines is
// written as several old: or new: lines, which are joined. The old text must
// be found exactly once. Nothing in the tree is written: the change reaches
// the compiler through `go test -overlay`.
//
// The exit status is 1 when a mutant survives, does not compile, its test does
// not run or fails without it, or its old text is not found exactly once.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

func main() {
	pattern := flag.String("run", "", "try only mutants whose package and name match")
	flag.Parse()
	dirs := flag.Args()
	if len(dirs) == 0 {
		dirs = []string{"."}
	}
	if err := run(dirs, *pattern); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(dirs []string, pattern string) error {
	want, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	var tried, bad int
	for _, dir := range dirs {
		packages, err := find(dir)
		if err != nil {
			return err
		}
		for _, pkg := range packages {
			n, failed, err := gate(pkg, want)
			if err != nil {
				return err
			}
			tried, bad = tried+n, bad+failed
		}
	}
	fmt.Printf("%d mutants, %d found by their tests\n", tried, tried-bad)
	switch {
	case bad > 0:
		return fmt.Errorf("%d mutants were not found: strengthen the test, or correct the list", bad)
	case tried == 0:
		return errors.New("no mutant tried")
	}
	return nil
}

// find returns the packages below dir that have a list.
func find(dir string) (packages []string, err error) {
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != dir && d.Name()[0] == '.' {
			return fs.SkipDir
		}
		if !d.IsDir() && d.Name() == "mutants.txt" && filepath.Base(filepath.Dir(name)) == "testdata" {
			packages = append(packages, filepath.Dir(filepath.Dir(name)))
		}
		return nil
	})
	return packages, err
}

// gate tries the mutants of one package.
func gate(pkg string, want *regexp.Regexp) (tried, bad int, err error) {
	list := filepath.Join(pkg, "testdata", "mutants.txt")
	text, err := os.ReadFile(list)
	if err != nil {
		return 0, 0, err
	}
	mutants, err := parse(string(text))
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", list, err)
	}
	healthy := map[string]error{} // result of each test on the code as it is
	for _, m := range mutants {
		if !want.MatchString(pkg + " " + m.name) {
			continue
		}
		tried++
		start := time.Now()
		if _, ok := healthy[m.test]; !ok {
			healthy[m.test] = passes(pkg, m.test)
		}
		err := healthy[m.test]
		if err == nil {
			err = m.try(pkg)
		}
		if err != nil {
			bad++
			fmt.Printf("FAIL  %s  %s: %v\n", pkg, m.name, err)
			continue
		}
		fmt.Printf("ok    %s  %s  %.1fs\n", pkg, m.name, time.Since(start).Seconds())
	}
	return tried, bad, nil
}
