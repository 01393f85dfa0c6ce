package repository

import (
	"encoding"
	"fmt"
	"reflect"
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
		d.say(section, d.fieldChange(subject, rule.name, was.Interface(), is.Interface()))
	}
}

// fieldChange is empty for values that are written the same.
func (d *differ) fieldChange(subject, name string, a, b any) string {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if same(a, b) || (x.Kind() == reflect.Slice || x.Kind() == reflect.Map) && x.Len() == 0 && y.Len() == 0 {
		return ""
	}
	was, is := shown(a, ""), shown(b, "")
	if was == is || untold[x.Type()] {
		return fmt.Sprintf("%s %s is changed", subject, name)
	}
	return fmt.Sprintf("%s %s %s -> %s", subject, name, was, is)
}

// maxShown is how much of a text is said, in bytes.
const maxShown = 80

// shown is a value as people write it. Of a structure it is what is not empty
// and not the name that it is already called by.
func shown(value any, called string) string {
	v := reflect.ValueOf(value)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "none"
		}
		return shown(v.Elem().Interface(), called)
	}
	if text, ok := shownText(v); ok {
		return text
	}
	switch v.Kind() {
	case reflect.Struct:
		return shownFields(v, called)
	case reflect.Slice:
		var all []string
		for i := range v.Len() {
			all = append(all, shown(v.Index(i).Interface(), ""))
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

func shownFields(v reflect.Value, called string) string {
	var all []string
	for i, rule := range fieldRules[v.Type()] {
		f := v.Field(i)
		if f.IsZero() || rule.secret || untold[f.Type()] {
			continue
		}
		if s := shown(f.Interface(), ""); s == "yes" {
			all = append(all, rule.name)
		} else if s != called {
			all = append(all, rule.name+" "+s)
		}
	}
	return strings.Join(all, ", ")
}
