package license

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var update = flag.Bool("update", false, "rewrite the golden file; read the diff")

// fullLicense has something in each field.
func fullLicense() License {
	l := annual()
	l.Binding = Binding{Nodes: []belfry.NodeID{node(1), node(2)}}
	l.Capacity = Capacity{Nodes: 4, Cores: 64, MemoryBytes: 1 << 40}
	l.MaintenanceUntil, l.Supersedes = at("2026-06-30T23:59:59Z"), []ID{"T-1", "T-2"}
	l.Customer = `Müller & Söhne "Nord" <köln>`
	return l
}

func TestGoldenFile(t *testing.T) {
	t.Parallel()
	const name = "testdata/license.pem"
	text := signed(t, fullLicense())
	if *update {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("the form of a license has changed (-want +got):\n%s", diff)
	}
	const payload = `{"license_id":"L1","product":"acme-db","edition":"standard","features":["backup","replica"],` +
		`"binding":{"nodes":["a0000000-0000-0000-0000-000000000001","a0000000-0000-0000-0000-000000000002"]},` +
		`"capacity":{"nodes":4,"cores":64,"memory_bytes":1099511627776},"not_before":"2026-01-01T00:00:00Z",` +
		`"not_after":"2026-12-31T23:59:59Z","grace_days":14,"maintenance_until":"2026-06-30T23:59:59Z",` +
		`"issued_at":"2025-12-15T10:20:30Z","supersedes":["T-1","T-2"],"customer":"Müller & Söhne \"Nord\" <köln>"}`
	f, err := Parse(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(payload, string(f.payload)); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
}

// independent checks a file by the description, with nothing of this package:
// it is what a vendor's program does with the bytes that it is handed.
func independent(label, domain string, text []byte, key ed25519.PublicKey) bool {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != label || len(block.Headers) > 0 || len(rest) > 0 || len(block.Bytes) < 77 {
		return false
	}
	raw := block.Bytes
	n := int(binary.LittleEndian.Uint32(raw[9:13]))
	if raw[0] != 1 || 13+n+64 != len(raw) {
		return false
	}
	id := sha256.Sum256(key)
	message := slicesOf([]byte(domain+"\x00"), raw[:9], raw[13:13+n])
	return bytes.Equal(id[:8], raw[1:9]) && ed25519.Verify(key, message, raw[13+n:])
}

func slicesOf(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestWhatIsSignedIsReadAgain(t *testing.T) {
	t.Parallel()
	bare := License{ID: "x", Product: product, Binding: Binding{Any: true}, IssuedAt: at("2026-01-01")}
	for _, l := range []License{annual(), fullLicense(), bare} {
		text := signed(t, l)
		if !independent("BELFRY LICENSE", "belfry-license-v1", text, public(vendorKey)) {
			t.Errorf("%s: an independent reader does not accept\n%s", l.ID, text)
		}
		f, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Encode(), text) {
			t.Errorf("%s: read and written again:\n%s", l.ID, cmp.Diff(string(text), string(f.Encode())))
		}
		got, err := f.Verify(testIssuers)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(l.normal(), got); diff != "" {
			t.Errorf("%s (-signed +read):\n%s", l.ID, diff)
		}
	}
}

// Sets are sorted, zones and the rest of what has two forms are gone: the same
// grant is the same file.
func TestSignWritesOneForm(t *testing.T) {
	t.Parallel()
	l := fullLicense()
	shuffled := fullLicense()
	shuffled.Features = []string{"replica", "backup"}
	shuffled.Supersedes = []ID{"T-2", "T-1"}
	shuffled.Binding.Nodes = []belfry.NodeID{node(2), node(1)}
	shuffled.NotAfter = shuffled.NotAfter.In(time.FixedZone("", 3600))
	if diff := cmp.Diff(string(signed(t, l)), string(signed(t, shuffled))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"replica", "backup"}, shuffled.Features); diff != "" {
		t.Errorf("Sign has changed what it was given: %s", diff)
	}
}

