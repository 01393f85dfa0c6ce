package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/belfry-ha/belfry"
)

// A Handler runs a command for each notification of its events. Texts have the
// forms of the flags of belfry watch; what they mean for a class is judged when
// the handler is registered.
type Handler struct {
	Name        string   // 1 to 63 of a-z, 0-9 and -
	On          []string // selectors, at least one
	Where       string
	Scope       string // local or cluster
	Nodes       []string
	Edge        string
	Over        string
	Under       string
	Rearm       string
	Hold        time.Duration
	MinInterval time.Duration
	Flap        string
	Limit       int
	Snapshot    bool          // begin with the present states
	Gaps        bool          // run for gaps, too
	RunOn       string        // every, origin or one
	Exec        []string      // the program, an absolute path, and its arguments
	Timeout     time.Duration // of a run; 1 s to 1 h
	Attempts    int           // before a dead letter; 1 to 100
}

// The values of Handler.RunOn.
const (
	RunOnEvery  = "every"  // each node that has the handler
	RunOnOrigin = "origin" // the node where it happened
	RunOnOne    = "one"    // one of the nodes that have the handler
)

func newHandler(name string) Handler {
	return Handler{
		Name: name, Scope: "local", Edge: "both", RunOn: RunOnEvery, Gaps: true,
		Timeout: 30 * time.Second, Attempts: 5,
	}
}

// A handlerKey is one setting of a handler; exactly one of its functions is set.
type handlerKey struct {
	name     string
	text     func(*Handler) *string
	list     func(*Handler) *[]string // one text stands for a list of one
	duration func(*Handler) *time.Duration
	number   func(*Handler) *int
	truth    func(*Handler) *bool
}

var handlerKeys = []handlerKey{
	{name: "attempts", number: func(h *Handler) *int { return &h.Attempts }},
	{name: "edge", text: func(h *Handler) *string { return &h.Edge }},
	{name: "exec", list: func(h *Handler) *[]string { return &h.Exec }},
	{name: "flap", text: func(h *Handler) *string { return &h.Flap }},
	{name: "gaps", truth: func(h *Handler) *bool { return &h.Gaps }},
	{name: "hold", duration: func(h *Handler) *time.Duration { return &h.Hold }},
	{name: "limit", number: func(h *Handler) *int { return &h.Limit }},
	{name: "min_interval", duration: func(h *Handler) *time.Duration { return &h.MinInterval }},
	{name: "nodes", list: func(h *Handler) *[]string { return &h.Nodes }},
	{name: "on", list: func(h *Handler) *[]string { return &h.On }},
	{name: "over", text: func(h *Handler) *string { return &h.Over }},
	{name: "rearm", text: func(h *Handler) *string { return &h.Rearm }},
	{name: "run_on", text: func(h *Handler) *string { return &h.RunOn }},
	{name: "scope", text: func(h *Handler) *string { return &h.Scope }},
	{name: "snapshot", truth: func(h *Handler) *bool { return &h.Snapshot }},
	{name: "timeout", duration: func(h *Handler) *time.Duration { return &h.Timeout }},
	{name: "under", text: func(h *Handler) *string { return &h.Under }},
	{name: "where", text: func(h *Handler) *string { return &h.Where }},
}

func (k handlerKey) wants() string {
	switch {
	case k.list != nil:
		return "text, or a list of texts"
	case k.duration != nil:
		return "a duration with its unit, for example 30s"
	case k.number != nil:
		return "a whole number"
	case k.truth != nil:
		return "true or false"
	}
	return "text (put it in quotes)"
}

// handlers takes the section of that name.
func (p *fileParser) handlers(node ast.Node) {
	p.each("handlers", node, func(name string, v *ast.MappingValueNode) {
		h := newHandler(name)
		p.each("handlers."+name, v.Value, func(part string, v *ast.MappingValueNode) { p.handlerValue(&h, part, v) })
		p.settings.Handlers = append(p.settings.Handlers, h)
	})
	slices.SortFunc(p.settings.Handlers, func(a, b Handler) int { return strings.Compare(a.Name, b.Name) })
}

