package license

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// A forger has signed files of every kind and no key.
type forger struct {
	rng  *rand.Rand
	text [][]byte // what was signed, as text
	raw  [][]byte // and as the bytes inside
}

// forge changes one of the files in one of three depths: its text, the bytes
// inside, or its JSON in a way that keeps it in the right form.
func (f *forger) forge() []byte {
	i := f.rng.IntN(len(f.text))
	switch n := f.rng.IntN(200); {
	case n < 170:
		return f.edit(f.text[i], f.text)
	case n < 199:
		return armor(licenses.label, f.edit(f.raw[i], f.raw))
	}
	return f.claim(f.raw[i])
}

// edit makes one to four small changes.
func (f *forger) edit(text []byte, others [][]byte) []byte {
	out := bytes.Clone(text)
	for range 1 + f.rng.IntN(4) {
		if len(out) == 0 {
			break
		}
		i := f.rng.IntN(len(out))
		j := i + f.rng.IntN(min(len(out)-i, 40))
		switch f.rng.IntN(8) {
		case 0:
			out[i] ^= 1 << f.rng.IntN(8)
		case 1:
			out[i] = byte(f.rng.IntN(256))
		case 2: // a character that base64 and JSON know
			const known = `ABCXYZabcxyz0123456789+/="{}[]:,.-`
			out[i] = known[f.rng.IntN(len(known))]
		case 3: // left out
			out = append(out[:i], out[j:]...)
		case 4: // twice
			out = append(out[:j:j], out[i:]...)
		case 5: // out of another file, from the same place
			other := others[f.rng.IntN(len(others))]
			if j < len(other) {
				copy(out[i:j], other[i:j])
			}
		case 6: // the end of another file
			other := others[f.rng.IntN(len(others))]
			if k := len(other) - (len(out) - i); k >= 0 {
				out = append(out[:i], other[k:]...)
			}
		case 7:
			k := f.rng.IntN(len(out))
			out[i], out[k] = out[k], out[i]
		}
	}
	return out
}

// claim keeps key id and signature, and grants something else.
func (f *forger) claim(raw []byte) []byte {
	payload := string(raw[headerSize : len(raw)-ed25519.SignatureSize])
	changes := []struct{ old, with string }{
		{`"nodes":4`, fmt.Sprintf(`"nodes":%d`, f.rng.IntN(1000))},
		{`"not_after":"2026`, fmt.Sprintf(`"not_after":"%d`, 2027+f.rng.IntN(900))},
		{`"grace_days":14`, fmt.Sprintf(`"grace_days":%d`, f.rng.IntN(367))},
		{`"license_id":"L1"`, fmt.Sprintf(`"license_id":"L%d"`, 2+f.rng.IntN(1e6))},
		{`"product":"acme-db"`, `"product":"other"`},
		{`"cluster":"c1000000-0000-0000-0000-000000000001"`, fmt.Sprintf(`"cluster":"c1000000-0000-0000-0000-%012x"`, 2+f.rng.IntN(1<<30))},
		{`"cluster":"c1000000-0000-0000-0000-000000000001"`, `"any":true`},
		{`"features":["backup"`, `"features":["all","backup"`},
	}
	c := changes[f.rng.IntN(len(changes))]
	forged := strings.Replace(payload, c.old, c.with, 1)
	file := File{key: KeyID(raw[1:]), payload: []byte(forged)}
	if f.rng.IntN(4) == 0 {
		file.key = KeyIDOf(public(secondKey))
	}
	copy(file.signature[:], raw[len(raw)-ed25519.SignatureSize:])
	return file.Encode()
}

// TestNoForgedFileIsAccepted changes signed files at random. What is accepted
// must be one of them to the byte, and must not panic. X26.
func TestNoForgedFileIsAccepted(t *testing.T) {
	t.Parallel()
	var f forger
	genuine := map[string]bool{}
	for _, text := range [][]byte{
		signed(t, annual()), signed(t, fullLicense()), signedBy(t, annual(), secondKey), signedBy(t, annual(), rogueKey),
		signedBy(t, with(annual(), func(l *License) { l.Product = "other" }), otherKey),
	} {
		raw, err := dearmor(licenses.label, text)
		if err != nil {
			t.Fatal(err)
		}
		f.text, f.raw = append(f.text, text), append(f.raw, raw)
		genuine[string(text)] = true
	}
	// A list is never a license, whole or in part.
	list := revoking(t, vendorKey, 1, "L1")
	raw, err := dearmor(revocations.label, list)
	if err != nil {
		t.Fatal(err)
	}
	f.text, f.raw = append(f.text, list), append(f.raw, raw)

	workers := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var forged, judged int // changed files, and those of them that only the signature tells from a genuine one
	for w := range workers {
		mine := forger{rng: rand.New(rand.NewPCG(2026, uint64(w))), text: f.text, raw: f.raw}
		wg.Go(func() {
			n, tried := 0, 0
			for n < (forgeries+workers-1)/workers {
				text := mine.forge()
				if genuine[string(text)] {
					continue
				}
				n++
				file, err := Parse(text)
				if err != nil {
					continue
				}
				tried++
				if !bytes.Equal(file.Encode(), text) {
					t.Errorf("read and written again, another file:\n%s", text)
					break
				}
				if _, err := file.Verify(testIssuers); err == nil {
					t.Errorf("a forged file is accepted:\n%s", text)
					break // one says it
				}
			}
			mu.Lock()
			defer mu.Unlock()
			forged, judged = forged+n, judged+tried
		})
	}
	wg.Wait()
	t.Logf("%d forged files, %d of them in the right form", forged, judged)
	if judged < forged/100 {
		t.Errorf("%d of %d forged files came as far as the signature; the forger is too clumsy to show anything", judged, forged)
	}
}

// TestEveryFlippedBitIsRefused is the same in order: each bit of the text, and
// each of the bytes inside.
func TestEveryFlippedBitIsRefused(t *testing.T) {
	t.Parallel()
	good := signed(t, fullLicense())
	raw, err := dearmor(licenses.label, good)
	if err != nil {
		t.Fatal(err)
	}
	accepted := func(text []byte) bool {
		file, err := Parse(text)
		if err == nil {
			_, err = file.Verify(testIssuers)
		}
		return err == nil
	}
	if !accepted(good) {
		t.Fatal("the file is refused before it was changed")
	}
	for i := range good {
		for bit := range 8 {
			text := bytes.Clone(good)
			text[i] ^= 1 << bit
			if accepted(text) {
				t.Fatalf("accepted with bit %d of byte %d of the text flipped", bit, i)
			}
		}
	}
	for i := range raw {
		for bit := range 8 {
			inside := bytes.Clone(raw)
			inside[i] ^= 1 << bit
			if accepted(armor(licenses.label, inside)) {
				t.Fatalf("accepted with bit %d of byte %d flipped", bit, i)
			}
		}
	}
}
