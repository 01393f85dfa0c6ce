package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
)

// A catalogue is the classes of events that an agent knows, by name. It is
// asked before anything is registered, so that wrong use is refused with the
// right words and nothing is half-done.
type catalogue []*belfryv1.ClassInfo

func catalogueOf(ctx context.Context, c *client.Client) (catalogue, error) {
	classes, err := c.Classes(ctx, "")
	return classes, err
}

func (c catalogue) names() []string {
	names := make([]string, len(c))
	for i, info := range c {
		names[i] = info.GetClass()
	}
	return names
}

// match is the classes that a selector's class stands for: one, or those that
// a pattern matches.
func (c catalogue) match(class string) (catalogue, error) {
	var matching catalogue
	for _, info := range c {
		if classMatches(class, info) {
			matching = append(matching, info)
		}
	}
	if len(matching) > 0 {
		return matching, nil
	}
	if near, ok := config.Nearest(class, c.names()); ok {
		return nil, usagef("unknown class %q; did you mean %s? (belfry event types lists all)", class, near)
	}
	return nil, usagef("unknown class %q; belfry event types lists all", class)
}

func classMatches(class string, info *belfryv1.ClassInfo) bool {
	if class == info.GetClass() || class == "*" {
		return true
	}
	if prefix, ok := strings.CutSuffix(class, "*"); ok {
		return strings.HasPrefix(info.GetClass(), prefix)
	}
	if prefix, ok := strings.CutSuffix(info.GetClass(), "*"); ok && info.GetCustom() {
		return strings.HasPrefix(class, prefix) && len(class) > len(prefix)
	}
	return false
}

// check refuses what can not be registered for, whoever asks.
func (c catalogue) check(s selector) (catalogue, error) {
	classes, err := c.match(s.class)
	if err != nil || s.manyClasses() {
		return classes, err
	}
	info := classes[0]
	switch {
	case s.subject != "" && info.GetSubject() == "":
		return nil, usagef("%s: %s has no subject; write %s", s, s.class, s.class)
	case s.subject == "" && info.GetSubject() != "" && !info.GetOptional():
		return nil, usagef("%s needs a subject; write %s:SUBJECT, where SUBJECT is %s", s.class, s.class, info.GetSubject())
	case s.isPattern() && !info.GetGlobs() && !literalKind(s.subject, info):
		return nil, usagef("%s: %s takes no patterns; name one subject, and write \\* for a star in it", s, s.class)
	}
	return classes, absolute(s, info.GetSubject())
}

// literalKind tells whether a star in a subject of this kind is a star.
func literalKind(subject string, info *belfryv1.ClassInfo) bool {
	kind, _, ok := strings.Cut(subject, "=")
	return ok && slices.Contains(info.GetLiteralKinds(), kind)
}

// absolute refuses a relative path where the class has paths: the agent does
// not know the directory of whoever asks. forms is the class's subject, for
// example "exe=PATH | pid=N".
func absolute(s selector, forms string) error {
	for form := range strings.SplitSeq(forms, "|") {
		form, _, _ = strings.Cut(form, ",") // what follows is for people
		prefix, _, isPath := strings.Cut(strings.TrimSpace(form), "/")
		rest, fits := strings.CutPrefix(s.subject, prefix)
		if !isPath || !fits || s.subject == "" || prefix == "" && hasOtherForm(s.subject, forms) {
			continue
		}
		if strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "*") {
			continue
		}
		here, err := os.Getwd()
		if err != nil {
			here = "/"
		}
		right := s
		right.subject = prefix + filepath.Join(here, rest)
		return usagef("%s: %q is a relative path; write %s", s, rest, right)
	}
	return nil
}

// hasOtherForm tells whether subject begins like one of the forms with a
// prefix, or is a word where one of them is, so that it is no bare path. Which
// words there are is the agent's to say.
func hasOtherForm(subject, forms string) bool {
	for form := range strings.SplitSeq(forms, "|") {
		form = strings.TrimSpace(form)
		if isWord(form) && isWord(subject) {
			return true
		}
		if i := strings.IndexAny(form, "=:"); i > 0 && strings.HasPrefix(subject, form[:i+1]) {
			return true
		}
	}
	return false
}

func isWord(s string) bool { return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") == "" }

// unit is the unit in which all value classes among these are measured; empty
// if there is none.
func (c catalogue) unit(flag, value string, s selector) (string, error) {
	unit := ""
	for _, info := range c {
		switch {
		case info.GetUnit() == "":
		case unit == "" || unit == info.GetUnit():
			unit = info.GetUnit()
		default:
			return "", usagef("--%s %s: %s has classes with different units; name one class", flag, value, s.class)
		}
	}
	if unit == "" {
		return "", usagef("--%s %s: %s has no value to compare; leave --%s out", flag, value, s.class, flag)
	}
	return unit, nil
}

// needsThreshold tells whether nothing would ever come without one: a value
// class of one subject.
func (c catalogue) needsThreshold(s selector, t belfry.Threshold) error {
	all := s.manyClasses() || s.isPattern() || s.subject == "" && c[0].GetSubject() != ""
	if !t.IsZero() || all || c[0].GetKind() != belfry.Value.String() {
		return nil
	}
	return failf(belfry.ErrNoThreshold, "%s is a value and needs a threshold; add --over or --under, for example --over %s", s, exampleOf(c[0].GetUnit()))
}
