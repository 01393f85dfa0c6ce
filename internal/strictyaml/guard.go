package strictyaml

import (
	"fmt"

	"github.com/goccy/go-yaml/token"
)

// guard refuses tokens that would be expanded, and more nesting and keys than
// any text for people has, before the parser meets them. The place is that of
// the first fault.
func guard(tokens token.Tokens) (place, error) {
	g := guardian{}
	for i, t := range tokens {
		if err := g.see(t, i > 0); err != nil {
			return place{t.Position.Line, t.Position.Column}, err
		}
	}
	return place{}, nil
}

// A guardian follows the nesting of tokens by brackets and columns.
type guardian struct {
	open      []level
	documents int
	last      *token.Token // that is no comment
}

// A level is a list or mapping that is open.
type level struct {
	column int
	flow   bool // in brackets
	list   bool
	keys   int
}

// unwanted is what is refused wherever it stands.
var unwanted = map[token.Type]string{
	token.AnchorType:     "an anchor; write the value out where it is used",
	token.AliasType:      "an alias; write the value out",
	token.MergeKeyType:   "a merge key; write the keys out",
	token.TagType:        "a tag; the types are known, leave it out",
	token.MappingKeyType: "a key in the form ? KEY; write KEY: VALUE",
	token.DirectiveType:  "a directive; leave it out",
}

func (g *guardian) see(t *token.Token, follows bool) error {
	if t.Type == token.CommentType {
		return nil
	}
	last := g.last
	g.last = t
	if what, bad := unwanted[t.Type]; bad {
		return fmt.Errorf("%s", what)
	}
	switch t.Type {
	case token.DocumentHeaderType, token.DocumentEndType:
		g.open = nil
		if g.documents++; follows && t.Type == token.DocumentHeaderType {
			return fmt.Errorf("a second document; one text has one")
		}
	case token.SequenceStartType, token.MappingStartType:
		return g.enter(level{flow: true})
	case token.SequenceEndType, token.MappingEndType:
		for n := len(g.open); n > 0; n-- {
			if g.open[n-1].flow {
				g.open = g.open[:n-1]
				break
			}
		}
	case token.SequenceEntryType:
		if last != nil && last.Type == token.SequenceEntryType && last.Position.Line < t.Position.Line {
			return fmt.Errorf("the entry before has no value; write one, or leave it out") // many of them take the parser seconds
		}
		if !g.inFlow() {
			return g.block(t.Position.Column, true)
		}
	case token.MappingValueType:
		if !g.inFlow() {
			column := t.Position.Column
			if t.Prev != nil && t.Prev.Position != nil {
				column = t.Prev.Position.Column
			}
			if err := g.block(column, false); err != nil {
				return err
			}
		}
		if n := len(g.open); n > 0 {
			if g.open[n-1].keys++; g.open[n-1].keys > maxKeys {
				return fmt.Errorf("more than %d keys in one mapping", maxKeys)
			}
		}
	}
	return nil
}

func (g *guardian) inFlow() bool { return len(g.open) > 0 && g.open[len(g.open)-1].flow }

// block is a list or mapping whose entries begin at a column.
func (g *guardian) block(column int, list bool) error {
	for n := len(g.open); n > 0 && !g.open[n-1].flow; n-- {
		top := g.open[n-1]
		if top.column < column || top.column == column && (top.list == list || list) {
			break
		}
		g.open = g.open[:n-1]
	}
	if n := len(g.open); n > 0 && !g.open[n-1].flow && g.open[n-1].column == column && g.open[n-1].list == list {
		return nil
	}
	return g.enter(level{column: column, list: list})
}

func (g *guardian) enter(l level) error {
	if g.open = append(g.open, l); len(g.open) > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	return nil
}
