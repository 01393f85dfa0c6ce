package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// testCatalogue has a class of each sort.
func testCatalogue() catalogue {
	return catalogue{
		{Class: "cpu.wait", Kind: "value", Unit: "ms", Remote: true},
		{Class: "disk.latency", Kind: "value", Unit: "ms", Subject: "NAME"},
		{Class: "file.modify", Kind: "happening", Subject: "/PATH, * within a directory", Globs: true, Remote: true},
		{Class: "filesystem.free", Kind: "value", Unit: "bytes", Subject: "/PATH"},
		{Class: "filesystem.usage", Kind: "value", Unit: "%", Subject: "/MOUNTPOINT | inodes:/MOUNTPOINT", Remote: true},
		{Class: "node.state", Kind: "state", Subject: "NODE", Globs: true, Remote: true, Optional: true},
		{Class: "memory.wait", Kind: "value", Unit: "/s", Remote: true},
		{Class: "pressure.cpu", Kind: "value", Unit: "%", Subject: "some | full | /CGROUP | full:/CGROUP", Remote: true},
		{Class: "process.exit", Kind: "happening", Subject: "pid=N | exe=/PATH | cmdline=EXPRESSION | pidfile=/PATH", LiteralKinds: []string{"cmdline"}},
		{Class: "user.*", Kind: "happening", Subject: "any text", Globs: true, Remote: true, Optional: true, Custom: true},
	}
}