// each calls do for the keys of a group.
func (p *fileParser) each(name string, node ast.Node, do func(string, *ast.MappingValueNode)) {
	var values []*ast.MappingValueNode
	switch node := node.(type) {
	case *ast.MappingNode:
		values = node.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{node}
	case *ast.NullNode, *ast.CommentGroupNode:
	default:
		p.fault(node, "%s is %s; it is a group of keys", name, kindOf(node))
	}
	for _, v := range values {
		if key, ok := scalarText(v.Key); ok {
			do(key, v)
		} else {
			p.fault(v.Key, "a key is a word; %s is not", kindOf(v.Key))
		}
	}
}

func (p *fileParser) handlerValue(h *Handler, part string, v *ast.MappingValueNode) {
	name := "handlers." + h.Name + "." + part
	i := slices.IndexFunc(handlerKeys, func(k handlerKey) bool { return k.name == part })
	if i < 0 {
		var known []string
		for _, k := range handlerKeys {
			known = append(known, k.name)
		}
		p.fault(v.Key, "unknown key %s%s", name, didYouMean(part, known))
		return
	}
	k := handlerKeys[i]
	if !k.set(h, v.Value) {
		p.fault(v.Value, "%s is %s; it is %s", name, kindOf(v.Value), k.wants())
	}
}

// set takes a value of the right type; false: it is of another.
func (k handlerKey) set(h *Handler, node ast.Node) bool {
	text, isText := textOf(node)
	switch {
	case k.text != nil && isText:
		*k.text(h) = text
	case k.list != nil:
		return setList(k.list(h), node)
	case k.duration != nil && isText:
		d, err := time.ParseDuration(text)
		*k.duration(h) = d
		return err == nil
	case k.number != nil:
		digits, ok := node.(*ast.IntegerNode)
		if !ok {
			return false
		}
		n, err := strconv.Atoi(digits.GetToken().Value)
		*k.number(h) = n
		return err == nil
	case k.truth != nil:
		b, ok := node.(*ast.BoolNode)
		if ok {
			*k.truth(h) = b.Value
		}
		return ok
	default:
		return false
	}
	return true
}

// textOf is what a text says; numbers and truth values are none.
func textOf(node ast.Node) (string, bool) {
	switch node.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return scalarText(node)
	}
	return "", false
}

func setList(list *[]string, node ast.Node) bool {
	if text, ok := textOf(node); ok {
		*list = []string{text}
		return true
	}
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		return false
	}
	*list = nil
	for _, v := range sequence.Values {
		text, ok := textOf(v)
		if !ok {
			return false
		}
		*list = append(*list, text)
	}
	return true
}

// maxHandlers bounds what one node runs.
const maxHandlers = 100

func (s Settings) validHandlers() (faults []error) {
	if len(s.Handlers) > maxHandlers {
		faults = append(faults, faultf("handlers: %d of them; at most %d", len(s.Handlers), maxHandlers))
	}
	for _, h := range s.Handlers {
		for _, err := range h.faults() {
			faults = append(faults, faultf("handlers.%s: %v", h.Name, err))
		}
	}
	return faults
}

