package repository

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
)

// A parser reads a document by the types of its fields. Where JSON can be read
// in two ways (RFC 8259: names given twice, order, white space, null) it takes
// the one that is written. Nesting is that of the types, at most 8 deep, so
// that no input can make it recurse further.
type parser struct {
	data []byte
	pos  int
	path []byte
	want int    // look for the place of this byte; negative: no
	at   string // the place
}

// parse reads a document, but for the last question whether every value has
// the form in which it is written.
func parse(data []byte) (d Document, err error) {
	if len(data) > MaxDocument {
		return d, fmt.Errorf("%w: a document of %d bytes; at most %d", belfry.ErrLimit, len(data), MaxDocument)
	}
	if n := schemaOf(data); n > Schema {
		return d, fmt.Errorf("%w: schema %d; this agent knows up to %d, install the version of belfry that the others have", belfry.ErrUnsupported, n, Schema)
	}
	p := parser{data: data, want: -1}
	if err := p.document(&d); err != nil {
		return Document{}, err
	}
	return d, nil
}

// schemaOf is the level of a document as its first bytes say it, so that one
// of a newer level is known for what it is whatever else it holds. Zero: they
// say none.
func schemaOf(data []byte) (n uint32) {
	digits, ok := bytes.CutPrefix(data, []byte(`{"schema":`))
	if end := bytes.IndexByte(digits, ','); ok && end > 0 {
		if v, err := strconv.ParseUint(string(digits[:min(end, 11)]), 10, 32); err == nil {
			n = uint32(v)
		}
	}
	return n
}

// placeOf is the path of the innermost value at a byte.
func placeOf(data []byte, at int) string {
	p, d := parser{data: data, want: at}, Document{}
	_ = p.document(&d) // it has been read before
	if p.at == "" {
		return "document"
	}
	return p.at
}

func (p *parser) document(d *Document) error {
	if err := p.value(reflect.ValueOf(d).Elem(), limits{}); err != nil {
		return err
	}
	if err := p.next('\n'); err != nil {
		return err
	}
	if p.pos < len(p.data) {
		return p.wrong("%d bytes follow; want the end", len(p.data)-p.pos)
	}
	return nil
}

func (p *parser) place() string {
	if len(p.path) == 0 {
		return "document"
	}
	return string(p.path)
}

func (p *parser) wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s: byte %d: %s", belfry.ErrUsage, p.place(), p.pos, fmt.Sprintf(format, args...))
}

// peek is the next byte; zero at the end, which no document holds.
func (p *parser) peek() byte {
	if p.pos < len(p.data) {
		return p.data[p.pos]
	}
	return 0
}

// next takes one byte.
func (p *parser) next(c byte) error {
	if p.peek() != c {
		if p.pos >= len(p.data) {
			return p.wrong("the document is cut off; want %q", c)
		}
		return p.wrong("%s; want %q, without white space", excerpt(p.data, p.pos), c)
	}
	p.pos++
	return nil
}

// below reads a value under a longer path.
func (p *parser) below(name string, v reflect.Value, l limits) error {
	n := len(p.path)
	if n > 0 && name[0] != '[' {
		p.path = append(p.path, '.')
	}
	p.path = append(p.path, name...)
	if p.want >= 0 && p.pos <= p.want {
		p.at = string(p.path)
	}
	err := p.value(v, l)
	p.path = p.path[:n]
	return err
}

func (p *parser) value(v reflect.Value, l limits) error {
	t := v.Type()
	switch {
	case isText(t), t == byteList, t.Kind() == reflect.String:
		return p.text(v, l)
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		return p.value(v.Elem(), l)
	case t.Kind() == reflect.Struct:
		return p.object(v)
	case t.Kind() == reflect.Slice:
		return p.list(v, l)
	case t.Kind() == reflect.Map:
		return p.entries(v, l)
	}
	return p.scalar(v)
}

// object reads the fields of a structure in their order.
func (p *parser) object(v reflect.Value) error {
	if err := p.next('{'); err != nil {
		return err
	}
	rules, last := fieldRules[v.Type()], -1
	missing := func(from, to, pos int) error {
		for i := from; i < to; i++ {
			if rules[i].required {
				p.pos = pos
				return p.wrong("the field %s is missing", rules[i].name)
			}
		}
		return nil
	}
	for p.peek() != '}' {
		if last >= 0 {
			if err := p.next(','); err != nil {
				return err
			}
		}
		start := p.pos
		i, err := p.field(rules, last)
		if err != nil {
			return err
		}
		name := rules[i].name
		if err := missing(last+1, i, start); err != nil {
			return err
		}
		last = i
		if err := p.below(name, v.Field(i), rules[i].limits); err != nil {
			return err
		}
		if !rules[i].required && isEmpty(v.Field(i)) {
			p.pos = start
			return p.wrong("the field %s is empty; want it left out", name)
		}
	}
	if err := missing(last+1, len(rules), p.pos); err != nil {
		return err
	}
	p.pos++
	return nil
}

// field reads the name of one that comes after the last.
func (p *parser) field(rules []fieldRule, last int) (int, error) {
	start := p.pos
	name, err := p.name()
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(rules, func(r fieldRule) bool { return r.name == name })
	if i > last {
		return i, nil
	}
	p.pos = start
	switch i {
	case -1:
		return 0, p.wrong("unknown field %.70q; want one of %s", name, strings.Join(namesOf(rules), ", "))
	case last:
		return 0, p.wrong("the field %s is given twice", name)
	}
	return 0, p.wrong("the field %s is given twice, or comes after %s; want it before", name, rules[last].name)
}

// isEmpty tells what is not written.
func isEmpty(v reflect.Value) bool {
	return v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0
}

