package security

import (
	"net/url"
	"testing"
)

// FuzzIdentity: a name that is read is written the same, so that no two
// spellings stand for one node or client.
func FuzzIdentity(f *testing.F) {
	const cluster = "belfry://00000000-0000-4000-8000-000000000001"
	for _, text := range []string{
		cluster + "/node/00000000-0000-4000-8000-000000000002", cluster + "/client/web", cluster + "/client/a/b", cluster + "/ca",
		cluster + "/node/00000000-0000-0000-0000-000000000000", cluster + ":7432/client/web", cluster + "/client/web#x",
		"belfry:/client/web", "belfry://u@00000000-0000-4000-8000-000000000001/client/w%65b", "",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		id, err := parseIdentity(u)
		if err != nil {
			if id != (Identity{}) {
				t.Fatalf("%q: %v beside the error %v", text, id, err)
			}
			return
		}
		if got := id.URI().String(); got != u.String() {
			t.Fatalf("%q is read as %v, which is written %q", text, id, got)
		}
		if id.Node.IsZero() == (id.Client == "") {
			t.Fatalf("%q is both node and client, or neither: %v", text, id)
		}
	})
}
