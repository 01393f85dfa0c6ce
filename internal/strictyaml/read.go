package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/config"
)

// A reader takes the syntax tree by the types of the value. It reads the tree
// itself, so that every fault has its place and nothing is converted.
type reader struct {
	*Source
	why    func(path string) string
	faults []error
	more   int
}

func (r *reader) wrong(at ast.Node, format string, args ...any) {
	if len(r.faults) == maxProblems {
		r.more++
		return
	}
	r.faults = append(r.faults, r.fault(placeOf(at), format, args...))
}

func (r *reader) err() error {
	if r.more > 0 {
		r.faults = append(r.faults, fault{fmt.Sprintf("%s: and %d more faults; correct these first", r.file, r.more), belfry.ErrUsage})
	}
	return errors.Join(r.faults...)
}

// placeOf is where a node begins; a mapping without brackets begins with its
// first key, not with the colon that the parser names.
func placeOf(at ast.Node) place {
	switch node := at.(type) {
	case *ast.MappingValueNode:
		return placeOf(node.Key)
	case *ast.MappingNode:
		if !node.IsFlowStyle && len(node.Values) > 0 {
			return placeOf(node.Values[0].Key)
		}
	}
	if t := at.GetToken(); t != nil && t.Position != nil {
		return place{t.Position.Line, t.Position.Column}
	}
	return place{1, 1}
}

func (r *reader) top(body ast.Node, into any) {
	v := reflect.ValueOf(into).Elem()
	switch body.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		r.object(body, v, "")
	case *ast.CommentGroupNode:
	default:
		r.wrong(body, "the text is %s; want keys: %s", kindOf(body), strings.Join(namesOf(v.Type()), ", "))
	}
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// isText tells whether values of a type are one text.
func isText(t reflect.Type) bool {
	return (t.Kind() == reflect.Array || t.Kind() == reflect.Struct) && reflect.PointerTo(t).Implements(textType)
}

func (r *reader) value(node ast.Node, v reflect.Value, path string) {
	t := v.Type()
	if _, null := node.(*ast.NullNode); null {
		r.wrong(node, "%s has no value; want %s, or leave it out", path, wanted(t))
		return
	}
	switch {
	case isText(t), t.Kind() == reflect.String:
		r.text(node, v, path)
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		r.value(node, v.Elem(), path)
	case t.Kind() == reflect.Slice:
		r.list(node, v, path)
	case t.Kind() == reflect.Map, t.Kind() == reflect.Struct:
		r.object(node, v, path)
	case t.Kind() == reflect.Bool:
		b, ok := node.(*ast.BoolNode)
		if !ok {
			r.wrong(node, "%s is %s; want %s", path, kindOf(node), wanted(t))
			return
		}
		v.SetBool(b.Value)
	default:
		r.number(node, v, path)
	}
}

// object reads the keys of a mapping into a structure or a map.
func (r *reader) object(node ast.Node, v reflect.Value, path string) {
	var pairs []*ast.MappingValueNode
	switch node := node.(type) {
	case *ast.MappingNode:
		pairs = node.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{node}
	default:
		r.wrong(node, "%s is %s; want %s", path, kindOf(node), wanted(v.Type()))
		return
	}
	if v.Kind() == reflect.Map && v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, pair := range pairs {
		name, ok := scalarText(pair.Key)
		if !ok {
			r.wrong(pair.Key, "a key is a word; %s is not", kindOf(pair.Key))
			continue
		}
		at := join(path, name)
		if r.Has(at) { // the parser refuses most of them
			r.wrong(pair.Key, "%s is given twice; keep one", at)
			continue
		}
		if v.Kind() == reflect.Map {
			r.places[at] = placeOf(pair.Key)
			entry := reflect.New(v.Type().Elem()).Elem()
			r.value(pair.Value, entry, at)
			v.SetMapIndex(reflect.ValueOf(name), entry)
			continue
		}
		i := fieldOf(v.Type(), name)
		if i < 0 {
			r.unknown(pair.Key, v.Type(), path, name)
			continue
		}
		r.places[at] = placeOf(pair.Key)
		r.value(pair.Value, v.Field(i), at)
	}
}

// unknown words a key that a structure does not have.
func (r *reader) unknown(key ast.Node, t reflect.Type, path, name string) {
	at := join(path, name)
	if r.why != nil {
		if why := r.why(at); why != "" {
			r.wrong(key, "%s", why)
			return
		}
	}
	known := namesOf(t)
	if near, ok := config.Nearest(name, known); ok {
		r.wrong(key, "unknown key %s; did you mean %s?", shortened(at), join(path, near))
		return
	}
	r.wrong(key, "unknown key %s; want one of %s", shortened(at), strings.Join(known, ", "))
}

