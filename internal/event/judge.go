package event

import (
	"slices"

	"github.com/belfry-ha/belfry"
)

// A Judge tells what of the past a registration is for. It belongs to no
// Machine, and is for one goroutine.
type Judge struct {
	self belfry.NodeID
	reg  registration
}

// NewJudge checks a registration as a Machine does. Rules about time are
// refused: what is past is over.
func NewJudge(cfg Config, spec belfry.Registration) (*Judge, error) {
	j := &Judge{self: cfg.Node, reg: *newRegistration(nil, &spec)}
	m := &Machine{cfg: cfg, classes: newClassTable(cfg.Classes)}
	if err := m.resolve(&j.reg); err != nil {
		return nil, err
	}
	if j.reg.timed() {
		return nil, refusal(belfry.ErrUsage, "--hold, --min-interval and --flap are about what happens now, not about the past; leave them or --since out")
	}
	if spec.Since.HasSequence && (!j.reg.wish.exact || spec.Scope != belfry.ScopeLocal) {
		return nil, refusal(belfry.ErrUsage, "a sequence number counts for one event of one node; name that, or a time")
	}
	return j, nil
}

// Event tells whether an event of a node may be meant.
func (j *Judge) Event(class belfry.Class, subject string, node belfry.NodeID) bool {
	s := &j.reg.spec
	switch {
	case s.Scope != belfry.ScopeCluster && node != j.self:
		return false
	case len(s.Nodes) > 0 && !slices.Contains(s.Nodes, node):
		return false
	}
	return matchClass(s.Class, class) && j.reg.wish.matchSubject(subject)
}

// Own tells whether events of this node are meant, and whether all of them are
// such as are sent to its agent, and that nobody watches.
func (j *Judge) Own() (own, sent bool) {
	s := &j.reg.spec
	own = s.Scope != belfry.ScopeCluster || len(s.Nodes) == 0 || slices.Contains(s.Nodes, j.self)
	sent = !slices.ContainsFunc(j.reg.wish.infos, func(i *belfry.ClassInfo) bool { return !i.Custom })
	return own, sent
}

// Blind tells whether the rules would have to look at data that is not known any
// more: of several occurrences that merged, and may differ, only the newest is.
func (j *Judge) Blind(n *belfry.Notification) bool {
	return n.Mixed && n.Count > 1 && j.reg.detailed && j.reg.wantsEdge(n.Edge) && !j.spares(n)
}

// spares tells whether nobody monitored what is only wanted where somebody did. That is
// about other nodes: this one is asked itself.
func (j *Judge) spares(n *belfry.Notification) bool {
	return j.reg.spec.OnlyWhereMonitored && n.Unmonitored && n.Node != j.self
}

// Wants asks the rules that look at an occurrence alone. Of a value class the
// journal has the values at which somebody's threshold was crossed.
func (j *Judge) Wants(n *belfry.Notification) bool {
	s := &j.reg.spec
	if j.spares(n) {
		return false
	}
	if t := s.Threshold; !t.IsZero() && (!t.HasHi || n.Value < t.Hi) && (!t.HasLo || n.Value > t.Lo) {
		return false
	}
	if !j.reg.wantsEdge(n.Edge) {
		return false
	}
	if j.reg.filter == nil {
		return true
	}
	ok, err := j.reg.filter(n)
	return ok && err == nil
}
