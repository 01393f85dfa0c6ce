package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// parse takes the settings of a YAML text. It reads the syntax tree itself
// instead of unmarshalling: so every fault has its line, all are found in one
// go, and nothing is converted or expanded (no aliases, no merge keys).
func (s *Settings) parse(file string, text []byte) []error {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return []error{syntaxFault(file, err)}
	}
	p := &fileParser{file: file, settings: s}
	documents := 0
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue // comments only
		}
		if documents++; documents > 1 {
			p.fault(doc.Body, "second document; one file has one")
			break
		}
		p.mapping("", doc.Body)
	}
	return p.faults
}

// syntaxFault keeps line and message of the parser's error and leaves out its
// picture of the source.
func syntaxFault(file string, err error) error {
	var at yaml.Error
	if errors.As(err, &at) {
		line := 1
		if t := at.GetToken(); t != nil && t.Position != nil {
			line = t.Position.Line
		}
		return faultf("%s:%d: not YAML: %s", file, line, at.GetMessage())
	}
	return faultf("%s: not YAML: %v", file, err)
}

type fileParser struct {
	file     string
	settings *Settings
	faults   []error
}

func (p *fileParser) fault(at ast.Node, format string, args ...any) {
	line := 1
	if t := at.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	p.faults = append(p.faults, faultf("%s:%d: %s", p.file, line, fmt.Sprintf(format, args...)))
}

// mapping takes a node whose keys continue prefix ("web." or "").
func (p *fileParser) mapping(prefix string, node ast.Node) {
	switch node := node.(type) {
	case *ast.MappingNode:
		for _, v := range node.Values {
			p.value(prefix, v)
		}
	case *ast.MappingValueNode:
		p.value(prefix, node)
	case *ast.NullNode, *ast.CommentGroupNode: // a section with nothing in it
	default:
		name := strings.TrimSuffix(prefix, ".")
		if name == "" {
			name = "the file"
		}
		p.fault(node, "%s is %s; it holds keys: %s", name, kindOf(node), strings.Join(children(prefix), ", "))
	}
}

func (p *fileParser) value(prefix string, v *ast.MappingValueNode) {
	part, ok := scalarText(v.Key)
	if !ok {
		p.fault(v.Key, "a key is a word; %s is not", kindOf(v.Key))
		return
	}
	name := prefix + part
	if k, ok := find(name); ok {
		p.scalar(k, v.Value)
		return
	}
	if name == "handlers" {
		p.handlers(v.Value)
		return
	}
	if name == "resources" {
		p.resources(v.Value)
		return
	}
	known := children(prefix)
	if prefix == "" {
		known = append(known, "handlers", "resources")
	}
	for _, c := range known {
		if c == part {
			p.mapping(name+".", v.Value)
			return
		}
	}
	for i := range known {
		known[i] = prefix + known[i]
	}
	p.fault(v.Key, "unknown key %s%s", name, didYouMean(name, known))
}

// scalar takes the value of one setting; its type is strict.
func (p *fileParser) scalar(k key, node ast.Node) {
	if k.list != nil {
		if !setList(k.list(p.settings), node) {
			p.fault(node, "%s is %s; it is %s", k.name, kindOf(node), k.wants())
		}
		return
	}
	switch node.(type) {
	case *ast.NullNode:
		p.fault(node, "%s has no value; leave the key out for its default", k.name)
		return
	case *ast.StringNode, *ast.LiteralNode, *ast.IntegerNode, *ast.BoolNode:
	default:
		p.fault(node, "%s is %s; it is %s", k.name, kindOf(node), k.wants())
		return
	}
	_, number := node.(*ast.IntegerNode)
	_, flag := node.(*ast.BoolNode)
	if number != (k.number != nil) || flag != (k.flag != nil) {
		p.fault(node, "%s is %s; it is %s", k.name, kindOf(node), k.wants())
		return
	}
	text, _ := scalarText(node)
	if err := k.set(p.settings, text); err != nil {
		p.fault(node, "%s: %v", k.name, err)
	}
}

func (k key) wants() string {
	switch {
	case k.number != nil:
		return "a whole number"
	case k.list != nil:
		return "text, or a list of texts"
	case k.flag != nil:
		return "true or false"
	}
	return "text (put it in quotes)"
}

// scalarText is what a plain or quoted scalar says.
func scalarText(node ast.Node) (string, bool) {
	switch node := node.(type) {
	case *ast.StringNode:
		return node.Value, true
	case *ast.LiteralNode:
		return node.Value.Value, true
	case *ast.IntegerNode:
		return node.GetToken().Value, true
	case *ast.BoolNode:
		return strconv.FormatBool(node.Value), true
	case *ast.MappingKeyNode:
		return scalarText(node.Value)
	}
	return "", false
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
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor or alias"
	case *ast.NullNode:
		return "empty"
	}
	return "something else"
}
