package strictyaml

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/config"
)

// A Value is one scalar of a structure: a text, number or truth value, or what has
// a text of its own.
type Value struct {
	v     reflect.Value
	put   func(reflect.Value) // of a map, whose entries are no variables; nil: v is one
	path  string
	empty string // what the tag empty says of nothing
}

// Find names one scalar of what root points at by its path: names of fields and
// keys of maps, and of an entry of a list its field name or its number from 0:
// networks.net2.priority, handlers[0].limit. A name with a dot stands in brackets:
// resources[share/FS.1/data].watch. ErrUsage says what there is.
//
// Root is what Value.Set changes; it must share nothing that is not to change.
func Find(root any, path string) (Value, error) {
	steps, err := stepsOf(path)
	if err != nil {
		return Value{}, err
	}
	f := finder{value: Value{v: reflect.ValueOf(root).Elem()}}
	for _, step := range steps {
		if err := f.step(step); err != nil {
			return Value{}, err
		}
	}
	f.value.path = path
	return f.value, f.end()
}

// A finder is on its way along a path.
type finder struct{ value Value }

// stepsOf cuts a path.
func stepsOf(path string) (steps []string, err error) {
	for rest := path; rest != ""; {
		if name, inside := strings.CutPrefix(rest, "["); inside {
			name, after, closed := strings.Cut(name, "]")
			if !closed || name == "" {
				return nil, fmt.Errorf("%w: path %q: a bracket is open or empty; write for example handlers[0].limit", belfry.ErrUsage, path)
			}
			steps, rest = append(steps, name), strings.TrimPrefix(after, ".")
			continue
		}
		n := strings.IndexAny(rest, ".[")
		if n < 0 {
			n = len(rest)
		}
		if n == 0 {
			return nil, fmt.Errorf("%w: path %q: a name is missing; write for example networks.net2.priority", belfry.ErrUsage, path)
		}
		steps, rest = append(steps, rest[:n]), strings.TrimPrefix(rest[n:], ".")
	}
	return steps, nil
}

// step goes into one part.
func (f *finder) step(name string) error {
	f.open()
	v := f.value.v
	switch {
	case isText(v.Type()):
		return fmt.Errorf("%w: %s is one value; %s is not in it", belfry.ErrUsage, f.value.path, name)
	case v.Kind() == reflect.Struct:
		return f.field(name)
	case v.Kind() == reflect.Map:
		return f.key(name)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct && !isText(v.Type().Elem()):
		return f.entry(name)
	}
	return fmt.Errorf("%w: %s is %s; %s is not in it", belfry.ErrUsage, f.value.path, strings.Split(f.value.Wants(), ";")[0], name)
}

// open follows a pointer, and makes what is not there.
func (f *finder) open() {
	for f.value.v.Kind() == reflect.Pointer {
		if f.value.v.IsNil() {
			f.value.v.Set(reflect.New(f.value.v.Type().Elem()))
		}
		f.value.v = f.value.v.Elem()
	}
}

func (f *finder) field(name string) error {
	t := f.value.v.Type()
	i := fieldOf(t, name)
	if i < 0 {
		return f.unknown("key", name, namesOf(t))
	}
	f.value.empty = t.Field(i).Tag.Get("empty")
	f.value.v, f.value.path = f.value.v.Field(i), join(f.value.path, name)
	return nil
}

func (f *finder) key(name string) error {
	m := f.value.v
	entry := reflect.New(m.Type().Elem()).Elem()
	if had := m.MapIndex(reflect.ValueOf(name)); had.IsValid() {
		entry.Set(had)
	}
	f.value.put = func(v reflect.Value) {
		if m.IsNil() {
			m.Set(reflect.MakeMap(m.Type()))
		}
		m.SetMapIndex(reflect.ValueOf(name), v)
	}
	f.value.v, f.value.path = entry, join(f.value.path, name)
	return nil
}

