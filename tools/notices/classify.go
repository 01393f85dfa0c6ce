package main

import (
	"errors"
	"fmt"
	"strings"
)

var (
	errUnknown = errors.New("license not known; add it to classify.go only if it is MIT, BSD, ISC or Apache-2.0")
	errRefused = errors.New("license not allowed in the product")
)

// fingerprints are sentences that only the named license has, in the order in
// which they are looked for: the MPL's text speaks of
// the GPLs, and the GPL's of the others.
var fingerprints = []struct {
	kind    string
	allowed bool
	all     []string // each must be there, words compared without regard to case and line ends
}{
	{"MPL-2.0", false, []string{"mozilla public license version 2.0", "covered software"}},
	{"AGPL", false, []string{"gnu affero general public license version 3"}},
	{"LGPL", false, []string{"gnu lesser general public license version"}},
	{"GPL", false, []string{"gnu general public license version"}},
	{"Apache-2.0", true, []string{"apache license version 2.0", "grant of patent license"}},
	{"BSD-3-Clause", true, []string{"redistribution and use in source and binary forms", "must reproduce the above copyright notice", "neither the name"}},
	{"BSD-2-Clause", true, []string{"redistribution and use in source and binary forms", "must reproduce the above copyright notice"}},
	{"MIT", true, []string{"permission is hereby granted, free of charge", "the above copyright notice and this permission notice", "the software is provided \"as is\""}},
	{"ISC", true, []string{"permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"}},
	{"ISC", true, []string{"permission to use, copy, modify, and distribute this software for any purpose with or without fee"}},
}

// classify names the license of a text.
func classify(text string) (string, error) {
	words := strings.ToLower(strings.Join(strings.Fields(text), " "))
	words = strings.NewReplacer("“", `"`, "”", `"`, "``", `"`, "''", `"`, ", version 2.0", " version 2.0").Replace(words)
	for _, f := range fingerprints {
		if !containsAll(words, f.all) {
			continue
		}
		if !f.allowed {
			return f.kind, fmt.Errorf("%s: %w", f.kind, errRefused)
		}
		return f.kind, nil
	}
	return "", errUnknown
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
