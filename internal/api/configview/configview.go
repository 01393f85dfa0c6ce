// Package configview is what people see of the cluster's configuration: the
// sections that an operator changes, in YAML, read back without mercy; the next
// document from one and such a text; and what a change would do on which node.
//
// It is about values only: who may change them, and how a generation is
// committed, is decided elsewhere.
package configview

import (
	"fmt"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/strictyaml"
)

// Sections are those of an operator, in the order of the document.
var Sections = []string{"cluster", "networks", "links", "tunables", "resources", "witness", "linked", "handlers"}

// Tunables is what is known of the settings of the protocol; their table is the
// agent's. A nil function: nothing is known, the written ones stand as they are.
type Tunables struct {
	// Check says what is wrong with those that are written. It wraps ErrUsage and
	// names each as tunables.NAME.
	Check func(written map[string]string) error
	// InForce are all of them, with these written. It takes any texts.
	InForce func(written map[string]string) []Tunable
	// Normal is the form of a value that is kept; what it can not read it leaves.
	Normal func(name, value string) string
	// Acts refuses what no agent of this version acts on; nil: nothing.
	Acts func(base, next repository.Document) error
}

// A Tunable is one setting, as it is in force.
type Tunable struct{ Name, Value string }

// inForce is by name.
func (t Tunables) inForce(written map[string]string) map[string]string {
	all := map[string]string{}
	if t.InForce == nil {
		for name, value := range written {
			all[name] = value
		}
		return all
	}
	for _, one := range t.InForce(written) {
		all[one.Name] = one.Value
	}
	return all
}

func (t Tunables) normal(name, value string) string {
	if t.Normal == nil {
		return value
	}
	return t.Normal(name, value)
}

// A view is the text. What is nil was left out.
type view struct {
	Generation *uint64                     `json:"generation,omitempty"` // that the text was made from
	Cluster    *cluster                    `json:"cluster,omitempty"`
	Networks   *[]repository.Network       `json:"networks,omitempty"`
	Links      *[]repository.Link          `json:"links,omitempty"`
	Tunables   *tunables                   `json:"tunables,omitempty"`
	Resources  *[]repository.Resource      `json:"resources,omitempty"`
	Witness    *repository.Witness         `json:"witness,omitempty"`
	Linked     *[]repository.LinkedCluster `json:"linked,omitempty"`
	Handlers   *[]repository.Handler       `json:"handlers,omitempty"`
}

type cluster struct {
	Name string `json:"name"`
}

// tunables are written as people do: 4, 0.3, 10s.
type tunables map[string]strictyaml.Scalar

func viewOf(d repository.Document, t Tunables) view {
	values := tunables{}
	for name, value := range t.inForce(d.Tunables) {
		values[name] = strictyaml.Scalar(value)
	}
	return view{
		Generation: new(d.Generation()), Cluster: &cluster{d.Cluster.Name}, Networks: &d.Networks, Links: &d.Links, Tunables: &values,
		Resources: &d.Resources, Witness: &d.Witness, Linked: &d.Linked, Handlers: &d.Handlers,
	}
}

// Render is the operator's sections, each of them, as [Read] takes them. All
// tunables are in it, with the values in force.
func Render(d repository.Document, t Tunables) []byte { return strictyaml.Write(viewOf(d, t)) }

// RenderAll is the whole document. No secret is in it: neither hashes and sealed
// keys nor texts of licenses. [Read] does not take it.
func RenderAll(d repository.Document) []byte { return strictyaml.Write(d) }

// RenderSection is one of the operator's sections. ErrUsage: there is no such
// one, or it is none of theirs.
func RenderSection(d repository.Document, t Tunables, section string) ([]byte, error) {
	if !slices.Contains(Sections, section) {
		if why := why(section); why != "" {
			return nil, fmt.Errorf("%w: %s; config get --all shows it", belfry.ErrUsage, strings.TrimSuffix(why, leave))
		}
		return nil, fmt.Errorf("%w: unknown section %q; one of %s", belfry.ErrUsage, section, strings.Join(Sections, ", "))
	}
	return strictyaml.Write(viewOf(d, t).only(section)), nil
}

// leave is what is to be done with keys that are none of an operator's.
const leave = "; leave it out"

// elsewhere says how the sections are changed that an operator does not.
var elsewhere = map[string]string{
	"nodes":      "nodes come by belfry join and go by belfry node remove",
	"former":     "former is kept by the cluster",
	"repository": "repository is changed by the commands of belfry repository",
	"licenses":   "licenses are changed by the commands of belfry license",
	"roles":      "roles are given by belfry role set",
	"security":   "security is changed by belfry token, client and ca",
	"schema":     "schema rises by belfry upgrade finalize",
	"ops":        "ops is kept by the cluster",
	"history":    "history is kept by the cluster",
	"moving":     "moving is kept by the cluster",
	"confirm":    "confirm is set by belfry config apply --confirm",

	"cluster.uuid":        "cluster.uuid never changes",
	"cluster.created":     "cluster.created never changes",
	"cluster.last_number": "cluster.last_number is kept by the cluster",
}

// why says of a key that is none of an operator's what it is.
func why(path string) string {
	if text, ok := elsewhere[path]; ok {
		return text + leave
	}
	if strings.HasPrefix(path, "handlers[") && strings.HasSuffix(path, "].exec") {
		return path + ": what a handler runs is said by the entry of its name in the settings file of each node, never here" + leave
	}
	return ""
}

// A Text is what somebody wrote: the sections that it has, each whole.
type Text struct {
	view   view
	source *strictyaml.Source
}

// Read reads the operator's sections. A section that is left out stays as it
// is; one that is there is meant whole, and [] is an empty one. The errors have
// file, line and column, and wrap ErrUsage, or ErrLimit beyond
// [strictyaml.MaxText]. What the values mean is judged with the next document.
func Read(file string, text []byte) (*Text, error) {
	t := &Text{}
	source, err := strictyaml.Read(strictyaml.Options{File: file, Why: why}, text, &t.view)
	t.source = source
	return t, err
}

// Generation is the one that the text was made from; zero: it does not say.
func (t *Text) Generation() uint64 {
	if t.view.Generation == nil {
		return 0
	}
	return *t.view.Generation
}

// over is the document with the sections of the text. It shares nothing that
// anybody writes to.
func (t *Text) over(base repository.Document, known Tunables) repository.Document {
	to, v := base, t.view
	if v.Cluster != nil {
		to.Cluster.Name = v.Cluster.Name
	}
	put(&to.Networks, v.Networks)
	put(&to.Links, v.Links)
	put(&to.Resources, v.Resources)
	put(&to.Witness, v.Witness)
	put(&to.Linked, v.Linked)
	put(&to.Handlers, v.Handlers)
	if v.Tunables != nil {
		to.Tunables = written(base.Tunables, *v.Tunables, known)
	}
	return to
}

func put[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// written are the tunables to be written, so that those of a text are in force.
// A value that is in force although nobody wrote it stays unwritten, so that
// who applies what they were shown does not pin every default; unless another
// change of the text would end it, as that of a profile does.
func written(was map[string]string, given tunables, known Tunables) map[string]string {
	before, to := known.inForce(was), map[string]string{}
	for name, value := range given {
		text := known.normal(name, string(value))
		if _, set := was[name]; set || before[name] != text || known.InForce == nil {
			to[name] = text
		}
	}
	after := known.inForce(to)
	for name, value := range given {
		if text := known.normal(name, string(value)); after[name] != text {
			to[name] = text
		}
	}
	if len(to) == 0 {
		return nil
	}
	return to
}
