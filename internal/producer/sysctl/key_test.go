package sysctl

import (
	"errors"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
)

func TestKeysHaveTwoForms(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"vm.swappiness":                       "vm/swappiness",
		"vm/swappiness":                       "vm/swappiness",
		"kernel":                              "kernel",
		"net.ipv4.conf.eth0/100.forwarding":   "net/ipv4/conf/eth0.100/forwarding",
		"net/ipv4/conf/eth0.100/forwarding":   "net/ipv4/conf/eth0.100/forwarding",
		"net.ipv4.conf.eth0/1/2.a*b":          "net/ipv4/conf/eth0.1.2/a*b",
		"kernel/sched_domain/cpu0/./x":        "",
		"kernel.sched_domain.cpu0/.x":         "kernel/sched_domain/cpu0./x",
		"":                                    "",
		"vm.":                                 "",
		".vm":                                 "",
		"vm..swappiness":                      "",
		"../../etc/passwd":                    "",
		"vm/../../etc/passwd":                 "",
		"vm.//.//.etc.passwd":                 "",
		"/etc/passwd":                         "",
		"/proc/sys/vm/swappiness":             "",
		"net.ipv4.conf.//.forwarding":         "",
		"net/ipv4/conf//forwarding":           "",
		"net.ipv4.conf./.forwarding.and.more": "",
	} {
		k, err := parseKey(text)
		if k.path != want || (err == nil) != (want != "") {
			t.Errorf("%q means %q, error %v; want %q", text, k.path, err, want)
		}
		if err != nil && !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%q: %v, want ErrUsage", text, err)
		}
	}
}

func TestAPatternIsLookedForOnlyWhereItCanFit(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"":                           ".",
		"*":                          ".",
		"kernel.sched_*":             "kernel",
		"kernel/sched_*":             "kernel",
		"net.ipv4.conf.*.forwarding": "net/ipv4/conf",
		"net/ipv4/conf/e*/fwd":       "net/ipv4/conf",
		"net.ipv4.conf.eth0/*.x":     "net/ipv4/conf",
		`vm.a\*b.c*`:                 "vm",
		"../*":                       "",
		"/etc/*":                     "",
		"vm/../../*":                 "",
	} {
		if got, ok := base(pattern); ok != (want != "") || ok && got != want {
			t.Errorf("%q is looked for below %q, %v; want %q", pattern, got, ok, want)
		}
	}
}

func FuzzKeysStayBelowTheRoot(f *testing.F) {
	f.Add("vm.swappiness")
	f.Add("net.ipv4.conf.eth0/100.forwarding")
	f.Add("a/../../b")
	f.Add(".//.")
	f.Fuzz(func(t *testing.T, text string) {
		if dir, ok := base(text); ok && !filepath.IsLocal(dir) {
			t.Errorf("the pattern %q is looked for below %q", text, dir)
		}
		if !utf8.ValidString(text) { // refused before it gets here
			return
		}
		k, err := parseKey(text)
		if err != nil {
			return
		}
		if !filepath.IsLocal(k.path) || filepath.Clean(k.path) != k.path {
			t.Errorf("%q means %q", text, k.path)
		}
		if again := in(k.path, k.slash); again != text {
			t.Errorf("%q means %q, which is written %q", text, k.path, again)
		}
	})
}