func TestFilesAreAtMost64KiB(t *testing.T) {
	t.Parallel()
	l := with(annual(), func(l *License) { l.Binding = Binding{} })
	for n := range maxList {
		l.Binding.Nodes = append(l.Binding.Nodes, node(n+1))
	}
	if text := signed(t, l); len(text) > MaxFile {
		t.Errorf("a license for %d nodes has %d bytes", maxList, len(text))
	}
	for i := range 250 {
		l.Features = append(l.Features, strings.Repeat("f", 60)+string(rune('a'+i/26))+string(rune('a'+i%26)))
	}
	_, err := Sign(l, vendorKey)
	if !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("too much to grant: %v, want ErrLimit", err)
	}
	if _, err := Parse(bytes.Repeat([]byte("A"), MaxFile+1)); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("65,537 bytes: %v, want ErrLimit", err)
	}
	if _, err := Parse(bytes.Repeat([]byte("A"), MaxFile)); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("65,536 bytes: %v, want ErrUsage", err)
	}
}

// rearmored is a file whose bytes inside were changed.
func rearmored(t testing.TB, text []byte, change func([]byte) []byte) []byte {
	t.Helper()
	raw, err := dearmor(licenses.label, text)
	if err != nil {
		t.Fatal(err)
	}
	return armor(licenses.label, change(raw))
}

// framed is a file with this payload, signed by the vendor whatever it says.
func framed(payload string) []byte {
	f := File{key: KeyIDOf(public(vendorKey)), payload: []byte(payload)}
	copy(f.signature[:], ed25519.Sign(vendorKey, f.message()))
	return f.Encode()
}

func TestOneBlockAndNothingBesideIt(t *testing.T) {
	t.Parallel()
	good := string(padded(t))
	begin, end := boundaries(licenses.label)
	body := strings.TrimSuffix(strings.TrimPrefix(good, begin), end)
	revoked := string(revoking(t, vendorKey, 1, "L1"))
	for name, text := range map[string]string{
		"empty":                       "",
		"text before":                 "see below\n" + good,
		"text behind":                 good + "see above\n",
		"a blank before":              " " + good,
		"an empty line behind":        good + "\n",
		"no last newline":             strings.TrimSuffix(good, "\n"),
		"carriage returns":            strings.ReplaceAll(good, "\n", "\r\n"),
		"twice":                       good + good,
		"two blocks in one":           begin + body + end + begin + body + end,
		"a header":                    begin + "Issuer: acme\n\n" + body + end,
		"another label":               strings.ReplaceAll(good, "BELFRY LICENSE", "LICENSE"),
		"a revocation list":           revoked,
		"a list with this label":      strings.ReplaceAll(revoked, "REVOCATIONS", "LICENSE"),
		"no begin":                    body + end,
		"no end":                      begin + body,
		"begin and end are one":       "-----BEGIN BELFRY LICENSE-----\n",
		"an empty block":              begin + end,
		"lines of 76":                 begin + rewrapped(body, 76) + end,
		"an empty line inside":        begin + body[:65] + "\n" + body[65:] + end,
		"one long line":               begin + rewrapped(body, 1<<20) + end,
		"padding left out":            strings.TrimRight(strings.TrimSuffix(good, end), "=\n") + "\n" + end,
		"bits behind the padding set": looseBits(t, []byte(good)),
		"the URL's alphabet":          strings.NewReplacer("+", "-", "/", "_").Replace(good),
	} {
		if text == good {
			t.Errorf("%s: the test has changed nothing", name)
			continue
		}
		if _, err := Parse([]byte(text)); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s: %v, want ErrUsage", name, err)
		}
	}
}

// rewrapped is base64 in lines of another width.
func rewrapped(body string, width int) string {
	body = strings.ReplaceAll(body, "\n", "")
	var lines strings.Builder
	for len(body) > 0 {
		n := min(width, len(body))
		lines.WriteString(body[:n] + "\n")
		body = body[n:]
	}
	return lines.String()
}

// padded is a file that ends in ==, which a customer's name brings about.
func padded(t *testing.T) []byte {
	t.Helper()
	l := annual()
	for !bytes.Contains(signed(t, l), []byte("==\n")) {
		l.Customer += "."
	}
	return signed(t, l)
}

// looseBits is a file whose last character before the padding has bits set
// that mean nothing: of its six, only two count.
func looseBits(t *testing.T, good []byte) string {
	t.Helper()
	loose := bytes.Clone(good)
	loose[bytes.IndexByte(loose, '=')-1]++
	want, _ := pem.Decode(good)
	if got, _ := pem.Decode(loose); got == nil || !bytes.Equal(got.Bytes, want.Bytes) {
		t.Fatal("a lax reader reads something else")
	}
	return string(loose)
}

