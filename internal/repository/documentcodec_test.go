package repository

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// The bytes of a generation are hashed, and signed by who wrote them: they may
// never change. The sections stand in the order of the design.
func TestBytesOfTheDocument(t *testing.T) {
	t.Parallel()
	data := encodeDocument(t, testDocument())
	goldenFile(t, "document.golden", data)
	goldenFile(t, "document-next.golden", encodeDocument(t, testDocumentNext()))
	if diff := sameDocument(testDocument(), decodeDocument(t, data)); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	if again := encodeDocument(t, decodeDocument(t, data)); !bytes.Equal(data, again) {
		t.Errorf("decoded and encoded again: %s", again)
	}
	want := strings.Fields("schema cluster nodes former networks links repository tunables resources witness linked handlers licenses roles security ops history moving confirm")
	if !slices.Equal(sections, want) {
		t.Errorf("sections are %v, want %v", sections, want)
	}
	for _, part := range []string{`"author":"client <web> & co"`, `"allowance":"2.5s","node_timeout":"3s"`, "}\n"} {
		if !bytes.Contains(data, []byte(part)) {
			t.Errorf("%q is not in it", part)
		}
	}
}

// Nothing but the one form is taken, and the error says where it is left.
func TestDecodeIsStrict(t *testing.T) {
	t.Parallel()
	valid := string(encodeDocument(t, testDocument()))
	once := func(old, new string) string {
		t.Helper()
		if strings.Count(valid, old) == 0 {
			t.Fatalf("%q is not in the document", old)
		}
		return strings.Replace(valid, old, new, 1)
	}
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	for name, c := range map[string]struct {
		input string
		is    error
		says  string
	}{
		"nothing":               {"", belfry.ErrUsage, `document: byte #: the document is cut off; want '{'`},
		"another value":         {"[]\n", belfry.ErrUsage, `document: byte #: "[]\n"; want '{', without white space`},
		"cut off":               {valid[:1000], belfry.ErrUsage, `nodes[1]: byte #: the document is cut off; want ','`},
		"no newline":            {strings.TrimSuffix(valid, "\n"), belfry.ErrUsage, `document: byte #: the document is cut off; want '\n'`},
		"two newlines":          {valid + "\n", belfry.ErrUsage, "document: byte #: 1 bytes follow; want the end"},
		"two documents":         {valid + valid, belfry.ErrUsage, "bytes follow; want the end"},
		"white space":           {once(`"cluster":{`, `"cluster": {`), belfry.ErrUsage, `cluster: byte #: " {\"name\":\"köln\""; want '{', without white space`},
		"unknown field":         {once(`"zone":"hall-b"`, `"zome":"hall-b"`), belfry.ErrUsage, `nodes[1]: byte #: unknown field "zome"; want one of name, id, number, slot, zone`},
		"other case":            {once(`"zone":"hall-b"`, `"Zone":"hall-b"`), belfry.ErrUsage, `nodes[1]: byte #: unknown field "Zone"`},
		"unknown section":       {once(`"schema":1,`, `"schema":1,"extra":`+deep+`,`), belfry.ErrUsage, `document: byte #: unknown field "extra"`},
		"deep nesting":          {once(`"name":"köln"`, `"name":`+deep), belfry.ErrUsage, `cluster.name: byte #: "[[[[[[[[[[[[[[[["; want text in quotes`},
		"deep objects":          {once(`"slot":1`, `"slot":`+strings.Repeat(`{"a":`, 5000)), belfry.ErrUsage, `nodes[1].slot: byte #: `},
		"field twice":           {once(`"zone":"hall-b"`, `"zone":"hall-a","zone":"hall-b"`), belfry.ErrUsage, "nodes[1]: byte #: the field zone is given twice"},
		"section twice":         {once(`"former":`, `"nodes":[],"former":`), belfry.ErrUsage, "the field nodes is given twice"},
		"fields out of order":   {once(`"number":2,"slot":1`, `"slot":1,"number":2`), belfry.ErrUsage, "nodes[1]: byte #: the field number is missing"},
		"optional out of order": {once(`"a":"a","b":"b","network":"net2","disabled":true,"priority":3`, `"a":"a","b":"b","network":"net2","priority":3,"disabled":true`), belfry.ErrUsage, "the field disabled is given twice, or comes after priority; want it before"},
		"field missing":         {once(`"id":"a0020000-0000-0000-0000-000000000000",`, ``), belfry.ErrUsage, "nodes[1]: byte #: the field id is missing"},
		"last field missing":    {once(`,"security":`, `,"securitx":`), belfry.ErrUsage, `document: byte`},
		"key of a map twice":    {once(`"node_timeout":"3s"`, `"node_timeout":"3s","node_timeout":"3s"`), belfry.ErrUsage, `tunables: byte #: "node_timeout" is given twice`},
		"keys not sorted":       {once(`"allowance":"2.5s","node_timeout":"3s"`, `"node_timeout":"3s","allowance":"2.5s"`), belfry.ErrUsage, `tunables: byte #: "allowance" comes after "node_timeout"; want it before`},
		"key is empty":          {once(`"allowance"`, `""`), belfry.ErrUsage, "tunables: byte #: a name is empty"},
		"key too long":          {once(`"allowance"`, `"`+strings.Repeat("a", 64)+`"`), belfry.ErrLimit, "tunables: byte #: limit reached: 64 bytes; at most 63"},
		"null for a list":       {once(`"drained":["b"]`, `"drained":null`), belfry.ErrUsage, `witness.drained: byte`},
		"null for a number":     {once(`"number":2`, `"number":null`), belfry.ErrUsage, `nodes[1].number: byte #: "null"; want a whole number in its range`},
		"null for a pointer":    {once(`"slot":1`, `"slot":null`), belfry.ErrUsage, `nodes[1].slot: byte #: "null"; want a whole number in its range`},
		"null for a truth":      {once(`"disabled":true`, `"disabled":null`), belfry.ErrUsage, `links[0].disabled: byte #: "null"; want true or false`},
		"empty list":            {once(`"drained":["b"]`, `"drained":[]`), belfry.ErrUsage, `witness: byte #: the field drained is empty; want it left out`},
		"empty map":             {once(`{"allowance":"2.5s","node_timeout":"3s"}`, `{}`), belfry.ErrUsage, `document: byte #: the field tunables is empty; want it left out`},
		"empty text":            {once(`"zone":"hall-b"`, `"zone":""`), belfry.ErrUsage, `nodes[1]: byte #: the field zone is empty; want it left out`},
		"false":                 {once(`"disabled":true`, `"disabled":false`), belfry.ErrUsage, `links[0]: byte #: the field disabled is empty; want it left out`},
		"fraction":              {once(`"number":2`, `"number":2.0`), belfry.ErrUsage, `nodes[1].number: byte #: "2.0"; want a whole number in its range`},
		"exponent":              {once(`"number":2`, `"number":2e0`), belfry.ErrUsage, `"2e0"; want a whole number in its range`},
		"minus nothing":         {once(`"priority":10`, `"priority":-0`), belfry.ErrUsage, `networks[0]: byte #: the field priority is empty; want it left out`},
		"too large a number":    {once(`"number":2`, `"number":65536`), belfry.ErrUsage, `"65536"; want a whole number in its range`},
		"number in quotes":      {once(`"number":2`, `"number":"2"`), belfry.ErrUsage, `"\"2\""; want a whole number in its range`},
		"text without quotes":   {once(`"zone":"hall-b"`, `"zone":7`), belfry.ErrUsage, `nodes[1].zone: byte #: "7,\"key\":\"AgICAgI`},
		"escaped letter":        {once(`"zone":"hall-b"`, `"zone":"\u0068all-b"`), belfry.ErrUsage, `nodes[1].zone: byte #: "\\u0068all-b\",\"ke" is not how it is written; want "hall-b`},
		"escaped HTML":          {once(`<web>`, `\u003cweb\u003e`), belfry.ErrUsage, `history[1].author: byte`},
		"half a surrogate":      {once(`"zone":"hall-b"`, `"zone":"\ud800"`), belfry.ErrUsage, `nodes[1].zone: byte #: `},
		"not UTF-8":             {once(`"zone":"hall-b"`, "\"zone\":\"hall-\xff\""), belfry.ErrUsage, `nodes[1].zone: byte #: "\"hall-\xff\"": not UTF-8`},
		"not UTF-8 in a name":   {once(`"allowance"`, "\"\xff\""), belfry.ErrUsage, `tunables: byte #: "\"\xff\"": not UTF-8`},
		"control character":     {once(`"zone":"hall-b"`, `"zone":"\u001b[1m"`), belfry.ErrUsage, "nodes[1].zone: byte #: wrong use: holds the control character U+001B; want text in one line"},
		"raw control":           {once(`"zone":"hall-b"`, "\"zone\":\"\n\""), belfry.ErrUsage, "nodes[1].zone: byte #: "},
		"UUID in capitals":      {once(`"id":"a0020000`, `"id":"A0020000`), belfry.ErrUsage, `nodes[1].id: byte #: "A0020000-0000-00" is not how it is written; want "a0020000-0000-00"`},
		"UUID cut off":          {once(`"id":"a0020000-`, `"id":"`), belfry.ErrUsage, `nodes[1].id: byte #: "\"0000-0000-0000-000000000000\"": node id`},
		"base64 with a break":   {once(`"certificate":"MAI=`, `"certificate":"MA\nI=`), belfry.ErrUsage, `nodes[1].certificate: byte`},
		"base64 with a rest":    {once(`"certificate":"MAI=`, `"certificate":"MAJ=`), belfry.ErrUsage, `nodes[1].certificate: byte`},
		"empty bytes":           {once(`"certificate":"MAI="`, `"certificate":""`), belfry.ErrUsage, "nodes[1].certificate: byte"},
		"time elsewhere":        {once(`"2026-03-01T02:00:00Z"`, `"2026-03-01T02:00:00+00:00"`), belfry.ErrUsage, "nodes[1].joined.time: byte"},
		"time with zeros":       {once(`"2026-03-01T02:00:00Z"`, `"2026-03-01T02:00:00.00Z"`), belfry.ErrUsage, "nodes[1].joined.time: byte"},
		"text too long":         {once(`"zone":"hall-b"`, `"zone":"`+strings.Repeat("h", 64)+`"`), belfry.ErrLimit, "nodes[1].zone: byte #: limit reached: 64 bytes; at most 63"},
		"text far too long":     {once(`"zone":"hall-b"`, `"zone":"`+strings.Repeat("h", 9999)+`"`), belfry.ErrLimit, "limit reached: nodes[1].zone: byte #: 9999 bytes; at most 63"},
		"list too long":         {once(`"drained":["b"]`, `"drained":["b"`+strings.Repeat(`,"b"`, 1024)+`]`), belfry.ErrLimit, "witness.drained: byte #: more entries; at most 1024"},
		"map too long":          {once(`"allowance":"2.5s",`, manyKeys(64)), belfry.ErrLimit, "limit reached: tunables: byte #: more entries; at most 64"},
		"document too long":     {valid + strings.Repeat(" ", MaxDocument), belfry.ErrLimit, "a document of " + strconv.Itoa(MaxDocument+len(valid)) + " bytes; at most 8388608"},
		"newer schema":          {once(`"schema":1,`, `"schema":2,"whatever":{},`), belfry.ErrUnsupported, "schema 2; this agent knows up to 1, install the version of belfry that the others have"},
		"schema too large":      {once(`"schema":1,`, `"schema":99999999999,`), belfry.ErrUsage, `schema: byte #: "99999999999"; want a whole number in its range`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode([]byte(c.input))
			if !errors.Is(err, c.is) {
				t.Fatalf("error %v, want %v", err, c.is)
			}
			said := anyByte.ReplaceAllString(err.Error(), "byte #")
			if !strings.Contains(said, c.says) {
				t.Errorf("it says\n%s, want\n%s", said, c.says)
			}
			if m := anyByte.FindStringSubmatch(err.Error()); m != nil {
				from, to := changedSpan(valid, c.input)
				if n, _ := strconv.Atoi(m[1]); n < from-40 || n > to+2 {
					t.Errorf("it says byte %d, want %d to %d: %v", n, from-40, to+2, err)
				}
			}
			if !strings.HasPrefix(err.Error(), "repository.decode: ") {
				t.Errorf("it does not say who: %v", err)
			}
		})
	}
}

