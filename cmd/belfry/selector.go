package main

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSubject is the longest subject (ecosystem.md 3).
const maxSubject = 4096

// A selector is CLASS[:SUBJECT]: class has words of a-z, 0-9 and - joined by
// dots, or is "noun.*" or "*"; subject is everything after the first colon.
type selector struct {
	class, subject string
	hasSubject     bool
}

// String is the form that parseSelector reads.
func (s selector) String() string {
	if s.subject == "" {
		return s.class
	}
	return s.class + ":" + s.subject
}

// parseSelector checks the form only; whether there is such a class is the
// catalogue's to say.
func parseSelector(text string) (selector, error) {
	var s selector
	s.class, s.subject, s.hasSubject = strings.Cut(text, ":")
	switch {
	case s.class == "":
		return s, usagef("%q: a selector is CLASS or CLASS:SUBJECT; belfry event types lists the classes", text)
	case !validClass(s.class):
		return s, usagef("%q is no class: words of a-z, 0-9 and - joined by dots, or noun.*, or *", s.class)
	case s.hasSubject && s.subject == "":
		return s, usagef("%q: nothing after the colon; write CLASS:SUBJECT, or CLASS alone", text)
	case len(s.subject) > maxSubject:
		return s, usagef("the subject of %s has %d bytes; at most %d", s.class, len(s.subject), maxSubject)
	case !utf8.ValidString(s.subject):
		return s, usagef("the subject of %s is not UTF-8: %q", s.class, s.subject)
	case strings.ContainsFunc(s.subject, unicode.IsControl):
		return s, usagef("the subject of %s holds a control character: %q", s.class, s.subject)
	}
	return s, nil
}

func validClass(class string) bool {
	if class == "*" {
		return true
	}
	words := strings.Split(class, ".")
	for i, word := range words {
		if word == "*" && i > 0 && i == len(words)-1 {
			continue
		}
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// manyClasses tells whether the class is a pattern.
func (s selector) manyClasses() bool { return strings.HasSuffix(s.class, "*") }

// isPattern tells whether the subject has a star that is not escaped.
func (s selector) isPattern() bool {
	escaped := false
	for _, r := range s.subject {
		if r == '*' && !escaped {
			return true
		}
		escaped = r == '\\' && !escaped
	}
	return false
}
