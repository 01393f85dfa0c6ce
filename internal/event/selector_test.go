package event

import (
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestGlobsMatchWithinAndAcrossSegments(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, subject string
		want             bool
	}{
		{"/etc/*", "/etc/passwd", true},
		{"/etc/*", "/etc/ssl/cert", false},
		{"/etc/*", "/etc/", true},
		{"/etc/**", "/etc/ssl/cert", true},
		{"/etc/**", "/etc", false},
		{"**/cert", "/etc/ssl/cert", true},
		{"/*/ssl/*", "/etc/ssl/cert", true},
		{"/*/ssl/*", "/etc/x/ssl/cert", false},
		{`/a\*b`, "/a*b", true},
		{`/a\*b`, "/axb", false},
		{`/a\**`, "/a*xyz", true},
		{"*", "", true},
		{"", "", true},
		{"", "a", false},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "axxbyy", false},
		{"***", "a/b", true},
		{"ü*", "üb", true},
	}
	for _, tt := range tests {
		if got := matchGlob(tt.pattern, tt.subject); got != tt.want {
			t.Errorf("%q on %q: want %v, got %v", tt.pattern, tt.subject, tt.want, got)
		}
	}
}

// TestGlobsAgreeWithPathMatch compares with the standard library where the two
// mean the same: patterns of letters, slashes and single stars.
func TestGlobsAgreeWithPathMatch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`([ab/]|\*[ab/]){0,8}\*?`).Draw(t, "pattern")
		subject := rapid.StringMatching(`[ab/]{0,10}`).Draw(t, "subject")
		want, err := path.Match(pattern, subject)
		if err != nil {
			t.Fatal(err)
		}
		if got := matchGlob(pattern, subject); got != want {
			t.Fatalf("%q on %q: want %v, got %v", pattern, subject, want, got)
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("/etc/**", "/etc/ssl/cert")
	f.Add(`\*`, "*")
	f.Add("***********a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaab")
	f.Fuzz(func(t *testing.T, pattern, subject string) {
		if len(pattern)+len(subject) > 2*maxSubject {
			return
		}
		got := matchGlob(pattern, subject)
		if !hasGlob(pattern) && !strings.Contains(pattern, `\*`) && got != (pattern == subject) {
			t.Errorf("%q on %q: got %v", pattern, subject, got)
		}
		if !matchGlob("**", subject) {
			t.Errorf("** does not match %q", subject)
		}
	})
}

func TestAWordIsAsFarAsItsEdits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b string
		want int
	}{{"file.modfy", "file.modify", 1}, {"same", "same", 0}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"short", "very much longer", 9}}
	for _, tt := range tests {
		if got := editDistance(tt.a, tt.b, 9); got != tt.want {
			t.Errorf("%q to %q: want %d, got %d", tt.a, tt.b, tt.want, got)
		}
	}
}

// TestSameInputsGiveSameOutputs plays one random history twice. It catches map
// order where it can be seen.
func TestSameInputsGiveSameOutputs(t *testing.T) {
	t.Parallel()
	history := func() string {
		rng := rand.New(rand.NewPCG(7, 7))
		w := newWorld()
		var out strings.Builder
		for _, name := range []string{"a", "b", "c"} {
			w.do(t, "node "+name)
			w.do(t, name+" open 1")
			w.do(t, name+" open 2")
		}
		subjects := []string{"user.x:1", "user.x:2", "user.x:*", "user.*", "user.y:3"}
		links := []string{"a b", "b c", "a c"}
		for i := range 600 {
			node := string("abc"[rng.IntN(3)])
			c := string("12"[rng.IntN(2)])
			var line string
			switch rng.IntN(8) {
			case 0:
				line = node + " register " + c + " " + itoa(i) + " " + subjects[rng.IntN(5)] + [...]string{"", " cluster"}[rng.IntN(2)]
			case 1:
				line = node + " unregister " + c + " " + itoa(rng.IntN(i+1))
			case 2:
				line = [...]string{"join ", "join ", "cut "}[rng.IntN(3)] + links[rng.IntN(3)]
			case 3:
				line = node + " ready " + c
			case 4:
				line = node + " ack " + c + " " + itoa(i)
			default:
				line = node + " send " + subjects[[...]int{0, 1, 4}[rng.IntN(3)]] + " x=" + itoa(1+rng.IntN(3))
			}
			out.WriteString(w.do(t, line))
			out.WriteString(w.do(t, node+" status"))
		}
		return out.String()
	}
	first := history()
	if len(first) < 10_000 {
		t.Fatalf("only %d bytes happened", len(first))
	}
	for range 3 {
		if diff := cmp.Diff(first, history()); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
	}
}