// manyKeys are entries of a map that come before any other.
func manyKeys(n int) (text string) {
	for i := range n {
		text += fmt.Sprintf(`"a%02d":"1",`, i)
	}
	return text
}

// anyByte is the place that an error names.
var anyByte = regexp.MustCompile(`byte (\d+)`)

// changedSpan is the first byte in which an input differs from the valid
// document, and the last.
func changedSpan(valid, input string) (from, to int) {
	for from < min(len(valid), len(input)) && valid[from] == input[from] {
		from++
	}
	to = len(input)
	for i := len(valid); i > from && to > from && valid[i-1] == input[to-1]; i-- {
		to--
	}
	return from, to
}

// No byte of a document may be left out, changed or added.
func TestEveryChangedByteIsRefusedOrAnotherDocument(t *testing.T) {
	t.Parallel()
	valid := encodeDocument(t, testDocument())
	for i := range valid {
		changed := bytes.Clone(valid)
		changed[i] = " 0\"\\,{]\xff\x00"[i%9]
		if d, err := Decode(changed); err == nil && !bytes.Equal(changed, encodeDocument(t, d)) {
			t.Fatalf("byte %d as %q: read as something else", i, changed[i])
		}
		if _, err := Decode(valid[:i]); err == nil {
			t.Fatalf("cut off after %d bytes: read", i)
		}
	}
}

