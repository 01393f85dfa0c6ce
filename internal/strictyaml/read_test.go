package strictyaml

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// A sample has every kind of value.
type sample struct {
	Name    string            `json:"name"`
	Port    uint16            `json:"port,omitzero"`
	Limit   int               `json:"limit,omitzero"`
	On      bool              `json:"on,omitzero"`
	Words   []string          `json:"words,omitempty"`
	Parts   []part            `json:"parts,omitempty"`
	Set     map[string]Scalar `json:"set,omitempty"`
	Inner   part              `json:"inner,omitzero"`
	Maybe   *int              `json:"maybe,omitempty"`
	Prefix  netip.Prefix      `json:"prefix,omitzero"`
	Address netip.AddrPort    `json:"address,omitzero"`
	IP      netip.Addr        `json:"ip,omitzero"`
	Time    time.Time         `json:"time,omitzero"`
	Secret  string            `json:"secret,omitempty" secret:"true"`
	hidden  string
}

type part struct {
	Name  string   `json:"name,omitempty"`
	Words []string `json:"words,omitempty"`
}

func read(text string) (s sample, err error) {
	_, err = Read(Options{File: "f.yaml"}, []byte(text), &s)
	return s, err
}

func TestFaultsHaveTheirPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"name: a\n", ""},
		{"", ""},
		{"# nothing\n", ""},
		{"---\nname: a\n", ""},
		{"nam: a\n", "f.yaml:1:1: unknown key nam; did you mean name?"},
		{"parts:\n  - name: a\n  - wrods: [x]\n", "f.yaml:3:5: unknown key parts[1].wrods; did you mean parts[1].words?"},
		{"inner: {zzzzzz: 1}\n", "f.yaml:1:9: unknown key inner.zzzzzz; want one of name, words"},
		{"name: 5\n", "f.yaml:1:7: name is a whole number; want text (put it in quotes)"},
		{"name: true\n", "f.yaml:1:7: name is a truth value; want text (put it in quotes)"},
		{"name: [a]\n", "f.yaml:1:7: name is a list; want text (put it in quotes)"},
		{"name:\n", "f.yaml:1:7: name has no value; want text (put it in quotes), or leave it out"},
		{"name: ~\n", "f.yaml:1:7: name has no value; want text (put it in quotes), or leave it out"},
		{"port: 65536\n", "f.yaml:1:7: port is 65536; want a whole number from 0 to 65535, in digits"},
		{"port: -1\n", "f.yaml:1:7: port is -1; want a whole number from 0 to 65535, in digits"},
		{"port: 0x10\n", "f.yaml:1:7: port is 0x10; want a whole number from 0 to 65535, in digits"},
		{"port: \"1\"\n", "f.yaml:1:7: port is text; want a whole number from 0 to 65535, in digits"},
		{"limit: 1.5\n", "f.yaml:1:8: limit is a number with a fraction; want a whole number, in digits"},
		{"on: yes\n", "f.yaml:1:5: on is text; want true or false"},
		{"words: a\n", "f.yaml:1:8: words is text; want a list; [] is an empty one"},
		{"words: [a, 1]\n", "f.yaml:1:12: words[1] is a whole number; want text (put it in quotes)"},
		{"words: [a:1]\n", ""},
		{"parts: [{words: [a:1]}]\n", "f.yaml:1:18: parts[0].words[0] is a group of keys; want text, in quotes if there is a colon in it"},
		{"words: {a: 1}\n", "f.yaml:1:8: words is a group of keys; want a list; [] is an empty one"},
		{"words:\n- a\n- # nothing\n-\n- b\n", "f.yaml:4:1: the entry before has no value; write one, or leave it out"},
		{"words:\n-\n  a\n- b\n", ""},
		{"parts: [a]\n", "f.yaml:1:9: parts[0] is text; want keys: name, words"},
		{"set: [a]\n", "f.yaml:1:6: set is a list; want names with values; {} is none"},
		{"set: {a: [b]}\n", "f.yaml:1:10: set.a is a list; want a value"},
		{"prefix: 10.0.1.0\n", `f.yaml:1:9: prefix: "10.0.1.0"; want a prefix like 10.0.1.0/24`},
		{"address: 10.0.1.1\n", `f.yaml:1:10: address: "10.0.1.1"; want an address like 10.0.1.1:7432`},
		{"ip: a\n", `f.yaml:1:5: ip: "a"; want an IP address like 10.0.1.1`},
		{"time: 2026-01-01\n", `f.yaml:1:7: time: "2026-01-01"; want a time like 2026-12-31T23:59:59Z`},
		{"hidden: a\n", "f.yaml:1:1: unknown key hidden; want one of name, port, limit, on, words, parts, set, inner, maybe, prefix, address, ip, time, secret"},
		{"a\n", "f.yaml:1:1: the text is text; want keys: name, port, limit, on, words, parts, set, inner, maybe, prefix, address, ip, time, secret"},
		{"- a\n", "f.yaml:1:1: the text is a list; want keys: name, port, limit, on, words, parts, set, inner, maybe, prefix, address, ip, time, secret"},
		{"? [a]\n: 1\n", "f.yaml:1:1: a key in the form ? KEY; write KEY: VALUE"},
		{"1: a\n", "f.yaml:1:1: unknown key 1; want one of name, port, limit, on, words, parts, set, inner, maybe, prefix, address, ip, time, secret"},
		{"name: &x a\n", "f.yaml:1:7: an anchor; write the value out where it is used"},
		{"words: [*x]\n", "f.yaml:1:9: an alias; write the value out"},
		{"<<: {name: a}\n", "f.yaml:1:1: a merge key; write the keys out"},
		{"name: !!str a\n", "f.yaml:1:7: a tag; the types are known, leave it out"},
		{"%YAML 1.2\n---\nname: a\n", "f.yaml:1:1: a directive; leave it out"},
		{"name: a\n---\nname: b\n", "f.yaml:2:1: a second document; one text has one"},
		{"name: a\nname: b\n", `f.yaml:2:1: not YAML: mapping key "name" already defined at [1:1]`},
		{"name: \"a\n", "f.yaml:1:7: not YAML: could not find end character of double-quoted text"},
		{strings.Repeat("[", 40), "f.yaml:1:33: nested deeper than 32"},
		{"words: " + strings.Repeat("- ", 40), "f.yaml:1:70: nested deeper than 32"},
		{"nam: a\nport: x\n", "f.yaml:1:1: unknown key nam; did you mean name?\nf.yaml:2:7: port is text; want a whole number from 0 to 65535, in digits"},
	} {
		_, err := read(c.text)
		if got := errorText(err); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.text, got, c.want)
		}
		if err != nil && !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%q: %v does not wrap ErrUsage", c.text, err)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestALongTextIsRefusedBeforeItIsRead(t *testing.T) {
	t.Parallel()
	_, err := read(strings.Repeat("#", MaxText+1))
	if want := "f.yaml: 1048577 bytes; at most 1048576"; errorText(err) != want || !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("got %v; want ErrLimit, %s", err, want)
	}
	if _, err := read(strings.Repeat("#", MaxText)); err != nil {
		t.Errorf("the longest: %v", err)
	}
}

