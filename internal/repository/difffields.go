package repository

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

var documentType = reflect.TypeFor[Document]()

// What is said of values. A digest, a key or an operation says nothing to
// people, and some of them nobody should see.
var untold = map[reflect.Type]bool{byteList: true, reflect.TypeFor[Digest](): true, reflect.TypeFor[OpID](): true}

// fields says which fields of a structure differ.
func (d *differ) fields(section, subject string, a, b any) {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i, rule := range fieldRules[x.Type()] {
		was, is := x.Field(i), y.Field(i)
		if was.Kind() == reflect.Struct && !isText(was.Type()) {
			d.fields(section, subject+" "+rule.name, was.Interface(), is.Interface())
			continue
		}
		if rule.secret {
			if !same(was.Interface(), is.Interface()) {
				d.sayf(section, "%s %s is changed", subject, rule.name)
			}
			continue
		}
		d.say(section, changeOf(subject, rule.name, rule.empty, was.Interface(), is.Interface()))
	}
}

// changeOf is nothing for values that are written the same. An empty one is
// told by the word for it.
func changeOf(subject, name, empty string, a, b any) string {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if same(a, b) || (x.Kind() == reflect.Slice || x.Kind() == reflect.Map) && x.Len() == 0 && y.Len() == 0 {
		return ""
	}
	if untold[x.Type()] {
		return fmt.Sprintf("%s %s is changed", subject, name)
	}
	was, is := shown(a), shown(b)
	if was == is { // longer texts that begin alike
		return fmt.Sprintf("%s %s is changed", subject, name)
	}
	if isEmpty(x) && empty != "" {
		was = empty
	}
	if isEmpty(y) && empty != "" {
		is = empty
	}
	if was == is {
		return fmt.Sprintf("%s %s stays %s, written otherwise", subject, name, is)
	}
	return fmt.Sprintf("%s %s %s -> %s", subject, name, was, is)
}

// maxShown is how much of a text is said, in bytes.
const maxShown = 80

// shown is a value as people write it. Of a structure it is what is not empty,
// without fields that have been said already.
func shown(value any, said ...string) string {
	v := reflect.ValueOf(value)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "none"
		}
		return shown(v.Elem().Interface(), said...)
	}
	if text, ok := shownText(v); ok {
		return text
	}
	switch v.Kind() {
	case reflect.Struct:
		return shownFields(v, said)
	case reflect.Slice:
		var all []string
		for i := range v.Len() {
			all = append(all, shown(v.Index(i).Interface()))
		}
		if len(all) == 0 {
			return "none"
		}
		if len(all) > 16 {
			return strings.Join(all[:16], ", ") + fmt.Sprintf(" and %d more", len(all)-16)
		}
		return strings.Join(all, ", ")
	case reflect.Bool:
		if v.Bool() {
			return "yes"
		}
		return "no"
	}
	return fmt.Sprint(value)
}

// shownText is a value that is one text.
func shownText(v reflect.Value) (string, bool) {
	switch t := v.Type(); {
	case v.IsZero() && (isText(t) || v.Kind() == reflect.String):
		return "none", true
	case untold[t]:
		return "set", true
	case t == timeType:
		at, _ := v.Interface().(time.Time)
		return at.Format(time.RFC3339Nano), true
	case isText(t):
		m, _ := v.Interface().(encoding.TextMarshaler)
		text, err := m.MarshalText()
		if err != nil {
			return "not valid", true
		}
		return string(text), true
	case v.Kind() == reflect.String:
		return quoted(v.String()), true
	}
	return "", false
}

// quoted leaves a text as it is if it is one word.
func quoted(s string) string {
	if len(s) > maxShown {
		return strconv.Quote(s[:maxShown]) + "…"
	}
	if q := strconv.Quote(s); len(q) > len(s)+2 || strings.ContainsAny(s, " ,") {
		return q
	}
	return s
}

func shownFields(v reflect.Value, said []string) string {
	var all []string
	for i, rule := range fieldRules[v.Type()] {
		f := v.Field(i)
		if f.IsZero() || rule.secret || untold[f.Type()] || slices.Contains(said, rule.name) {
			continue
		}
		if s := shown(f.Interface()); f.Kind() == reflect.Bool {
			all = append(all, rule.name)
		} else {
			all = append(all, rule.name+" "+s)
		}
	}
	return strings.Join(all, ", ")
}