// What has no text that is read again is not written.
func TestEncodeRefusesWhatCanNotBeRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(*Document)
		is   error
		says string
	}{
		"not UTF-8":      {func(d *Document) { d.Nodes[0].Zone = "\xff" }, belfry.ErrUsage, "nodes[0].zone: wrong use: not UTF-8"},
		"local time":     {func(d *Document) { d.Cluster.Created = at(0).In(time.FixedZone("CET", 3600)) }, belfry.ErrUsage, "cluster.created: wrong use: the time 2026-03-01T01:00:00+01:00; want it in UTC"},
		"year 10000":     {func(d *Document) { d.Cluster.Created = at(0).AddDate(9000, 0, 0) }, belfry.ErrUsage, "year outside of range"},
		"no key":         {func(d *Document) { d.Nodes[1].Key = nil }, belfry.ErrUsage, "nodes[1].key: wrong use: is missing"},
		"prefix":         {func(d *Document) { d.Networks[0].Prefix = netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33) }, belfry.ErrUsage, "networks[0].prefix"},
		"too many nodes": {func(d *Document) { d.Nodes = make([]Node, 10001) }, belfry.ErrLimit, "nodes: limit reached: 10001 entries; at most 10000"},
		"too long":       {func(d *Document) { d.Licenses.Files = slices.Repeat([]string{strings.Repeat("x", 65536)}, 130) }, belfry.ErrLimit, "at most 8388608"},
		"map key":        {func(d *Document) { d.Tunables = map[string]string{strings.Repeat("x", 64): "1"} }, belfry.ErrLimit, "64 bytes; at most 63"},
	} {
		d := testDocument()
		c.edit(&d)
		if _, err := Encode(d); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want %v that says %s", name, err, c.is, c.says)
		}
	}
}