// The parser is quadratic in the keys of one mapping: a megabyte of them would
// take minutes.
func TestManyKeysAreRefusedBeforeTheyAreParsed(t *testing.T) {
	t.Parallel()
	keys := func(n int, form string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, form, i)
		}
		return b.String()
	}
	for _, c := range []struct{ text, want string }{
		{"set:\n" + keys(256, "  k%d: 1\n"), ""},
		{"set:\n" + keys(257, "  k%d: 1\n"), "f.yaml:258:7: more than 256 keys in one mapping"},
		{"set: {" + keys(257, "k%d: 1, ") + "}\n", "more than 256 keys in one mapping"},
		{"parts:\n" + keys(5000, "  - name: a%d\n    words: [b]\n"), ""}, // few in each
		{"parts:\n" + keys(5000, "- name: a%d\n  words: [b]\n"), ""},
		{keys(100000, "k%d: 1\n"), "f.yaml:257:5: more than 256 keys in one mapping"},
	} {
		_, err := read(c.text)
		if got := errorText(err); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%.40q: %.200s; want %s", c.text, got, c.want)
		}
	}
}

// At most 20 faults are told, and how many more there are.
func TestFaultsAreCounted(t *testing.T) {
	t.Parallel()
	_, err := read("words: [" + strings.Repeat("1, ", 30) + "]\n")
	lines := strings.Split(errorText(err), "\n")
	if want := "f.yaml: and 10 more faults; correct these first"; len(lines) != 21 || lines[20] != want {
		t.Errorf("%d lines, the last %q; want 21 and %q", len(lines), lines[len(lines)-1], want)
	}
}

