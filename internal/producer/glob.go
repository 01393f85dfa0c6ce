package producer

import "strings"

// Match tells whether a subject is one of a pattern's: * stands for any
// characters but /, ** for any, and \* for a star. The empty pattern is left
// out by the user and means every subject.
func Match(pattern, subject string) bool {
	if pattern == "" {
		return true
	}
	return match(pattern, subject)
}

// match goes back only to the last * of each kind: what an earlier one of the
// same reach could take, the later one can take as well. A ** behind a *
// makes the * final, not the other way round, so one mark each is enough and
// the time is at most len(pattern) * len(subject).
func match(pattern, subject string) bool {
	type mark struct{ p, s int }
	one, all := mark{-1, 0}, mark{-1, 0}
	p, s := 0, 0
	for {
		switch {
		case strings.HasPrefix(pattern[p:], "**"):
			p += 2
			all, one = mark{p, s}, mark{-1, 0}
			continue
		case strings.HasPrefix(pattern[p:], "*"):
			p++
			one = mark{p, s}
			continue
		}
		if p == len(pattern) && s == len(subject) {
			return true
		}
		if n, c := literal(pattern[p:]); n > 0 && s < len(subject) && subject[s] == c {
			p, s = p+n, s+1
			continue
		}
		switch { // no way on from here: let a star take one more
		case one.p >= 0 && one.s < len(subject) && subject[one.s] != '/':
			one.s++
			p, s = one.p, one.s
		case all.p >= 0 && all.s < len(subject):
			all.s++
			one = mark{-1, 0}
			p, s = all.p, all.s
		default:
			return false
		}
	}
}

// literal is the first character of a pattern that does not begin with a
// star, and how many bytes it takes there; 0 bytes at the end.
func literal(pattern string) (n int, c byte) {
	switch {
	case pattern == "":
		return 0, 0
	case strings.HasPrefix(pattern, `\*`):
		return 2, '*'
	}
	return 1, pattern[0]
}

// HasStar tells whether a pattern, or a part of one, stands for more than one subject.
func HasStar(pattern string) bool {
	for pattern != "" {
		if pattern[0] == '*' {
			return true
		}
		n, _ := literal(pattern)
		pattern = pattern[n:]
	}
	return false
}

// Literal is the one subject of a pattern without a star.
func Literal(pattern string) string {
	var b strings.Builder
	for pattern != "" {
		n, c := literal(pattern)
		b.WriteByte(c)
		pattern = pattern[n:]
	}
	return b.String()
}
