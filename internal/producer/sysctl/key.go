package sysctl

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
)

// A key is a file below the root, written in one of the two forms of sysctl(8):
// kernel.hostname, or kernel/hostname. The separator that comes first decides; in
// a name between two of them the other stands for itself, and in the dotted form
// a slash for a dot: net.ipv4.conf.eth0/100.forwarding is
// net/ipv4/conf/eth0.100/forwarding.
type key struct {
	path  string // clean, relative to the root
	slash bool   // the form it was written in
}

// parseKey reads either form. ErrUsage for what is no path below the root.
func parseKey(text string) (key, error) {
	k := key{slash: hasSlashes(text)}
	k.path = text
	if !k.slash {
		k.path = swap(text)
	}
	if below, ok := strings.CutPrefix(text, "/proc/sys/"); ok {
		return key{}, fmt.Errorf("%w: %s is a file; write %s", belfry.ErrUsage, text, below)
	}
	if slices.ContainsFunc(strings.Split(k.path, "/"), notName) {
		return key{}, fmt.Errorf("%w: %q is no key; write it as sysctl(8) does, for example vm.swappiness", belfry.ErrUsage, text)
	}
	return k, nil
}

// notName tells whether part of a path names nothing, or goes elsewhere.
func notName(part string) bool { return part == "" || part == "." || part == ".." }

// hasSlashes tells whether the slash is what separates the names.
func hasSlashes(text string) bool {
	i := strings.IndexAny(text, "./")
	return i >= 0 && text[i] == '/'
}

// swap turns dots into slashes and back: one form into the other.
func swap(text string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, text)
}

// dotted is how sysctl(8) writes a path below the root.
func dotted(path string) string { return swap(path) }

// in writes a path below the root in one of the forms.
func in(path string, slash bool) string {
	if slash {
		return path
	}
	return dotted(path)
}

// base is the directory below which all keys are that can fit a pattern, and
// whether there may be any.
func base(pattern string) (dir string, ok bool) {
	literal, _, _ := strings.Cut(pattern, "*")
	if !hasSlashes(pattern) {
		literal = swap(literal)
	}
	dir = path.Dir(literal + "x") // what the star begins with belongs to a name
	return dir, dir == "." || !slices.ContainsFunc(strings.Split(dir, "/"), notName)
}
