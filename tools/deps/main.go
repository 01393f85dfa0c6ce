// Command deps sees to the Debian packages that the tests use. As root it
// installs those of the groups named whose program is absent; otherwise it
// prints the one command that would, and goes on.
//
//	deps FILE GROUP…
//
// FILE has lines of group, package and the program it is known by.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "deps: want FILE and at least one GROUP")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "deps:", err)
		os.Exit(1)
	}
}

func run(name string, groups []string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	packages, err := read(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	absent, err := missing(packages, groups, present)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(absent) == 0 {
		return nil
	}
	list := strings.Join(absent, " ")
	if os.Geteuid() != 0 {
		fmt.Printf("deps: absent, and their tests are skipped: %s\n  sudo apt-get install -y --no-install-recommends %s\n", list, list)
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		fmt.Printf("deps: absent, and their tests are skipped: %s; no apt-get here: install what provides them\n", list)
		return nil
	}
	fmt.Printf("deps: installing %s\n", list)
	i := installer{policy: "/usr/sbin/policy-rc.d", apt: aptGet}
	if err := i.install(absent); err != nil {
		// Not fatal: the tests that need them skip, and say so.
		fmt.Printf("deps: not installed, and their tests are skipped: %s\n  %v\n", list, err)
	}
	return nil
}

// A debianPackage is a line of the file.
type debianPackage struct{ group, name, knownBy string }

func read(r io.Reader) (list []debianPackage, err error) {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("line %d: %q; want group, package, program", n, lines.Text())
		}
		list = append(list, debianPackage{f[0], f[1], f[2]})
	}
	return list, lines.Err()
}

// missing returns the packages of the groups that are not present, in order.
func missing(list []debianPackage, groups []string, present func(string) bool) (names []string, err error) {
	for _, g := range groups {
		if !slices.ContainsFunc(list, func(p debianPackage) bool { return p.group == g }) {
			return nil, fmt.Errorf("no group %q", g)
		}
	}
	for _, p := range list {
		if slices.Contains(groups, p.group) && !present(p.knownBy) {
			names = append(names, p.name)
		}
	}
	return names, nil
}

// present looks for a path as a file and for other names in PATH and in the
// folders of the administrator's programs, which a user's PATH lacks.
func present(knownBy string) bool {
	if filepath.IsAbs(knownBy) {
		_, err := os.Stat(knownBy)
		return err == nil
	}
	if _, err := exec.LookPath(knownBy); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, knownBy)); err == nil {
			return true
		}
	}
	return false
}

// An installer calls apt-get without starting any service.
type installer struct {
	policy string                // invoke-rc.d(8): exit status 101 forbids the start of services
	apt    func(...string) error // runs apt-get
}

// install tries at once, and again after an update of the package lists.
func (i installer) install(names []string) (err error) {
	// An interrupt ends apt-get; this process stays, to take the policy away.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)
	if e := i.forbidStarts(); e == nil {
		defer func() { err = errors.Join(err, os.Remove(i.policy)) }()
	} else if !errors.Is(e, os.ErrExist) { // one that is there is the administrator's
		return e
	}
	args := append([]string{"install", "-y", "--no-install-recommends"}, names...)
	if i.apt(args...) == nil {
		return nil
	}
	if len(interrupted) > 0 {
		return errors.New("interrupted")
	}
	if err := i.apt("update"); err != nil {
		return err
	}
	return i.apt(args...)
}

func (i installer) forbidStarts() error {
	f, err := os.OpenFile(i.policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = f.WriteString("#!/bin/sh\nexit 101\n")
	return errors.Join(err, f.Close())
}

// aptGet shows what apt-get says only where it fails.
func aptGet(args ...string) error {
	cmd := exec.Command("apt-get", append([]string{"-q"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
	}
	return nil
}