func TestSelectorsAreCheckedAgainstTheCatalogue(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"node.state": "", "node.state:c": "", "node.*": "", "*": "", "user.build": "", "user.build.x:web": "",
		"file.modify:/etc/passwd": "", "file.modify:/etc/**": "", "file.modify:**/x": "", `process.exit:exe=/a\*b`: "",
		"process.exit:pid=1": "", "process.exit:cmdline=a b": "", "process.exit:cmdline=^a.*b$": "", "filesystem.usage:inodes:/": "", "user.x:fe80::1": "",
		"cpu.wait": "", "pressure.cpu:some": "", "pressure.cpu:full:/a": "", "pressure.cpu:sum": "",

		"":                          "\"\": a selector is CLASS or CLASS:SUBJECT; belfry event types lists the classes",
		":x":                        "\":x\": a selector is CLASS or CLASS:SUBJECT; belfry event types lists the classes",
		"Node.state":                `"Node.state" is no class: words of a-z, 0-9 and - joined by dots, or noun.*, or *`,
		"node..state":               `"node..state" is no class: words of a-z, 0-9 and - joined by dots, or noun.*, or *`,
		"*.state":                   `"*.state" is no class: words of a-z, 0-9 and - joined by dots, or noun.*, or *`,
		"node.state:":               `"node.state:": nothing after the colon; write CLASS:SUBJECT, or CLASS alone`,
		"user.x:a\nb":               "the subject of user.x holds a control character: \"a\\nb\"",
		"user.x:\xff":               `the subject of user.x is not UTF-8: "\xff"`,
		"file.modfy:/x":             `unknown class "file.modfy"; did you mean file.modify? (belfry event types lists all)`,
		"volcano.erupts":            `unknown class "volcano.erupts"; belfry event types lists all`,
		"volcano.*":                 `unknown class "volcano.*"; belfry event types lists all`,
		"user.":                     `"user." is no class: words of a-z, 0-9 and - joined by dots, or noun.*, or *`,
		"file.modify":               "file.modify needs a subject; write file.modify:SUBJECT, where SUBJECT is /PATH, * within a directory",
		"process.exit:p*":           `process.exit:p*: process.exit takes no patterns; name one subject, and write \* for a star in it`,
		"file.modify:a/b":           `file.modify:a/b: "a/b" is a relative path; write file.modify:` + filepath.Join(here, "a/b"),
		"process.exit:exe=worker":   `process.exit:exe=worker: "worker" is a relative path; write process.exit:exe=` + filepath.Join(here, "worker"),
		"cpu.wait:some":             "cpu.wait:some: cpu.wait has no subject; write cpu.wait",
		"pressure.cpu:a/b":          `pressure.cpu:a/b: "a/b" is a relative path; write pressure.cpu:` + filepath.Join(here, "a/b"),
		"filesystem.usage:inodes:.": `filesystem.usage:inodes:.: "." is a relative path; write filesystem.usage:inodes:` + here,
	} {
		s, err := parseSelector(text)
		if err == nil {
			_, err = testCatalogue().check(s)
		}
		if got := textOf(err); got != want || err != nil && !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%q\n got %s\nwant %s, which wraps ErrUsage", text, got, want)
		}
	}
	long := "user.x:" + strings.Repeat("x", maxSubject)
	if _, err := parseSelector(long); err != nil {
		t.Errorf("%d bytes: %v", maxSubject, err)
	}
	if _, err := parseSelector(long + "x"); textOf(err) != "the subject of user.x has 4097 bytes; at most 4096" {
		t.Errorf("%d bytes: %v", maxSubject+1, err)
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestThresholdsAreInTheUnitOfTheClass(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		selector           string
		over, under, rearm string
		want               belfry.Threshold
		fault              string
	}{
		{selector: "filesystem.usage:/", over: "90%", rearm: "2.5%", want: belfry.Threshold{Hi: 90, HasHi: true, Hysteresis: 2.5}},
		{selector: "filesystem.usage:/", under: "0%", want: belfry.Threshold{HasLo: true}},
		{selector: "filesystem.free:/", over: "10GiB", under: "1.5kB", want: belfry.Threshold{Hi: 10 << 30, Lo: 1500, HasHi: true, HasLo: true}},
		{selector: "disk.latency:sda", over: "1.5s", want: belfry.Threshold{Hi: 1500, HasHi: true}},
		{selector: "node.state"},
		{selector: "filesystem.usage:/", over: "90", fault: "--over 90: filesystem.usage is measured in percent; write --over 90%"},
		{selector: "filesystem.usage:/", over: "10GiB", fault: "--over 10GiB: filesystem.usage is measured in percent; write for example --over 90%"},
		{selector: "filesystem.usage:/", under: "101%", fault: "--under 101%: filesystem.usage lies between 0% and 100%"},
		{selector: "filesystem.usage:/", over: "NaN%", fault: "--over NaN%: filesystem.usage is measured in percent; write for example --over 90%"},
		{selector: "filesystem.usage:/", over: "1e1%", fault: "--over 1e1%: filesystem.usage is measured in percent; write for example --over 90%"},
		{selector: "filesystem.free:/", over: "10", fault: "--over 10: filesystem.free is measured in bytes; write for example --over 10GiB"},
		{selector: "disk.latency:sda", over: "250", fault: "--over 250: disk.latency is measured in milliseconds; write --over 250ms"},
		{selector: "memory.wait", over: "2.5/s", want: belfry.Threshold{Hi: 2.5, HasHi: true}},
		{selector: "memory.wait", over: "2", fault: "--over 2: memory.wait is measured in occasions a second; write --over 2/s"},
		{selector: "disk.latency:sda", over: "-1ms", fault: "--over -1ms: disk.latency is never below zero"},
		{selector: "node.state", over: "90%", fault: "--over 90%: node.state has no value to compare; leave --over out"},
		{selector: "*", over: "90%", fault: "--over 90%: * has classes with different units; name one class"},
		{selector: "filesystem.usage:/", rearm: "1%", fault: "--rearm 1%: there is no threshold to re-arm; add --over or --under"},
		{selector: "filesystem.usage:/", over: "10%", under: "10%", fault: "--over 10% --under 10%: nothing lies between them; --under is the lower one"},
	} {
		s, err := parseSelector(test.selector)
		if err != nil {
			t.Fatal(err)
		}
		classes, err := testCatalogue().check(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := thresholdFlags{test.over, test.under, test.rearm}.in(classes, s)
		if textOf(err) != test.fault || err == nil && got != test.want {
			t.Errorf("%s --over %q --under %q --rearm %q\n got %+v %v\nwant %+v %s", test.selector, test.over, test.under, test.rearm, got, err, test.want, test.fault)
		}
	}
}

func TestExactValueClassNeedsAThreshold(t *testing.T) {
	t.Parallel()
	for text, refused := range map[string]bool{"filesystem.usage:/": true, "filesystem.*": false, "node.state:c": false, "cpu.wait": true} {
		s, err := parseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		classes, err := testCatalogue().check(s)
		if err != nil {
			t.Fatal(err)
		}
		err = classes.needsThreshold(s, belfry.Threshold{})
		if errors.Is(err, belfry.ErrNoThreshold) != refused {
			t.Errorf("%s without threshold: %v, want refused %v", text, err, refused)
		}
		if err := classes.needsThreshold(s, belfry.Threshold{HasHi: true}); err != nil {
			t.Errorf("%s with threshold: %v", text, err)
		}
	}
}

func TestUnknownNodeNamesTheNearest(t *testing.T) {
	t.Parallel()
	var nodes []*belfryv1.Node
	for _, name := range []string{"alpha", "beta", "gamma", "delta"} {
		nodes = append(nodes, &belfryv1.Node{Name: name})
	}
	if got, want := textOf(unknownNode("gama", nodes, belfry.ErrUsage)), `unknown node "gama"; did you mean gamma?`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := textOf(unknownNode("x", nodes[:2], belfry.ErrUsage)), `unknown node "x"; one of alpha, beta`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzSelector: no text makes the parser panic, and what it accepts it reads
// back from its own form.
func FuzzSelector(f *testing.F) {
	for _, seed := range []string{"node.state:c", "*", "noun.*", "user.x:a:b", `f.x:\**`, ":", "a.:\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSelector(text)
		if err != nil {
			return
		}
		again, err := parseSelector(s.String())
		if err != nil || again != s {
			t.Errorf("%q gave %+v, which reads back as %+v, %v", text, s, again, err)
		}
		_, _ = testCatalogue().check(s)
	})
}