// Decode of Encode is the document, Encode of Decode the bytes.
func TestDocumentsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var d Document
		drawValue(t, reflect.ValueOf(&d).Elem(), limits{})
		d.Schema = Schema
		data, err := Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(data)
		if err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		if diff := sameDocument(d, again); diff != "" {
			t.Fatalf("decoded (-was +is):\n%s", diff)
		}
		if once, err := Encode(again); err != nil || !bytes.Equal(data, once) {
			t.Fatalf("encoded again: %v\n%s\n%s", err, data, once)
		}
	})
}

// drawValue fills a value with anything that its field may hold.
func drawValue(t *rapid.T, v reflect.Value, l limits) {
	short := func(what string, n int) int { return rapid.IntRange(0, min(n, 3)).Draw(t, what) }
	switch v.Type() {
	case timeType:
		v.Set(reflect.ValueOf(time.Unix(rapid.Int64Range(0, 1<<37).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()))
		return
	case reflect.TypeFor[netip.AddrPort]():
		v.Set(reflect.ValueOf(netip.AddrPortFrom(drawAddr(t), rapid.Uint16().Draw(t, "port"))))
		return
	case reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(drawAddr(t)))
		return
	case reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.PrefixFrom(drawAddr(t).WithZone(""), rapid.IntRange(0, 32).Draw(t, "bits"))))
		return
	case byteList:
		v.SetBytes(rapid.SliceOfN(rapid.Byte(), 1, min(l.length, 64)).Draw(t, "bytes"))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "truth"))
	case reflect.String:
		v.SetString(rapid.StringOfN(rapid.RuneFrom([]rune("az09-<>&\"\\/ äß\u2028😀\ufffd")), 0, -1, min(l.length, 20)).Draw(t, "text"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "n"))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, "n") >> (64 - v.Type().Bits()))
	case reflect.Array:
		for i := range v.Len() {
			drawValue(t, v.Index(i), limits{})
		}
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "set") {
			v.Set(reflect.New(v.Type().Elem()))
			drawValue(t, v.Elem(), l)
		}
	case reflect.Struct:
		for i, rule := range fieldRules[v.Type()] {
			drawValue(t, v.Field(i), rule.limits)
		}
	case reflect.Slice:
		n := short("length", l.length)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			drawValue(t, v.Index(i), l.below())
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(rapid.MapOfN(rapid.StringMatching(`[a-z_"<]{1,9}`), rapid.StringMatching(`[0-9a-z.]{0,9}`), 0, 3).Draw(t, "map")))
	default:
		t.Fatalf("a value of type %s", v.Type())
	}
}

