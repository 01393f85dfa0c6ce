package security

import (
	"crypto/rand"
	"testing"
)

func TestTokensAreHiddenWhereverTheyStand(t *testing.T) {
	t.Parallel()
	var token Token
	_, _ = rand.Read(token.Secret[:]) // never fails
	text := token.Text()
	for in, want := range map[string]string{
		text:                          "[token]",
		"x" + text + ": not a token":  "x[token]: not a token",
		`"` + text + `", ` + text:     `"[token]", [token]`,
		text[:len(text)-1]:            "[token]",
		"belfry1.example.com:7432":    "belfry1.example.com:7432",
		"a token begins with belfry1": "a token begins with belfry1",
	} {
		if got := HideTokens(in); got != want {
			t.Errorf("%s: %s; want %s", in, got, want)
		}
	}
}
