package repository

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
)

// A fieldRule is what the tags of one field of the document say.
type fieldRule struct {
	name     string
	required bool // written even if it is empty
	secret   bool
	empty    string // what an empty value means, for people
	limits   limits
}

// limits bound a list or text, then what it holds. Zero: no limit.
type limits struct {
	length, key, text int
	lines             bool // line ends may be in it
}

// below are the limits of what a list or map holds.
func (l limits) below() limits { return limits{length: l.text, lines: l.lines} }

// fieldRules are those of all structures of a document, by type.
var fieldRules = rulesOf(map[reflect.Type][]fieldRule{}, reflect.TypeFor[Document]())

func rulesOf(all map[reflect.Type][]fieldRule, t reflect.Type) map[reflect.Type][]fieldRule {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if _, known := all[t]; known || t.Kind() != reflect.Struct || isText(t) {
		return all
	}
	rules := make([]fieldRule, t.NumField())
	all[t] = rules
	for i := range rules {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		rules[i] = fieldRule{name: name, required: options == "", secret: f.Tag.Get("secret") == "true", empty: f.Tag.Get("empty")}
		l := &rules[i].limits
		l.lines = f.Tag.Get("lines") == "true"
		for j, text := range strings.Split(f.Tag.Get("limit"), ",") {
			n, _ := strconv.Atoi(text) // a test reads the tags too
			switch {
			case j == 0:
				l.length = n
			case j == 1 && f.Type.Kind() == reflect.Map:
				l.key = n
			default:
				l.text = n
			}
		}
		rulesOf(all, f.Type)
	}
	return all
}

var (
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
	timeType = reflect.TypeFor[time.Time]()
	byteList = reflect.TypeFor[[]byte]()
)

// isText tells whether values of a type are one text in JSON: digests, names of
// nodes, addresses, times.
func isText(t reflect.Type) bool {
	if is, known := textTypes[t]; known {
		return is
	}
	return asText(t)
}

// textTypes are the answers for all types of a document: to find one out takes
// longer than to read a value of it.
var textTypes = textTypesOf(map[reflect.Type]bool{}, reflect.TypeFor[Document]())

func textTypesOf(all map[reflect.Type]bool, t reflect.Type) map[reflect.Type]bool {
	if _, known := all[t]; known {
		return all
	}
	all[t] = asText(t)
	switch {
	case t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice:
		return textTypesOf(all, t.Elem())
	case t.Kind() == reflect.Struct && !all[t]:
		for i := range t.NumField() {
			all = textTypesOf(all, t.Field(i).Type)
		}
	}
	return all
}

func asText(t reflect.Type) bool {
	return (t.Kind() == reflect.Array || t.Kind() == reflect.Struct) && reflect.PointerTo(t).Implements(textType)
}

// measure holds every value against the limits of its field.
func measure(v reflect.Value, path string, l limits, out *problems) {
	t := v.Type()
	switch {
	case t == timeType:
		out.add(path, checkTime(v))
	case isText(t):
	case t == byteList || t.Kind() == reflect.String:
		out.add(path, l.check(v))
	case t.Kind() == reflect.Pointer:
		if !v.IsNil() {
			measure(v.Elem(), path, l, out)
		}
	case t.Kind() == reflect.Struct:
		for i, rule := range fieldRules[t] {
			measure(v.Field(i), join(path, rule.name), rule.limits, out)
			if rule.required && v.Field(i).Type() == byteList && v.Field(i).Len() == 0 {
				out.usage(join(path, rule.name), "is missing")
			}
		}
	case t.Kind() == reflect.Slice:
		out.add(path, l.check(v))
		for i := range v.Len() {
			measure(v.Index(i), path+"["+strconv.Itoa(i)+"]", l.below(), out)
		}
	case t.Kind() == reflect.Map:
		out.add(path, l.check(v))
		for _, name := range sortedKeys(v) {
			out.add(join(path, name), limits{length: l.key}.check(reflect.ValueOf(name)))
			measure(v.MapIndex(reflect.ValueOf(name)), join(path, name), l.below(), out)
		}
	}
}

func sortedKeys(v reflect.Value) (names []string) {
	m, _ := v.Interface().(map[string]string) // the only maps of a document
	return keysOf(m)
}

// check wants a list that is not too long, or a text of UTF-8 without control
// characters that is not.
func (l limits) check(v reflect.Value) error {
	if n := v.Len(); n > l.length {
		what := "entries"
		if v.Kind() == reflect.String || v.Type() == byteList {
			what = "bytes"
		}
		return fmt.Errorf("%w: %d %s; at most %d", belfry.ErrLimit, n, what, l.length)
	}
	if v.Kind() != reflect.String {
		return nil
	}
	s := v.String()
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: not UTF-8", belfry.ErrUsage)
	}
	for _, c := range s {
		if unicode.IsControl(c) && (!l.lines || !strings.ContainsRune("\n\t\r", c)) {
			return fmt.Errorf("%w: holds the control character %U; want text in one line", belfry.ErrUsage, c)
		}
	}
	return nil
}

// checkTime wants UTC, so that an instant has one form.
func checkTime(v reflect.Value) error {
	if t, _ := v.Interface().(time.Time); !t.IsZero() && t.Location() != time.UTC {
		return fmt.Errorf("%w: the time %s; want it in UTC", belfry.ErrUsage, t.Format(time.RFC3339Nano))
	}
	return nil
}

// join is the path of a field.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