func drawAddr(t *rapid.T) netip.Addr {
	b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
	if rapid.Bool().Draw(t, "IPv4") {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b)).WithZone(rapid.SampledFrom([]string{"", "eth0"}).Draw(t, "zone"))
}

// Each list, text and map has a limit; nothing that is empty is written but
// what every document has; what is nested is far below what readers stand.
func TestEveryFieldHasItsLimit(t *testing.T) {
	t.Parallel()
	var depth func(reflect.Type) int
	depth = func(typ reflect.Type) (deepest int) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice && typ != byteList {
			if typ.Kind() == reflect.Slice {
				deepest++
			}
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || isText(typ) {
			return deepest
		}
		below := 0
		for i, rule := range fieldRules[typ] {
			f, of := typ.Field(i), typ.Name()+"."+typ.Field(i).Name
			kind := f.Type.Kind()
			if list := kind == reflect.Slice && f.Type != byteList || kind == reflect.Map || kind == reflect.Pointer; list && rule.required {
				t.Errorf("%s: written even if it is empty, as null", of)
			}
			if bounded := kind == reflect.Slice || kind == reflect.Map || kind == reflect.String; bounded && rule.limits.length == 0 {
				t.Errorf("%s has no limit", of)
			}
			text := kind == reflect.Slice && (f.Type.Elem().Kind() == reflect.String || f.Type.Elem() == byteList)
			if (text || kind == reflect.Map) && rule.limits.text == 0 || kind == reflect.Map && rule.limits.key == 0 {
				t.Errorf("%s: what is in it has no limit", of)
			}
			below = max(below, depth(f.Type))
		}
		return deepest + 1 + below
	}
	if n := depth(documentType); n > 8 || n < 5 {
		t.Errorf("documents are %d deep, want 5 to 8: the parser recurses as deep", n)
	}
}