func (r *reader) list(node ast.Node, v reflect.Value, path string) {
	s, ok := node.(*ast.SequenceNode)
	if !ok {
		r.wrong(node, "%s is %s; want %s", path, kindOf(node), wanted(v.Type()))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values)))
	for i, item := range s.Values {
		at := path + "[" + strconv.Itoa(i) + "]"
		r.places[at] = placeOf(item)
		r.value(item, v.Index(i), at)
	}
}

// text reads a text, or what has one. A type with a text of its own, or a
// [Scalar], may look like a number: 10 digits of a digest.
func (r *reader) text(node ast.Node, v reflect.Value, path string) {
	strict := v.Kind() == reflect.String && v.Type() != reflect.TypeFor[Scalar]()
	text, ok := scalarText(node)
	if _, isText := node.(*ast.StringNode); strict && !isText {
		_, literal := node.(*ast.LiteralNode)
		ok = ok && literal
	}
	if !ok {
		want := wanted(v.Type())
		switch node.(type) { // in {a: 10.0.1.1:7432} the parser sees another key and value
		case *ast.MappingNode, *ast.MappingValueNode:
			want = strings.TrimSuffix(want, " (put it in quotes)") + ", in quotes if there is a colon in it"
		}
		r.wrong(node, "%s is %s; want %s", path, kindOf(node), want)
		return
	}
	if v.Kind() == reflect.String {
		v.SetString(text)
		return
	}
	to, _ := v.Addr().Interface().(encoding.TextUnmarshaler)
	if err := to.UnmarshalText([]byte(text)); err != nil {
		if _, known := wants[v.Type()]; known || text == "" {
			r.wrong(node, "%s: %q; want %s", path, shortened(text), wanted(v.Type()))
			return
		}
		r.wrong(node, "%s: %q: %v", path, shortened(text), err)
	}
}

func (r *reader) number(node ast.Node, v reflect.Value, path string) {
	if _, ok := node.(*ast.IntegerNode); !ok {
		r.wrong(node, "%s is %s; want %s", path, kindOf(node), wanted(v.Type()))
		return
	}
	text, _ := scalarText(node)
	var err error
	if v.CanInt() {
		var n int64
		n, err = strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
	} else {
		var n uint64
		n, err = strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(n)
	}
	if err != nil {
		r.wrong(node, "%s is %s; want %s", path, shortened(text), wanted(v.Type()))
	}
}

// scalarText is what a plain or quoted scalar says, as it is written.
func scalarText(node ast.Node) (string, bool) {
	switch node := node.(type) {
	case *ast.StringNode:
		return node.Value, true
	case *ast.LiteralNode:
		return node.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, true
	}
	return "", false
}

// wants words the types that have a text.
var wants = map[reflect.Type]string{
	reflect.TypeFor[netip.Addr]():       "an IP address like 10.0.1.1",
	reflect.TypeFor[netip.AddrPort]():   "an address like 10.0.1.1:7432",
	reflect.TypeFor[netip.Prefix]():     "a prefix like 10.0.1.0/24",
	reflect.TypeFor[time.Time]():        "a time like 2026-12-31T23:59:59Z",
	reflect.TypeFor[belfry.ClusterID](): "the UUID of a cluster",
	reflect.TypeFor[belfry.NodeID]():    "the UUID of a node",
	reflect.TypeFor[Scalar]():           "a value",
}

// wanted says what a type takes.
func wanted(t reflect.Type) string {
	if what, ok := wants[t]; ok {
		return what
	}
	switch {
	case isText(t):
		return "text"
	case t.Kind() == reflect.Pointer:
		return wanted(t.Elem())
	case t.Kind() == reflect.String:
		return "text (put it in quotes)"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "a list; [] is an empty one"
	case t.Kind() == reflect.Map:
		return "names with values; {} is none"
	case t.Kind() == reflect.Struct:
		return "keys: " + strings.Join(namesOf(t), ", ")
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		return fmt.Sprintf("a whole number from 0 to %d, in digits", uint64(1)<<(t.Bits()-1)<<1-1)
	}
	return "a whole number, in digits"
}

func kindOf(node ast.Node) string {
	switch node.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode:
		return "a whole number"
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number with a fraction"
	case *ast.BoolNode:
		return "a truth value"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a group of keys"
	case *ast.NullNode:
		return "empty"
	}
	return "something else"
}

// maxShown is how much of a text is repeated in a fault, in bytes.
const maxShown = 70

func shortened(text string) string {
	if len(text) > maxShown {
		return strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// fieldName is the name of a field in YAML; empty: it has none.
func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" {
		return ""
	}
	return name
}

func fieldOf(t reflect.Type, name string) int {
	for i := range t.NumField() {
		if fieldName(t.Field(i)) == name && name != "" {
			return i
		}
	}
	return -1
}

func namesOf(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		if name := fieldName(t.Field(i)); name != "" {
			names = append(names, name)
		}
	}
	return names
}
