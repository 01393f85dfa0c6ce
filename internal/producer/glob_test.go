package producer_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry/internal/producer"
)

func TestAStarStaysWithinASegmentAndTwoDoNot(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, subject string
		want             bool
	}{
		{"", "anything/at all", true},
		{"/etc/*", "/etc/passwd", true},
		{"/etc/*", "/etc/ssl/certs", false},
		{"/etc/*", "/etc/", true},
		{"/etc/**", "/etc/ssl/certs", true},
		{"/etc/**.pem", "/etc/ssl/a.pem", true},
		{"/etc/**/*.pem", "/etc/ssl/a.pem", true},
		{"/**/x*z/**", "/a/b/xyz/c", true},
		{"/**/x*z/**", "/a/b/xy/z/c", false},
		{"*", "web", true},
		{"web-*", "web", false},
		{`a\*b`, "a*b", true},
		{`a\*b`, "axb", false},
		{`a\b`, `a\b`, true},
		{`a\\*`, `a\*`, true}, // a backslash, then an escaped star
		{"*a*b*", "xxabyy", true},
		{"abc", "abcd", false},
	}
	for _, test := range tests {
		if got := producer.Match(test.pattern, test.subject); got != test.want {
			t.Errorf("Match(%q, %q) = %v, want %v", test.pattern, test.subject, got, test.want)
		}
	}
}

// The model is a regular expression.
func TestMatchEqualsARegularExpression(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`([ab/]|\*|\*\*|\\\*){0,8}`).Draw(t, "pattern")
		subject := rapid.StringMatching(`[ab/*]{0,10}`).Draw(t, "subject")
		if pattern == "" {
			t.Skip("the empty pattern is not a glob")
		}
		model := regexp.QuoteMeta(pattern)
		model = strings.ReplaceAll(model, `\\\*`, "\x00")
		model = strings.ReplaceAll(model, `\*\*`, "\x01")
		model = strings.ReplaceAll(model, `\*`, `[^/]*`)
		model = strings.NewReplacer("\x00", `\*`, "\x01", `.*`).Replace(model)
		want := regexp.MustCompile("^(?s:" + model + ")$").MatchString(subject)
		if got := producer.Match(pattern, subject); got != want {
			t.Fatalf("Match(%q, %q) = %v, want %v by %s", pattern, subject, got, want, model)
		}
	})
}

func TestAPatternWithoutAStarIsOneSubject(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{`a\*b`: "a*b", `a\b`: `a\b`, "/etc": "/etc", `end\`: `end\`} {
		if producer.HasStar(pattern) {
			t.Errorf("HasStar(%q), want none", pattern)
		}
		if got := producer.Literal(pattern); got != want {
			t.Errorf("Literal(%q) = %q, want %q", pattern, got, want)
		}
	}
	for _, pattern := range []string{"*", `\b*`, "/etc/**"} {
		if !producer.HasStar(pattern) {
			t.Errorf("HasStar(%q) = false, want true", pattern)
		}
	}
}