func TestLocateFindsThePlaceOfAPath(t *testing.T) {
	t.Parallel()
	var s sample
	source, err := Read(Options{File: "f.yaml"}, []byte("name: a\nparts:\n  - name: x\n  - name: y\nset:\n  watchers: 4\n  wotchers: 4\n"), &s)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"parts[1].name: is used twice":     "f.yaml:4:5: parts[1].name: is used twice",
		"parts[1].words: none":             "f.yaml:4:5: parts[1].words: none", // of the entry, since it is missing
		"parts: too many":                  "f.yaml:2:1: parts: too many",
		"partsx: unknown":                  "f.yaml: partsx: unknown",
		"nodes[0].name: other":             "f.yaml: nodes[0].name: other",
		"unknown setting set.watchers; no": "f.yaml:6:3: unknown setting set.watchers; no",
		"the name of it":                   "f.yaml: the name of it",
		"name: one\nparts[0]: two":         "f.yaml:1:1: name: one\nf.yaml:3:5: parts[0]: two",
		// Of two paths the first one in the line counts.
		"unknown setting set.wotchers; did you mean set.watchers?": "f.yaml:7:3: unknown setting set.wotchers; did you mean set.watchers?",

		`set.watchers "3": not even; is small`: `f.yaml:6:3: set.watchers "3": not even; is small`,
	} {
		got := source.Locate(fmt.Errorf("%w%s", errSilent{}, text))
		if got.Error() != want || !errors.Is(got, belfry.ErrLimit) {
			t.Errorf("%s:\n got %v\nwant %s", text, got, want)
		}
	}
	if source.Locate(nil) != nil {
		t.Error("no error is one")
	}
}

type errSilent struct{}

func (errSilent) Error() string { return "" }

func (errSilent) Unwrap() error { return belfry.ErrLimit }

// A key that has its place elsewhere is said to.
func TestWhyAKeyCanNotStandThere(t *testing.T) {
	t.Parallel()
	why := func(path string) string {
		if path == "nodes" {
			return "nodes come by belfry join; leave it out"
		}
		return ""
	}
	var s sample
	_, err := Read(Options{File: "f", Why: why}, []byte("nodes: []\nnodez: []\n"), &s)
	want := "f:1:1: nodes come by belfry join; leave it out\nf:2:1: unknown key nodez; did you mean on?"
	if got := errorText(err); !strings.HasPrefix(got, strings.Split(want, "\n")[0]+"\nf:2:1: unknown key nodez; ") {
		t.Errorf("got %s", got)
	}
}

func TestWriteIsForPeople(t *testing.T) {
	t.Parallel()
	long := strings.Fields(strings.Repeat("some-long-word ", 8))
	s := sample{
		Name: "true", Port: 7431, On: true, Words: []string{"a", "b c", ""}, Parts: []part{{Name: "x", Words: long}, {}, {Words: []string{"10"}}},
		Set: map[string]Scalar{"watchers": "4", "loss": "0.30", "profile": "aix", "code": "0x10", "timeout": "2.5s"}, Inner: part{Name: "i: j"},
		Maybe: new(0), Prefix: netip.MustParsePrefix("10.0.1.0/24"), Address: netip.MustParseAddrPort("[fd00::1]:7432"), IP: netip.MustParseAddr("10.0.1.1"),
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Secret: "do not tell", hidden: "neither",
	}
	want := `name: "true"
port: 7431
on: true
words: [a, "b c", ""]
parts:
  - name: x
    words:
      - some-long-word
      - some-long-word
      - some-long-word
      - some-long-word
      - some-long-word
      - some-long-word
      - some-long-word
      - some-long-word
  - {}
  - words: ["10"]
set:
  code: "0x10"
  loss: 0.30
  profile: aix
  timeout: 2.5s
  watchers: 4
inner:
  name: "i: j"
maybe: 0
prefix: 10.0.1.0/24
address: "[fd00::1]:7432"
ip: 10.0.1.1
time: "2026-01-02T03:04:05Z"
`
	got := string(Write(s))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.Secret, s.hidden = "", ""
	again, err := read(got)
	if err != nil || !reflect.DeepEqual(s, again) {
		t.Errorf("read again: %v\n%+v", err, again)
	}
	type group struct {
		A []string          `json:"a"`
		B map[string]Scalar `json:"b"`
		C part              `json:"c"`
	}
	if got, want := string(Write(group{})), "a: []\nb: {}\nc: {}\n"; got != want {
		t.Errorf("nothing: %q; want %q", got, want)
	}
}

