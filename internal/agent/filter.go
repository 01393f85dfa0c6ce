package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cloudevents"
	"github.com/belfry-ha/belfry/internal/event"
)

// Bounds of one filter expression (ecosystem.md 3). An expression runs for
// every occurrence, inside the event loop, so it can not look at a clock or at a
// file, and it is bounded in time too: what it may loop over is in the data of
// one occurrence, which has at most 4 KiB, and it may not loop within a loop.
const (
	maxExpression = 4 << 10 // bytes
	maxNodes      = 200
	filterMemory  = 100_000 // of the expression machine's own units
)

// filterFunctions are those whose time and result are bounded by their
// arguments; count is a name of the notification.
var filterFunctions = []string{
	"all", "any", "none", "one", "filter", "len",
	"lower", "upper", "trim", "trimPrefix", "trimSuffix", "hasPrefix", "hasSuffix", "indexOf", "split",
	"int", "float", "string", "abs", "ceil", "floor", "round",
}

// filterNames are what an expression may name, in the order of the manual.
var filterNames = []string{"class", "subject", "instance", "node", "kind", "code", "edge", "value", "seq", "count", "first", "last", "data"}

// filterCompiler makes the function that event.Config.Compile asks for. It
// knows the fields of each class's message, so that a misspelt one is refused
// when it is registered and not silently false for ever.
func filterCompiler(classes []belfry.ClassInfo) func(class, expression string) (event.Filter, error) {
	messages := map[string]string{}
	for _, c := range classes {
		messages[string(c.Class)] = c.Data
	}
	return func(class, expression string) (event.Filter, error) {
		return compileFilter(messages[class], expression)
	}
}

// compileFilter refuses with ErrUsage what is too long, does not parse, names
// what there is not, or is not boolean. message is the full name of the
// class's protobuf message; empty leaves the names below data open.
func compileFilter(message, expression string) (event.Filter, error) {
	if len(expression) > maxExpression {
		return nil, fmt.Errorf("%w: the expression has %d bytes; at most %d", belfry.ErrUsage, len(expression), maxExpression)
	}
	if err := checkCost(expression); err != nil {
		return nil, filterError(err)
	}
	program, err := expr.Compile(expression, expr.Env(filterEnvironment(message)), expr.AsBool(), expr.MaxNodes(maxNodes))
	if err != nil {
		return nil, filterError(err)
	}
	machine := &vm.VM{MemoryBudget: filterMemory}
	return func(n *belfry.Notification) (bool, error) {
		fields, err := cloudevents.Fields(n.Event.Class, n.Data)
		if err != nil {
			return false, err
		}
		result, err := machine.Run(program, filterValues(n, fields))
		if err != nil {
			return false, filterError(err)
		}
		return result == true, nil
	}, nil
}

// looksAtData tells whether an expression asks for the data or the value, which
// differ in what merges; one that does not parse is refused elsewhere.
func looksAtData(expression string) bool {
	tree, err := parser.Parse(expression)
	return err != nil || ast.Find(tree.Node, func(n ast.Node) bool {
		name, ok := n.(*ast.IdentifierNode)
		return ok && (name.Value == "data" || name.Value == "value" || name.Value == "$env")
	}) != nil
}

// checkCost refuses what could run for long although it is short: ranges,
// loops within loops, variables, which can double a text line by line, and
// functions that are not bounded by their arguments.
func checkCost(expression string) error {
	tree, err := parser.Parse(expression)
	if err != nil {
		return err
	}
	var refused *file.Error
	refuse := func(n ast.Node, text string) {
		if refused == nil {
			refused = (&file.Error{Location: n.Location(), Message: text}).Bind(tree.Source)
		}
	}
	ast.Find(tree.Node, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryNode:
			if n.Operator == ".." {
				refuse(n, "no ranges; compare with >= and <=")
			}
		case *ast.BuiltinNode:
			if !slices.Contains(filterFunctions, n.Name) {
				refuse(n, unknownFunction(n.Name))
			}
		case *ast.VariableDeclaratorNode:
			refuse(n, "no variables; write the value where it is used")
		case *ast.PredicateNode:
			if ast.Find(n.Node, func(n ast.Node) bool { _, ok := n.(*ast.PredicateNode); return ok }) != nil {
				refuse(n, "no loop within a loop; split the filter into two registrations")
			}
		}
		return refused != nil
	})
	if refused == nil {
		return nil
	}
	return refused
}

func unknownFunction(name string) string {
	if slices.Contains([]string{"now", "date", "duration", "timezone"}, name) {
		return name + " is not there: expressions have no clock"
	}
	return fmt.Sprintf("%s is not there; there are %s", name, strings.Join(filterFunctions, " "))
}

func filterEnvironment(message string) types.Map {
	data := types.Map{types.Extra: types.Any}
	if descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(message)); err == nil && message != "google.protobuf.Struct" {
		if m, ok := descriptor.(protoreflect.MessageDescriptor); ok {
			data = types.Map{}
			for i := range m.Fields().Len() {
				data[string(m.Fields().Get(i).Name())] = types.Any
			}
		}
	}
	return types.Map{
		"class": types.String, "subject": types.String, "instance": types.String, "node": types.String,
		"kind": types.String, "code": types.Int, "edge": types.String, "value": types.Float64,
		"seq": types.Int, "count": types.Int, "first": types.Int, "last": types.Int,
		"data": data,
	}
}

func filterValues(n *belfry.Notification, fields map[string]any) map[string]any {
	return map[string]any{
		"class": string(n.Event.Class), "subject": n.Event.Subject, "instance": n.Event.Instance, "node": n.NodeName,
		"kind": n.Kind.String(), "code": int(n.Code), "edge": n.Edge.String(), "value": n.Value,
		"seq": int(n.Last), "count": int(n.Count), "first": int(n.First), "last": int(n.Last),
		"data": fields,
	}
}

// filterError puts the library's message into this project's form: where,
// what is wrong, what would be right.
func filterError(err error) error {
	var at *file.Error
	if !errors.As(err, &at) {
		return fmt.Errorf("%w: %s", belfry.ErrUsage, firstLine(err.Error()))
	}
	message := firstLine(at.Message)
	if name, ok := strings.CutPrefix(message, "unknown name "); ok {
		message = fmt.Sprintf("unknown name %s; strings need quotes: %q", name, name)
	}
	if name, ok := strings.CutPrefix(message, "unknown field "); ok {
		message = fmt.Sprintf("unknown field %s; belfry event types CLASS lists the fields of a class", name)
	}
	return fmt.Errorf("%w: column %d: %s", belfry.ErrUsage, at.Column+1, message)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