// A hostile document costs no more memory than a few times its size.
func TestDecodeAllocatesInProportion(t *testing.T) {
	full := testDocument()
	for i := range 2000 {
		full.Ops = append(full.Ops, Operation{Node: belfry.NodeID{byte(i), byte(i >> 8)}, ID: OpID{1}, Generation: 1})
		full.Former = append(full.Former, FormerNode{ID: belfry.NodeID{byte(i), byte(i >> 8)}, Key: []byte{1}})
	}
	for name, data := range map[string][]byte{
		"large":          encodeDocument(t, full),
		"not a document": bytes.Repeat([]byte(`{"schema":`), 50000),
		"empty nodes":    []byte(`{"schema":1,"cluster":{"name":"","uuid":"c0000000-0000-0000-0000-000000000000"},"nodes":[` + strings.Repeat(`{},`, 100000)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = Decode(data)
		runtime.ReadMemStats(&after)
		if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(16*len(data)); got > limit {
			t.Errorf("%s: %d bytes allocated for %d, want at most %d", name, got, len(data), limit)
		}
	}
}

// Whatever is read is written as the same bytes, and can be judged, compared
// and taken back without harm.
func FuzzDocument(f *testing.F) {
	for _, d := range []Document{testDocument(), testDocumentNext(), {Schema: 1}, settled()} {
		f.Add(encodeDocument(f, d))
	}
	for _, name := range sections[2:] { // small ones, with one section each: more inputs a second
		small, full := Document{Schema: 1}, testDocument()
		i := slices.Index(sections, name)
		reflect.ValueOf(&small).Elem().Field(i).Set(reflect.ValueOf(&full).Elem().Field(i))
		f.Add(encodeDocument(f, small))
	}
	f.Add([]byte(`{"schema":2}` + "\n"))
	f.Add([]byte(`{"schema":1,"cluster":{"name":"","uuid":"`))
	base := testDocument()
	f.Fuzz(func(t *testing.T, data []byte) {
		slots, holds := SlotsGiven(data), HoldsOp(data, OpID{0x0a, 0x0b})
		d, err := Decode(data)
		if err != nil {
			if code := belfry.Code(err); code != "USAGE" && code != "LIMIT" && code != "UNSUPPORTED" {
				t.Fatalf("an error that nobody knows: %v", err)
			}
			return
		}
		again, err := Encode(d)
		if err != nil || !bytes.Equal(data, again) {
			t.Fatalf("read and written again: %v\n%s\n%s", err, data, again)
		}
		if slots < 0 || slots > MaxHosts || holds != slices.ContainsFunc(d.Ops, func(o Operation) bool { return o.ID == OpID{0x0a, 0x0b} }) {
			t.Fatalf("%d slots given, operation there %t", slots, holds)
		}
		if changes := Diff(d, d); len(changes) != 0 {
			t.Fatalf("it differs from itself: %v", changes)
		}
		valid := d.Validate(nil) == nil
		Diff(base, d)
		_ = Next(base, d)
		back := Rollback(d, d)
		if err := back.Validate(nil); valid && err != nil {
			t.Fatalf("valid, and not after a rollback to itself: %v", err)
		}
	})
}
