package licenseview

import (
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/license"
	"github.com/belfry-ha/belfry/internal/repository"
)

// A Standing is how the products of a document stand on one node at one time.
// Nobody writes to it.
type Standing struct {
	Document *repository.Document
	Node     belfry.NodeID
	Clock    Clock
	Time     time.Time                  // that counted as now
	Behind   time.Duration              // by how much the node's clock is before it; zero: it counted
	Verdicts map[string]license.Verdict // of the products that the document knows
}

// Stand judges all products of a document on a node.
func Stand(d *repository.Document, node belfry.NodeID, c Clock) *Standing {
	s := &Standing{Document: d, Node: node, Clock: c, Verdicts: map[string]license.Verdict{}}
	in := Input(d, node, c)
	s.Time, s.Behind = license.Clock(in.Now, in.Mark)
	for _, product := range Products(d) {
		in.Product = product
		s.Verdicts[product] = license.Evaluate(in)
	}
	return s
}

// Verdict is that of a product on the node, also of one that the document does
// not know: it is locked, and the reason says what to do.
func (s *Standing) Verdict(product string) license.Verdict {
	if v, known := s.Verdicts[product]; known {
		return v
	}
	in := Input(s.Document, s.Node, s.Clock)
	in.Product = product
	return license.Evaluate(in)
}

// A Member is what the document gives one member.
type Member struct {
	Name    string
	Verdict license.Verdict
}

// Members are what a document gives each member of a product, in the order of
// the document: what each of them finds out by itself, if it reads the
// document and its clock is right.
func Members(d *repository.Document, product string, c Clock) (members []Member) {
	in := Input(d, belfry.NodeID{}, c)
	in.Product = product
	for i, v := range license.EvaluateMembers(in) {
		members = append(members, Member{d.Nodes[i].Name, v})
	}
	return members
}

// Until is the first instant at which a product stands otherwise, if only time
// passes; zero: there is none.
func (s *Standing) Until() (first time.Time) {
	for _, v := range s.Verdicts { // a minimum: the order can not be seen
		if !v.Until.IsZero() && (first.IsZero() || v.Until.Before(first)) {
			first = v.Until
		}
	}
	return first
}