func namesOf(rules []fieldRule) (names []string) {
	for _, r := range rules {
		names = append(names, r.name)
	}
	return names
}

// name reads the name of a field and the colon.
func (p *parser) name() (name string, err error) {
	token, err := p.quoted()
	if err != nil {
		return "", err
	}
	text, err := unquoted(token)
	if err != nil {
		return "", p.wrong("%.70q: %v", token, err)
	}
	p.pos += len(token)
	return string(text), p.next(':')
}

func (p *parser) list(v reflect.Value, l limits) error {
	if err := p.next('['); err != nil {
		return err
	}
	for n := 0; p.peek() != ']'; n++ {
		if n > 0 {
			if err := p.next(','); err != nil {
				return err
			}
		}
		if n == l.length {
			return fmt.Errorf("%w: %s: byte %d: more entries; at most %d", belfry.ErrLimit, p.place(), p.pos, l.length)
		}
		v.Grow(1)
		v.SetLen(n + 1)
		if err := p.below("["+strconv.Itoa(n)+"]", v.Index(n), l.below()); err != nil {
			return err
		}
	}
	p.pos++
	return nil
}

// entries reads a map, whose keys are sorted.
func (p *parser) entries(v reflect.Value, l limits) error {
	if err := p.next('{'); err != nil {
		return err
	}
	v.Set(reflect.MakeMap(v.Type()))
	last := ""
	for n := 0; p.peek() != '}'; n++ {
		if n > 0 {
			if err := p.next(','); err != nil {
				return err
			}
		}
		start := p.pos
		name, err := p.name()
		if err != nil {
			return err
		}
		switch {
		case n == l.length:
			return fmt.Errorf("%w: %s: byte %d: more entries; at most %d", belfry.ErrLimit, p.place(), start, l.length)
		case n > 0 && name == last:
			p.pos = start
			return p.wrong("%.70q is given twice", name)
		case n > 0 && name < last:
			p.pos = start
			return p.wrong("%.70q comes after %.70q; want it before", name, last)
		}
		last = name
		key, value := reflect.ValueOf(name), reflect.New(v.Type().Elem()).Elem()
		if err := (limits{length: l.key}).check(key); err != nil {
			return p.located(start, err)
		}
		if name == "" {
			p.pos = start
			return p.wrong("a name is empty")
		}
		if err := p.below(name, value, l.below()); err != nil {
			return err
		}
		v.SetMapIndex(key, value)
	}
	p.pos++
	return nil
}

// located puts a place before an error that has its sentinel.
func (p *parser) located(pos int, err error) error {
	return fmt.Errorf("%s: byte %d: %w", p.place(), pos, err)
}

// quoted finds the end of a text, quotes included, without taking it.
func (p *parser) quoted() ([]byte, error) {
	if p.peek() != '"' {
		return nil, p.wrong("%s; want text in quotes, without white space", excerpt(p.data, p.pos))
	}
	for i := p.pos + 1; i < len(p.data); i++ {
		switch p.data[i] {
		case '\\':
			i++
		case '"':
			return p.data[p.pos : i+1], nil
		}
	}
	return nil, p.wrong("the text has no end")
}

// text reads what is one text in JSON.
func (p *parser) text(v reflect.Value, l limits) error {
	token, err := p.quoted()
	if err != nil {
		return err
	}
	if l.length > 0 && len(token) > 6*l.length+2 { // no character takes more
		return fmt.Errorf("%w: %s: byte %d: %d bytes; at most %d", belfry.ErrLimit, p.place(), p.pos, len(token)-2, l.length)
	}
	text, err := unquoted(token)
	if err != nil {
		return p.wrong("%.70q: %v", token, err)
	}
	switch {
	case isText(v.Type()):
		to, _ := v.Addr().Interface().(encoding.TextUnmarshaler)
		err = to.UnmarshalText(text)
	case v.Type() == byteList:
		var raw []byte
		if raw, err = base64.StdEncoding.AppendDecode(nil, text); err == nil && len(raw) == 0 {
			err = errors.New("is empty; want base64, or no field")
		}
		v.SetBytes(raw)
	default:
		v.SetString(string(text))
	}
	if err != nil {
		return p.wrong("%.70q: %v", token, err)
	}
	switch {
	case v.Type() == timeType:
		err = checkTime(v)
	case !isText(v.Type()):
		err = l.check(v)
	}
	if err != nil {
		return p.located(p.pos, err)
	}
	p.pos += len(token)
	return nil
}

// unquoted is the text of a token.
func unquoted(token []byte) ([]byte, error) {
	text := token[1 : len(token)-1]
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	if !bytes.ContainsFunc(text, func(c rune) bool { return c == '\\' || c < ' ' }) {
		return text, nil
	}
	var s string
	err := json.Unmarshal(token, &s)
	return []byte(s), err
}

// scalar reads a number, or true or false.
func (p *parser) scalar(v reflect.Value) error {
	end := p.pos
	for end < len(p.data) && strings.IndexByte(",]}\n", p.data[end]) < 0 {
		end++
	}
	token, ok := string(p.data[p.pos:end]), true
	switch bits := v.Type(); {
	case v.Kind() == reflect.Bool:
		if token != "true" && token != "false" {
			return p.wrong("%.70q; want true or false", token)
		}
		v.SetBool(token == "true")
	case v.CanInt():
		n, err := strconv.ParseInt(token, 10, bits.Bits())
		v.SetInt(n)
		ok = err == nil
	default:
		n, err := strconv.ParseUint(token, 10, bits.Bits())
		v.SetUint(n)
		ok = err == nil
	}
	if !ok {
		return p.wrong("%.70q; want a whole number in its range", token)
	}
	p.pos = end
	return nil
}
