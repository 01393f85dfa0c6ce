package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	mit = "MIT License\n\nCopyright (c) 2026 A\n\nPermission is hereby granted, free of charge, to any person ...\n" +
		"The above copyright notice and this permission notice shall be included ...\nTHE SOFTWARE IS PROVIDED \"AS IS\", ..."
	bsd2 = "Redistribution and use in source\nand binary forms ... Redistributions in binary form must reproduce the above copyright notice"
	bsd3 = bsd2 + "\n * Neither the name of A nor ..."
	isc  = "Permission to use, copy, modify, and distribute this software for any\npurpose with or without fee is hereby granted"
	gpl  = "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007 ... GNU Affero General Public License"
	mpl  = "Mozilla Public License, version 2.0 ... \"Covered Software\" ... GNU General Public License, Version 2.0"
)

func TestLicensesAreTold(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		kind string
		err  error
	}{
		mit:                        {"MIT", nil},
		bsd2:                       {"BSD-2-Clause", nil},
		bsd3:                       {"BSD-3-Clause", nil},
		isc:                        {"ISC", nil},
		gpl:                        {"GPL", errRefused},
		mpl:                        {"MPL-2.0", errRefused},
		"Do what you like with it": {"", errUnknown},
		"":                         {"", errUnknown},
	} {
		if kind, err := classify(text); kind != want.kind || !errors.Is(err, want.err) {
			t.Errorf("%.30q: want %s, %v; got %s, %v", text, want.kind, want.err, kind, err)
		}
	}
	apache, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if kind, err := classify(string(apache)); kind != "Apache-2.0" || err != nil {
		t.Errorf("our own license: %s, %v", kind, err)
	}
}

func TestNoticesCarryEachTextAndRefuseTheRest(t *testing.T) {
	t.Parallel()
	dir := func(files map[string]string) string {
		d := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(d, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	good := module{Path: "example.org/good", Version: "v1.0.0", Dir: dir(map[string]string{"LICENSE.txt": mit, "NOTICE": "by A", "license.go": "package x"})}
	text, err := render([]module{good})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"example.org/good v1.0.0 (MIT)\n", mit, "\nby A\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	for name, files := range map[string]map[string]string{
		"license not allowed":   {"COPYING": gpl},
		"license not known":     {"LICENSE": "ask me"},
		"one of two is unknown": {"LICENSE": mit, "LICENSE.other": "ask me"},
		"no license":            {"README": mit},
	} {
		_, err := render([]module{good, {Path: "example.org/bad", Dir: dir(files)}})
		if err == nil || !strings.Contains(err.Error(), "example.org/bad") || strings.Contains(err.Error(), "good") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestModulesAreNamedOnce(t *testing.T) {
	t.Parallel()
	got, err := modulesOf(strings.NewReader(`{"Standard":true}
{"Module":{"Path":"example.org/b"}}
{"Module":{"Path":"example.org/a"}}
{"Module":{"Path":"example.org/b"}}
{"Module":{"Path":"example.org/self","Main":true}}`))
	if err != nil || len(got) != 2 || got[0].Path != "example.org/a" || got[1].Path != "example.org/b" {
		t.Errorf("got %v, %v", got, err)
	}
}
