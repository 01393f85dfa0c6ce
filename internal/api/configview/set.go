package configview

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/strictyaml"
)

// A Value is one scalar of an operator's sections.
type Value struct {
	Path    string
	Text    string // as Set takes it
	Default string // what holds where nothing is written; empty: there is no word for it
	Wants   string // what it may be, for people
	Written bool
}

// Get is one scalar of a document, by its path: cluster.name,
// networks.net2.priority, handlers[0].limit. ErrUsage: there is no such one.
func Get(d repository.Document, known Tunables, path string) (Value, error) {
	v, err := copyOf(d, known)
	if err != nil {
		return Value{}, err
	}
	one, err := find(&v, path)
	if err != nil {
		return Value{}, err
	}
	return Value{Path: path, Text: one.Text(), Default: one.Default(), Wants: one.Wants(), Written: one.Written()}, nil
}

// Set writes one scalar, and leaves all else as it is.
func Set(path, value string, known Tunables) Change {
	section := sectionOf(path)
	return Change{
		Text: "config set " + path,
		make: func(base repository.Document, _ time.Time) (repository.Document, error) {
			if err := Waits(base); err != nil {
				return base, err
			}
			v, err := copyOf(base, known)
			if err != nil {
				return base, err
			}
			one, err := find(&v, path)
			if err == nil {
				err = one.Set(value)
			}
			if err != nil {
				return base, err
			}
			t := Text{view: v.only(section)}
			to := t.over(base, known)
			if known.Acts != nil {
				err = known.Acts(base, to)
			}
			return to, err
		},
	}
}

// sectionOf is where a path begins.
func sectionOf(path string) string {
	if n := strings.IndexAny(path, ".["); n >= 0 {
		return path[:n]
	}
	return path
}

// find refuses what is none of an operator's sections.
func find(v *view, path string) (strictyaml.Value, error) {
	section := sectionOf(path)
	if !slices.Contains(Sections, section) {
		if why := why(section); why != "" {
			return strictyaml.Value{}, fmt.Errorf("%w: %s", belfry.ErrUsage, strings.TrimSuffix(why, leave))
		}
		return strictyaml.Value{}, strictyaml.Unknown("section", "", section, Sections)
	}
	if why, known := elsewhere[path]; known {
		return strictyaml.Value{}, fmt.Errorf("%w: %s", belfry.ErrUsage, why)
	}
	return strictyaml.Find(v, path)
}

// copyOf is the view of a document that shares nothing with it.
func copyOf(d repository.Document, known Tunables) (v view, err error) {
	data, err := json.Marshal(viewOf(d, known))
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	return v, err
}

// only is one section of the view.
func (v view) only(section string) view {
	one := view{}
	switch section {
	case "cluster":
		one.Cluster = v.Cluster
	case "networks":
		one.Networks = v.Networks
	case "links":
		one.Links = v.Links
	case "tunables":
		one.Tunables = v.Tunables
	case "resources":
		one.Resources = v.Resources
	case "witness":
		one.Witness = v.Witness
	case "linked":
		one.Linked = v.Linked
	case "handlers":
		one.Handlers = v.Handlers
	}
	return one
}
