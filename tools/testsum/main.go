// Command testsum runs the tests of one or more modules and says what came of
// them: the output of what failed, the list of what was skipped and why, and
// as its last line `N passed, N failed, N skipped`.
//
//	testsum [-modules .,tools] [-packages ./...] [-race auto|on|off] [-allow FILE] [flags of go test]
//
// Its exit status is 1 when a test failed, a package did not build, or nothing
// ran; with BELFRY_TEST_REQUIRE=all also when a test was skipped that the file
// of allowed skips does not list with a reason (not in a run with -short).
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	modules := flag.String("modules", ".", "folders of the modules to test, separated by commas")
	packages := flag.String("packages", "./...", "patterns of the packages of each module, separated by commas")
	race := flag.String("race", "auto", "auto, on or off; auto: on where a C compiler works")
	allow := flag.String("allow", "testdata/allowed_skips.txt", "list of the tests that may be skipped")
	flag.Parse()
	if err := run(strings.Split(*modules, ","), strings.Split(*packages, ","), *race, *allow, flag.Args()); err != nil {
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "testsum:", err)
		}
		os.Exit(1)
	}
}

// errFailed: the tests did not pass, and the output has said so.
var errFailed = errors.New("tests failed")

func run(modules, packages []string, race, allow string, flags []string) error {
	var note string
	switch race {
	case "auto":
		if compilesC() {
			flags = append([]string{"-race"}, flags...)
		} else {
			note = "without -race: no working C compiler (gcc and libc6-dev provide one)"
		}
	case "on":
		flags = append([]string{"-race"}, flags...)
	case "off":
		note = "without -race: not asked for"
	default:
		return fmt.Errorf("-race %q; want auto, on or off", race)
	}
	allowed, err := readAllowed(allow)
	if err != nil {
		return err
	}
	sum := newSummary(os.Stdout)
	var broken error
	for _, module := range modules {
		if err := test(sum, module, packages, flags); err != nil {
			broken = errors.Join(broken, fmt.Errorf("go test in %s: %w", module, err))
		}
	}
	// A short run leaves tests out because it was asked to.
	strict := os.Getenv("BELFRY_TEST_REQUIRE") == "all" && !slices.Contains(flags, "-short")
	ok := sum.report(strict, allowed, note)
	switch {
	case !ok:
		return errFailed
	case broken != nil: // go test failed and no event says why
		return broken
	}
	return nil
}

// test runs go test in one module and feeds what it says to the summary.
func test(sum *summary, module string, packages, flags []string) error {
	args := append([]string{"-C", module, "test", "-json"}, flags...)
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Stderr = os.Stderr
	if len(flags) > 0 && flags[0] == "-race" {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := sum.read(out)
	if readErr != nil {
		_, _ = io.Copy(io.Discard, out) // let it end
	}
	return errors.Join(readErr, cmd.Wait())
}

// compilesC tells whether a C program can be linked, which -race needs. A
// compiler without libc's headers is not enough.
func compilesC() bool {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "gcc"
	}
	cmd := exec.Command(cc, "-x", "c", "-o", os.DevNull, "-")
	cmd.Stdin = bytes.NewReader([]byte("#include <stdio.h>\nint main(void) { return 0; }\n"))
	return cmd.Run() == nil
}