// entry is the one of that name, or else of that number.
func (f *finder) entry(name string) error {
	list := f.value.v
	var names []string
	nameField := fieldOf(list.Type().Elem(), "name")
	for i := range list.Len() {
		if nameField < 0 {
			break
		}
		known := list.Index(i).Field(nameField).String()
		if names = append(names, known); known == name {
			f.value.v, f.value.path = list.Index(i), join(f.value.path, name)
			return nil
		}
	}
	i, err := strconv.Atoi(name)
	switch {
	case err == nil && i >= 0 && i < list.Len():
		f.value.v, f.value.path = list.Index(i), f.value.path+"["+name+"]"
		return nil
	case list.Len() == 0:
		return fmt.Errorf("%w: %s is empty; entries come with belfry config edit", belfry.ErrUsage, f.value.path)
	case nameField < 0:
		return fmt.Errorf("%w: %s[%s]: there is no such entry; want a number from 0 to %d", belfry.ErrUsage, f.value.path, name, list.Len()-1)
	}
	return f.unknown("entry", name, names)
}

func (f *finder) unknown(what, name string, known []string) error {
	return Unknown(what, f.value.path, name, known)
}

// Unknown is ErrUsage for a name that is none of those below a path, which may be
// empty; it says which one is near.
func Unknown(what, path, name string, known []string) error {
	at := join(path, shortened(name))
	if near, ok := config.Nearest(name, known); ok {
		return fmt.Errorf("%w: unknown %s %s; did you mean %s?", belfry.ErrUsage, what, at, join(path, near))
	}
	return fmt.Errorf("%w: unknown %s %s; want one of %s", belfry.ErrUsage, what, at, strings.Join(known, ", "))
}

// end refuses what is more than one value.
func (f *finder) end() error {
	v := f.value.v
	t := v.Type()
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case isText(t):
	case t.Kind() == reflect.Struct:
		return fmt.Errorf("%w: %s has several values; name one: %s", belfry.ErrUsage, f.value.path, strings.Join(namesOf(t), ", "))
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
		return fmt.Errorf("%w: %s is %s, and no single value; change it with belfry config edit", belfry.ErrUsage, f.value.path, strings.Split(wanted(t), ";")[0])
	}
	return nil
}

// Text is the value as Set takes it. What is not there is what the tag empty says
// of it, or nothing.
func (s Value) Text() string {
	v := s.v
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return s.empty
		}
		v = v.Elem()
	}
	if isText(v.Type()) {
		if v.IsZero() {
			return s.empty
		}
		m, _ := v.Interface().(encoding.TextMarshaler)
		text, err := m.MarshalText()
		if err != nil {
			return ""
		}
		return string(text)
	}
	if v.Kind() == reflect.String {
		return cmp.Or(v.String(), s.empty)
	}
	return fmt.Sprint(v.Interface())
}

// Wants says what the value may be, for people.
func (s Value) Wants() string {
	t := s.v.Type()
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return strings.TrimSuffix(wanted(t), " (put it in quotes)")
}

// Default is what the tag empty says of nothing; empty: it says nothing.
func (s Value) Default() string { return s.empty }

// Written tells whether the value is there and not that of nothing.
func (s Value) Written() bool { return !s.v.IsZero() }

// Set writes a value. Where the tag empty says something of nothing, that word
// takes the value away. ErrUsage says what would be right.
func (s Value) Set(text string) error {
	v := s.v
	if s.empty != "" && text == s.empty {
		v.SetZero()
		return nil
	}
	for v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	var err error
	switch to, isTexter := v.Addr().Interface().(encoding.TextUnmarshaler); {
	case isText(v.Type()) && text == "":
		v.SetZero() // as if it were left out
	case isText(v.Type()) && isTexter:
		err = to.UnmarshalText([]byte(text))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		v.SetBool(text == "true")
		if text != "true" && text != "false" {
			err = strconv.ErrSyntax
		}
	case v.CanInt():
		var n int64
		n, err = strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
	case v.CanUint():
		var n uint64
		n, err = strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(n)
	}
	if err != nil {
		return fmt.Errorf("%w: %s is %q; want %s", belfry.ErrUsage, s.path, shortened(text), s.Wants())
	}
	if s.put != nil {
		s.put(s.v)
	}
	return nil
}