func (h Handler) faults() (faults []error) {
	check := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	if h.Name == "" {
		check(faultf("no name; use 1 to 63 of a-z, 0-9 and -"))
	} else if validName(h.Name) != nil {
		check(faultf("%q is no name of a handler; use 1 to 63 of a-z, 0-9 and -, not first or last a -", h.Name))
	}
	if len(h.On) == 0 || slices.Contains(h.On, "") {
		check(faultf("on names no event; for example on: node.state"))
	}
	switch {
	case len(h.Exec) == 0:
		check(faultf("exec is missing; for example exec: [/etc/belfry/page, --now]"))
	case !filepath.IsAbs(h.Exec[0]):
		check(faultf("exec %q is not an absolute path; it is never run by a shell", h.Exec[0]))
	case slices.ContainsFunc(h.Exec, func(word string) bool { return strings.ContainsRune(word, 0) }):
		check(faultf("exec holds a zero byte"))
	}
	for _, word := range []struct {
		key, value string
		known      []string
	}{
		{"scope", h.Scope, []string{"local", "cluster"}},
		{"edge", h.Edge, []string{"both", "failing", "recovered"}},
		{"run_on", h.RunOn, []string{RunOnEvery, RunOnOrigin, RunOnOne}},
	} {
		if err := oneOf(word.value, word.known...); err != nil {
			check(faultf("%s %v", word.key, err))
		}
	}
	if h.RunOn == RunOnOne && h.Scope != "cluster" {
		check(faultf("run_on one shares the events of the cluster; add scope: cluster"))
	}
	if len(h.Nodes) > 0 && h.Scope != "cluster" {
		check(faultf("nodes are given but the scope is local; add scope: cluster"))
	}
	if h.Flap != "" {
		_, err := belfry.ParseFlap(h.Flap)
		check(plain(err))
	}
	if h.Timeout < time.Second || h.Timeout > time.Hour {
		check(faultf("timeout %s; 1s to 1h are possible", h.Timeout))
	}
	if h.Attempts < 1 || h.Attempts > 100 {
		check(faultf("attempts %d; 1 to 100 are possible", h.Attempts))
	}
	return faults
}

// checkHandlers refuses handlers from a file that others may write: who writes
// it has commands run with the agent's rights.
func (s Settings) checkHandlers(file string) error {
	if len(s.Handlers) == 0 {
		return nil
	}
	at, err := os.Stat(file)
	if err != nil {
		return &belfry.Error{Op: "handlers", Subject: file, Err: fileFault(err)}
	}
	if mode := at.Mode().Perm(); mode&0o022 != 0 {
		return &belfry.Error{Op: "handlers", Subject: file, Err: faultf("mode %04o lets others say what the agent runs; make it 0644 or less", mode)}
	}
	owner, ok := at.Sys().(*syscall.Stat_t)
	if ok && owner.Uid != 0 && owner.Uid != uint32(os.Geteuid()) {
		return &belfry.Error{Op: "handlers", Subject: file, Err: faultf("owner uid %d may say what the agent runs; give the file to root", owner.Uid)}
	}
	return nil
}

// Equal tells whether two handlers are set alike.
func (h Handler) Equal(o Handler) bool { return reflect.DeepEqual(h, o) }

// String is what a log may say of a handler: its arguments may be secret.
func (h Handler) String() string {
	if len(h.Exec) == 0 {
		return strings.Join(h.On, " ")
	}
	return strings.Join(h.On, " ") + " exec " + h.Exec[0]
}

// diffHandlers compares two lists that are sorted by name.
func diffHandlers(from, to []Handler) (changes []Change) {
	find := func(list []Handler, name string) (Handler, bool) {
		i := slices.IndexFunc(list, func(h Handler) bool { return h.Name == name })
		if i < 0 {
			return Handler{}, false
		}
		return list[i], true
	}
	for _, was := range from {
		if is, ok := find(to, was.Name); !ok || !was.Equal(is) {
			changes = append(changes, Change{Key: "handlers." + was.Name, Old: was.String(), New: is.String(), Reloadable: true})
		}
	}
	for _, is := range to {
		if _, ok := find(from, is.Name); !ok {
			changes = append(changes, Change{Key: "handlers." + is.Name, New: is.String(), Reloadable: true})
		}
	}
	return changes
}

// plain is an error without the words of its sentinel.
func plain(err error) error {
	if err == nil {
		return nil
	}
	return faultf("%s", strings.TrimPrefix(err.Error(), errors.Unwrap(err).Error()+": "))
}