func TestFramesAreWhole(t *testing.T) {
	t.Parallel()
	good := signed(t, annual())
	for name, tt := range map[string]struct {
		change func([]byte) []byte
		want   error
	}{
		"version 0":             {func(b []byte) []byte { b[0] = 0; return b }, belfry.ErrUnsupported},
		"version 2":             {func(b []byte) []byte { b[0] = 2; return b }, belfry.ErrUnsupported},
		"length one less":       {func(b []byte) []byte { b[9]--; return b }, belfry.ErrUsage},
		"length one more":       {func(b []byte) []byte { b[9]++; return b }, belfry.ErrUsage},
		"length beyond all":     {func(b []byte) []byte { b[12] = 0xff; return b }, belfry.ErrUsage},
		"length in other order": {func(b []byte) []byte { b[9], b[10], b[11], b[12] = b[12], b[11], b[10], b[9]; return b }, belfry.ErrUsage},
		"cut off":               {func(b []byte) []byte { return b[:len(b)-1] }, belfry.ErrUsage},
		"a byte behind":         {func(b []byte) []byte { return append(b, 0) }, belfry.ErrUsage},
		"no payload":            {func(b []byte) []byte { return b[:76] }, belfry.ErrUsage},
		"only a version":        {func(b []byte) []byte { return b[:1] }, belfry.ErrUsage},
	} {
		if _, err := Parse(rearmored(t, good, tt.change)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// Each payload is signed by the vendor: it is the form that is refused. An
// issuer's tool that writes it is found by its first file.
func TestPayloadsHaveOneForm(t *testing.T) {
	t.Parallel()
	const good = `{"license_id":"L1","product":"acme-db","edition":"","features":["a","b"],"binding":{"any":true},` +
		`"capacity":{"nodes":4,"cores":0,"memory_bytes":0},"not_before":"2026-01-01T00:00:00Z","grace_days":14,` +
		`"issued_at":"2026-01-01T00:00:00Z","supersedes":[],"customer":"é"}`
	if f, err := Parse(framed(good)); err != nil {
		t.Fatal(err)
	} else if _, err := f.Verify(testIssuers); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"an unknown field":              {`"customer":`, `"extra":1,"customer":`},
		"an unknown field within":       {`"nodes":4`, `"nodes":4,"disks":1`},
		"a field twice":                 {`"grace_days":14`, `"grace_days":14,"grace_days":14`},
		"a field twice, the last wins":  {`"nodes":4`, `"nodes":4,"nodes":400`},
		"the same in another case":      {`"nodes":4`, `"nodes":4,"Nodes":400`},
		"another case":                  {`"product"`, `"Product"`},
		"fields in another order":       {`"license_id":"L1","product":"acme-db"`, `"product":"acme-db","license_id":"L1"`},
		"a field missing":               {`"supersedes":[],`, ``},
		"an escaped name":               {`"product"`, `"\u0070roduct"`},
		"an escaped value":              {`"é"`, `"\u00e9"`},
		"half a character":              {`"é"`, `"\ud800"`},
		"bytes that are no UTF-8":       {`"é"`, "\"\xe9\""},
		"a space":                       {`"L1",`, `"L1", `},
		"a space before":                {`{"license_id"`, ` {"license_id"`},
		"a newline behind":              {`"é"}`, "\"é\"}\n"},
		"a second object":               {`"é"}`, `"é"}{}`},
		"a bracket behind":              {`"é"}`, `"é"}]`},
		"cut off":                       {`"é"}`, `"é"`},
		"null for a list":               {`"supersedes":[]`, `"supersedes":null`},
		"null for a number":             {`"cores":0`, `"cores":null`},
		"null for an object":            {`"binding":{"any":true}`, `"binding":null`},
		"an unsorted set":               {`["a","b"]`, `["b","a"]`},
		"a set with one twice":          {`["a","b"]`, `["a","a"]`},
		"a number with a fraction":      {`"nodes":4`, `"nodes":4.0`},
		"a number with an exponent":     {`"nodes":4`, `"nodes":4e0`},
		"a number with a sign":          {`"cores":0`, `"cores":-0`},
		"a number with a leading zero":  {`"nodes":4`, `"nodes":04`},
		"a number as a string":          {`"nodes":4`, `"nodes":"4"`},
		"a number beyond 64 bits":       {`"nodes":4`, `"nodes":18446744073709551620`},
		"a time with a zone":            {`"not_before":"2026-01-01T00:00:00Z"`, `"not_before":"2026-01-01T01:00:00+01:00"`},
		"a time with zone zero":         {`"not_before":"2026-01-01T00:00:00Z"`, `"not_before":"2026-01-01T00:00:00+00:00"`},
		"a time with zeros behind":      {`"not_before":"2026-01-01T00:00:00Z"`, `"not_before":"2026-01-01T00:00:00.0Z"`},
		"a time with parts":             {`"not_before":"2026-01-01T00:00:00Z"`, `"not_before":"2026-01-01T00:00:00.5Z"`},
		"the 30th of February":          {`"not_before":"2026-01-01T00:00:00Z"`, `"not_before":"2026-02-30T00:00:00Z"`},
		"the time that means none":      {`"not_before":"2026-01-01T00:00:00Z"`, `"not_before":"0001-01-01T00:00:00Z"`},
		"a part of a binding not used":  {`{"any":true}`, `{"any":true,"nodes":[]}`},
		"a binding that says no":        {`{"any":true}`, `{"any":false}`},
		"two bindings":                  {`{"any":true}`, `{"cluster":"c1000000-0000-0000-0000-000000000001","any":true}`},
		"an id in capitals":             {`{"any":true}`, `{"cluster":"C1000000-0000-0000-0000-000000000001"}`},
		"an id without hyphens":         {`{"any":true}`, `{"cluster":"c1000000000000000000000000000001"}`},
		"depth":                         {`"é"`, strings.Repeat("[", 9000) + strings.Repeat("]", 9000)},
		"depth in an unknown field":     {`"customer":`, `"x":` + strings.Repeat(`{"x":`, 3000) + "1" + strings.Repeat("}", 3000) + `,"customer":`},
		"depth without an end":          {`"é"}`, strings.Repeat("[", 30_000)},
		"a byte order mark":             {`{"license_id"`, "\ufeff" + `{"license_id"`},
		"a list":                        {good, `[` + good + `]`},
		"nothing":                       {good, ``},
		"null":                          {good, `null`},
		"grace beyond a year":           {`"grace_days":14`, `"grace_days":1000`},
		"a name that is none":           {`"L1"`, `"a/b"`},
		"a control character by escape": {`"é"`, `"\u001b[2J"`},
	} {
		if strings.Count(good, change[0]) != 1 {
			t.Errorf("%s: %q is not once in the payload", name, change[0])
			continue
		}
		_, err := Parse(framed(strings.Replace(good, change[0], change[1], 1)))
		if !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s: %v, want ErrUsage", name, err)
		}
	}
}

func TestTidyTakesOffWhatMailAdds(t *testing.T) {
	t.Parallel()
	good := signed(t, annual())
	for name, text := range map[string]string{
		"nothing":                    string(good),
		"empty lines at both ends":   "\r\n \t\n" + string(good) + "\n\n",
		"carriage returns":           strings.ReplaceAll(string(good), "\n", "\r\n"),
		"indented":                   "  " + strings.ReplaceAll(string(good), "\n", " \n  "),
		"the last newline cut off":   strings.TrimSuffix(string(good), "\n"),
		"indented without an ending": "\t" + strings.TrimSpace(strings.ReplaceAll(string(good), "\n", "\n\t")),
	} {
		if got := Tidy([]byte(text)); !bytes.Equal(got, good) {
			t.Errorf("%s: not the file:\n%s", name, cmp.Diff(string(good), string(got)))
		}
	}
	for name, text := range map[string]string{
		"a text before":        "Hello,\n" + string(good),
		"a text behind":        string(good) + "Regards\n",
		"an empty line inside": strings.Replace(string(good), "\n", "\n\n", 1),
		"quoted":               "> " + strings.ReplaceAll(string(good), "\n", "\n> "),
	} {
		if _, err := Parse(Tidy([]byte(text))); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s: %v, want ErrUsage", name, err)
		}
	}
	if got := Tidy([]byte(" \n\t")); len(got) != 0 {
		t.Errorf("of blanks: %q, want nothing", got)
	}
}
