package event

import "github.com/belfry-ha/belfry"

// An index finds entries by name. Who sends by name sends thousands of a few
// classes, so what is hashed for each is the subject alone, and the entries of a
// class share its text.
type index struct {
	classes map[belfry.Class]*classEntries
	last    *classEntries // that was looked at
}

type classEntries struct {
	class belfry.Class
	by    map[string]*entry // subject
}

func (x *index) of(class belfry.Class) *classEntries {
	if x.last == nil || x.last.class != class {
		x.last = x.classes[class]
	}
	return x.last
}

// find is nil where there is no such entry.
func (x *index) find(k key) *entry {
	c := x.of(k.class)
	if c == nil {
		return nil
	}
	return c.by[k.subject]
}

func (x *index) add(e *entry) {
	c := x.of(e.class)
	if c == nil {
		c = &classEntries{class: e.class, by: map[string]*entry{}}
		x.classes[e.class], x.last = c, c
	}
	e.class = c.class
	c.by[e.subject] = e
}

func (x *index) remove(e *entry) {
	c := x.of(e.class)
	delete(c.by, e.subject)
	if len(c.by) == 0 {
		delete(x.classes, e.class)
		x.last = nil
	}
}
