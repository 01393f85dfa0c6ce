package repository

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

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
