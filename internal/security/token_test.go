package security

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

const tokenLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func TestTokensReadBack(t *testing.T) {
	town := newTown(t)
	for range 100 {
		want := NewToken(town.Cluster, town.CA.Certificate)
		if got, err := ParseToken(want.Text()); err != nil || got != want {
			t.Fatalf("%v: %v, want %v", got, err, want)
		}
	}
}

func TestTokenDoesNotPrintItsSecret(t *testing.T) {
	town := newTown(t)
	token := NewToken(town.Cluster, town.CA.Certificate)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if text := fmt.Sprintf(verb, token.Secret); text != "secret" {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	_, err := ParseToken(token.Text()[:90])
	if err == nil || strings.Contains(err.Error(), token.Text()[8:40]) {
		t.Errorf("the error repeats the token: %v", err)
	}
}

// 10,000 tokens with a wrong character, two exchanged, one lost or one too
// many: none reads as a token.
func TestTenThousandMistypedTokensAreRefused(t *testing.T) {
	town := newTown(t)
	random := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for refused < 10_000 {
		text := NewToken(town.Cluster, town.CA.Certificate).Text()
		at := len(tokenPrefix) + random.IntN(len(text)-len(tokenPrefix)-1)
		wrong := []byte(text)
		switch random.IntN(4) {
		case 0:
			wrong[at] = tokenLetters[random.IntN(len(tokenLetters))]
		case 1:
			wrong[at], wrong[at+1] = wrong[at+1], wrong[at]
		case 2:
			wrong = slices.Delete(wrong, at, at+1)
		case 3:
			wrong = slices.Insert(wrong, at, 'A')
		}
		if string(wrong) == text {
			continue // the same character again
		}
		if got, err := ParseToken(string(wrong)); !errors.Is(err, belfry.ErrUsage) || got != (Token{}) {
			t.Fatalf("character %d: %v, %v", at, got, err)
		}
		refused++
	}
	t.Logf("%d mistyped tokens, 0 accepted", refused)
}

// FuzzToken: what reads as a token is written the same.
func FuzzToken(f *testing.F) {
	f.Add("")
	f.Add("belfry2.AAAA")
	f.Add(tokenPrefix)
	f.Add(Token{ID: TokenID{1}, Secret: TokenSecret{2}}.Text())
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			if token != (Token{}) || !errors.Is(err, belfry.ErrUsage) {
				t.Fatalf("%v beside %v", token, err)
			}
			return
		}
		if token.Text() != text {
			t.Fatalf("written as another text than was read")
		}
	})
}