// What is written is read as it was, whatever the texts are.
func TestWrittenIsReadAgain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[-0-9a-zA-Z_.:/%+~ \n\t#&*!|>'"{}\[\],?@]{0,12}`),
			rapid.SampledFrom([]string{"null", "~", "1e3", ".inf", "0o7", "1_000", "12:30", "- a", "a: b", "a #b", "\u0085", "\u2028", "\ufeff", "é", "x\r\ny", "---", "...", "=", "<<", "a:b", "10.0.0.1:80", "1:2"}))
		in := sample{Name: text.Draw(t, "name"), Words: rapid.SliceOf(text).Draw(t, "words"), Limit: rapid.Int().Draw(t, "limit")}
		for range rapid.IntRange(0, 3).Draw(t, "parts") {
			in.Parts = append(in.Parts, part{Name: text.Draw(t, "part"), Words: rapid.SliceOfN(text, 0, 3).Draw(t, "words")})
		}
		in.Set = map[string]Scalar{}
		for range rapid.IntRange(0, 3).Draw(t, "set") {
			in.Set["k"+rapid.StringMatching(`[a-z_]{1,8}`).Draw(t, "key")] = Scalar(text.Draw(t, "value"))
		}
		written := Write(in)
		out, err := read(string(written))
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if again := Write(out); string(again) != string(written) {
			t.Fatalf("(-first +second):\n%s", cmp.Diff(string(written), string(again)))
		}
		if in.Name != out.Name || len(in.Words) > 0 && !reflect.DeepEqual(in.Words, out.Words) {
			t.Fatalf("%+v became %+v", in, out)
		}
	})
}

// No text makes it panic, and what it takes it writes and takes again.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"name: a\nport: 7431\n", "words: [a, \"b\\u0001\", 'c''d']\nset: {a: 1, b: 0.3}\n", "parts:\n- name: |-\n    x\n    y\n- words:\n  - a\n",
		"a: &x 1\nb: *x\n<<: *x\n", "? a\n: b\n", "%YAML 1.2\n--- !!map\n", "name: \"\n", "{", "\t- x", "name: >\n a\n\n b\n", "maybe: 007\n", "name: 'a\n\n  b'\n",
		"\ufeffname: a\n", "name: a\r\nport: 1\r\n", "- - - -\n", "a:\n b:\n  c:\n   d:\n", "set:\n  \"a b\": c\n  : d\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := read(text)
		if err != nil {
			if !errors.Is(err, belfry.ErrUsage) && !errors.Is(err, belfry.ErrLimit) {
				t.Errorf("%v wraps no sentinel", err)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f.yaml:") && len(strings.Split(err.Error(), "\n")) == 1 {
					t.Errorf("%q has no place", line)
				}
			}
			return
		}
		s.Secret = ""
		written := Write(s)
		again, err := read(string(written))
		if err != nil {
			t.Fatalf("%v\nin what was written of %q:\n%s", err, text, written)
		}
		if rewritten := Write(again); string(rewritten) != string(written) {
			t.Fatalf("written again (-first +second):\n%s", cmp.Diff(string(written), string(rewritten)))
		}
	})
}
