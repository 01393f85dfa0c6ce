package strictyaml

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Write is a structure in the YAML that [Read] takes: fields in their order,
// keys of maps sorted, what is left out in JSON left out here. Fields with the
// tag secret are never written. A type without a YAML form is a panic.
func Write(v any) []byte {
	var w writer
	w.fields(reflect.ValueOf(v), 0)
	return w.Bytes()
}

// lineWidth is how long a list of words may get before each has its line, in
// bytes.
const lineWidth = 100

type writer struct{ bytes.Buffer }

func (w *writer) indent(n int) { fmt.Fprintf(w, "%*s", 2*n, "") }

// fields writes the fields of a structure that are to be written.
func (w *writer) fields(v reflect.Value, depth int) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !written(f, v.Field(i)) {
			continue
		}
		w.indent(depth)
		w.WriteString(fieldName(f) + ":")
		w.value(v.Field(i), depth)
	}
}

// written tells whether a field is in the text.
func written(f reflect.StructField, v reflect.Value) bool {
	_, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	empty := v.IsZero()
	if options == "omitempty" && (v.Kind() == reflect.Slice || v.Kind() == reflect.Map || v.Kind() == reflect.String) {
		empty = v.Len() == 0
	}
	return fieldName(f) != "" && f.Tag.Get("secret") != "true" && (options == "" || !empty)
}

// value writes what stands behind a colon, and the line end.
func (w *writer) value(v reflect.Value, depth int) {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if text, ok := scalar(v); ok {
		w.WriteString(" " + text + "\n")
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		before := w.Len()
		w.WriteString("\n")
		w.fields(v, depth+1)
		w.emptied(before, "{}")
	case reflect.Map:
		before := w.Len()
		w.WriteString("\n")
		for _, name := range slices.Sorted(maps.Keys(mapOf(v))) {
			w.indent(depth + 1)
			w.WriteString(quoted(name) + ":")
			w.value(mapOf(v)[name], depth+1)
		}
		w.emptied(before, "{}")
	case reflect.Slice:
		w.list(v, depth)
	default:
		panic(fmt.Sprintf("no YAML for %v", v.Type()))
	}
}

// emptied writes the sign for nothing where nothing came.
func (w *writer) emptied(before int, sign string) {
	if w.Len() == before+1 {
		w.Truncate(before)
		w.WriteString(" " + sign + "\n")
	}
}

func mapOf(v reflect.Value) map[string]reflect.Value {
	m := map[string]reflect.Value{}
	for _, k := range v.MapKeys() {
		m[k.String()] = v.MapIndex(k)
	}
	return m
}

// list writes words in one line, if they fit, and all else line by line.
func (w *writer) list(v reflect.Value, depth int) {
	var words []string
	for i := range v.Len() {
		if text, ok := scalar(v.Index(i)); ok {
			words = append(words, text)
		}
	}
	line := " [" + strings.Join(words, ", ") + "]\n"
	if len(words) == v.Len() && len(line) <= lineWidth {
		w.WriteString(line)
		return
	}
	w.WriteString("\n")
	for i := range v.Len() {
		w.indent(depth + 1)
		if len(words) == v.Len() {
			w.WriteString("- " + words[i] + "\n")
			continue
		}
		var inner writer
		inner.fields(v.Index(i), depth+2)
		first, rest, _ := strings.Cut(inner.String(), "\n")
		if first == "" {
			first = "{}"
		}
		w.WriteString("- " + strings.TrimLeft(first, " ") + "\n" + rest)
	}
}

// scalar is a value that is one word or text.
func scalar(v reflect.Value) (string, bool) {
	switch t := v.Type(); {
	case v.Kind() == reflect.Pointer && v.IsNil():
		return "null", true
	case isText(t):
		m, _ := v.Interface().(encoding.TextMarshaler)
		text, err := m.MarshalText()
		if err != nil {
			panic(err)
		}
		return quoted(string(text)), true
	case t == reflect.TypeFor[Scalar]():
		if s := v.String(); number.MatchString(s) {
			return s, true
		}
		return quoted(v.String()), true
	case v.Kind() == reflect.String:
		return quoted(v.String()), true
	case t == reflect.TypeFor[[]byte]():
		return quoted(base64.StdEncoding.EncodeToString(v.Bytes())), true
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool()), true
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10), true
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10), true
	}
	return "", false
}

// What may stand without quotes: words, durations, shares, addresses of IPv4. Every
// YAML reader takes these as text, but for the words that some take as truth
// values or as nothing.
var (
	word     = regexp.MustCompile(`^[A-Za-z/_][A-Za-z0-9_./%+-]*(:[A-Za-z0-9_./%+-]+)*$`)
	amount   = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?(ms|s|m|h|%)([0-9]+(ms|s|m|h))*$`)
	ipv4     = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2}|:[0-9]{1,5})?$`)
	number   = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?$`)
	reserved = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null|nan|inf|infinity)$`)
)

// quoted is a text as it stands in YAML.
func quoted(s string) string {
	if word.MatchString(s) && !reserved.MatchString(s) || amount.MatchString(s) || ipv4.MatchString(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteString(`\` + string(c))
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\r':
			b.WriteString(`\r`)
		case unicode.IsPrint(c) && c != '\ufeff':
			b.WriteRune(c)
		case c <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			fmt.Fprintf(&b, `\U%08x`, c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
