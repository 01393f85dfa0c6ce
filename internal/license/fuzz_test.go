package license

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is accepted has one form, and an independent reader accepts it too. A
// fuzzer seldom writes base64, so its bytes are tried inside the block and as
// a payload as well.
func FuzzParse(f *testing.F) {
	genuine := map[string]bool{}
	for _, text := range [][]byte{signed(f, annual()), signed(f, fullLicense())} {
		genuine[string(text)] = true
		f.Add(text)
	}
	for _, text := range [][]byte{signedBy(f, annual(), rogueKey), revoking(f, vendorKey, 1, "L1")} {
		f.Add(text)
	}
	file, err := Parse(signed(f, fullLicense()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file.payload)
	f.Add(append(file.frame(), file.signature[:]...))
	f.Fuzz(func(t *testing.T, input []byte) {
		unsigned := File{key: KeyIDOf(public(vendorKey)), payload: input}
		for _, text := range [][]byte{input, Tidy(input), armor(licenses.label, input), unsigned.Encode()} {
			accepted := checkForm(t, text)
			if accepted && !genuine[string(text)] {
				t.Errorf("a forged file is accepted:\n%s", text)
			}
		}
		for _, text := range [][]byte{input, armor(revocations.label, input)} {
			if r, err := ParseRevocations(text); err == nil && !bytes.Equal(r.Encode(), text) {
				t.Errorf("a list was read and written again:\n%s", cmp.Diff(string(text), string(r.Encode())))
			}
		}
	})
}

// checkForm tells whether the vendor's key has signed a file.
func checkForm(t *testing.T, text []byte) bool {
	t.Helper()
	file, err := Parse(text)
	if err != nil {
		return false
	}
	if !bytes.Equal(file.Encode(), text) {
		t.Errorf("read and written again:\n%s", cmp.Diff(string(text), string(file.Encode())))
	}
	_, err = file.Verify(testIssuers[:1])
	known := file.Unproven().Product == product
	if ok := known && independent("BELFRY LICENSE", "belfry-license-v1", text, public(vendorKey)); ok != (err == nil) {
		t.Errorf("accepted %t, by an independent reader %t:\n%s", err == nil, ok, text)
	}
	return err == nil
}
