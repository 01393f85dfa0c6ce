package event

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
)

// hasGlob tells whether s has a star that is not escaped as `\*`.
func hasGlob(s string) bool {
	for i := range len(s) {
		if s[i] == '*' && (i == 0 || s[i-1] != '\\') {
			return true
		}
	}
	return false
}

// literal is the subject that a pattern without stars names.
func literal(pattern string) string { return strings.ReplaceAll(pattern, `\*`, `*`) }

// matchGlob tells whether a subject fits a pattern: `*` stands for any text
// without a slash, `**` for any text, `\*` for a star. It works on the set of
// pattern positions that can be reached, so that its time is bounded by the
// product of the lengths whatever somebody writes.
func matchGlob(pattern, subject string) bool {
	tokens := globTokens(pattern)
	var store [2][64]bool
	var now, next []bool
	if len(tokens) < len(store[0]) {
		now, next = store[0][:len(tokens)+1], store[1][:len(tokens)+1]
	} else {
		now, next = make([]bool, len(tokens)+1), make([]bool, len(tokens)+1)
	}
	now[0] = true
	skipStars(tokens, now)
	for i := range len(subject) {
		clear(next)
		alive := false
		for at, reached := range now[:len(tokens)] {
			if !reached {
				continue
			}
			switch t := tokens[at]; {
			case t == anyText, t == anyName && subject[i] != '/':
				next[at], alive = true, true
			case t == int16(subject[i]):
				next[at+1], alive = true, true
			}
		}
		if !alive {
			return false
		}
		skipStars(tokens, next)
		now, next = next, now
	}
	return now[len(tokens)]
}

// The tokens that are not bytes.
const (
	anyName int16 = -1 // *
	anyText int16 = -2 // **
)

func globTokens(pattern string) []int16 {
	tokens := make([]int16, 0, len(pattern))
	for i := 0; i < len(pattern); i++ {
		switch {
		case strings.HasPrefix(pattern[i:], `\*`):
			tokens = append(tokens, '*')
			i++
		case strings.HasPrefix(pattern[i:], "**"):
			tokens = append(tokens, anyText)
			i++
		case pattern[i] == '*':
			tokens = append(tokens, anyName)
		default:
			tokens = append(tokens, int16(pattern[i]))
		}
	}
	return tokens
}

// skipStars follows the stars that stand for nothing.
func skipStars(tokens []int16, reached []bool) {
	for at, t := range tokens {
		if t < 0 && reached[at] {
			reached[at+1] = true
		}
	}
}

// matchClass tells whether a class fits the class of a registration: itself,
// "noun.*" or "*".
func matchClass(pattern string, class belfry.Class) bool {
	if pattern == "*" {
		return true
	}
	if noun, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(string(class), noun)
	}
	return pattern == string(class)
}

// classPattern tells whether class stands for several classes.
func classPattern(class string) bool { return class == "*" || strings.HasSuffix(class, ".*") }

// validClass tells whether s is words of [a-z0-9-] joined by dots.
func validClass(s string) bool {
	for word := range strings.SplitSeq(s, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// checkSubject holds what every subject must be (ecosystem.md 3).
func checkSubject(subject string) error {
	switch {
	case len(subject) > maxSubject:
		return refusal(belfry.ErrUsage, "the subject has %d bytes; at most %d are allowed", len(subject), maxSubject)
	case !utf8.ValidString(subject):
		return refusal(belfry.ErrUsage, "the subject %q is not UTF-8; write it as UTF-8 text", short(subject))
	case strings.ContainsFunc(subject, unicode.IsControl):
		return refusal(belfry.ErrUsage, "the subject %q has control characters; leave them out", short(subject))
	}
	return nil
}

// short keeps an error readable when the offending value is not.
func short(s string) string {
	if len(s) <= 80 {
		return s
	}
	return s[:80] + "…"
}

// subjectKind is the word before '=' in "unit=nginx.service"; empty if there is none.
func subjectKind(subject string) string {
	kind, _, ok := strings.Cut(subject, "=")
	if !ok || strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return ""
	}
	return kind
}

// A classTable finds the description of a class.
type classTable struct {
	sorted []belfry.ClassInfo // by Class
	exact  map[belfry.Class]*belfry.ClassInfo
	custom []*belfry.ClassInfo // "user.*"
}

func newClassTable(classes []belfry.ClassInfo) classTable {
	t := classTable{sorted: slices.Clone(classes), exact: map[belfry.Class]*belfry.ClassInfo{}}
	slices.SortFunc(t.sorted, func(a, b belfry.ClassInfo) int { return strings.Compare(string(a.Class), string(b.Class)) })
	for i := range t.sorted {
		c := &t.sorted[i]
		if c.Custom {
			t.custom = append(t.custom, c)
		} else {
			t.exact[c.Class] = c
		}
	}
	return t
}

// find returns nil for a class that nobody produces. A custom class stands
// for every well-formed name below it.
func (t *classTable) find(class belfry.Class) *belfry.ClassInfo {
	if c := t.exact[class]; c != nil {
		return c
	}
	for _, c := range t.custom {
		if matchClass(string(c.Class), class) && validClass(string(class)) {
			return c
		}
	}
	return nil
}

// matching lists the classes that a class pattern stands for, sorted.
func (t *classTable) matching(pattern string) (infos []*belfry.ClassInfo) {
	for i := range t.sorted {
		c := &t.sorted[i]
		if matchClass(pattern, c.Class) || c.Custom && strings.HasPrefix(strings.TrimSuffix(pattern, "*"), strings.TrimSuffix(string(c.Class), "*")) {
			infos = append(infos, c)
		}
	}
	return infos
}

// unknown says that there is no such class, and which one may have been meant.
func (t *classTable) unknown(class string) error {
	const all = "(belfry event types lists all)"
	best, distance := "", 4
	for i := range t.sorted {
		name := string(t.sorted[i].Class)
		if d := editDistance(class, name, distance); d < distance {
			best, distance = name, d
		}
	}
	if best == "" {
		return refusal(belfry.ErrUsage, "unknown class %q %s", short(class), all)
	}
	return refusal(belfry.ErrUsage, "unknown class %q; did you mean %s? %s", short(class), best, all)
}

// editDistance counts insertions, deletions and replacements (Levenshtein
// 1966); limit if there are as many or more.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return min(row[len(b)], limit)
}
