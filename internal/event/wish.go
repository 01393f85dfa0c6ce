package event

import (
	"math"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A wish is what a registration's class and subject stand for.
type wish struct {
	infos   []*belfry.ClassInfo // classes it may match, of this node, sorted
	exact   bool                // one class and one subject
	glob    bool                // the subject is a pattern
	subject string              // literal, or the pattern
	all     bool                // every subject
}

func (w *wish) matchSubject(subject string) bool {
	switch {
	case w.all:
		return true
	case w.glob:
		return matchGlob(w.subject, subject)
	}
	return w.subject == subject
}

// resolve checks a registration completely before anything is done.
func (m *Machine) resolve(r *registration) error {
	s := &r.spec
	w, err := m.wishOf(s.Class, s.Subject)
	if err != nil {
		return err
	}
	if err := checkThreshold(&w, s); err != nil {
		return err
	}
	if err := checkTimed(&w, s); err != nil {
		return err
	}
	if err := checkScope(&w, s); err != nil {
		return err
	}
	if s.NoFollow && (!w.exact || s.Scope != belfry.ScopeLocal) {
		return refusal(belfry.ErrUnsupported, "only a registration of one event of this node can end with its identifier; leave --no-follow out")
	}
	if s.Limit < 0 || s.Limit > maxLimit {
		return refusal(belfry.ErrLimit, "limit %d; 1 to %d notifications are possible", s.Limit, maxLimit)
	}
	if s.Filter != "" {
		if m.cfg.Compile == nil {
			return refusal(belfry.ErrUnsupported, "this agent has no filters; leave the expression out")
		}
		if r.filter, err = m.cfg.Compile(s.Class, s.Filter); err != nil {
			return err
		}
		r.detailed = m.cfg.LooksAtData == nil || m.cfg.LooksAtData(s.Filter)
	}
	r.wish = w
	return nil
}

// wishOf finds out what class and subject stand for.
func (m *Machine) wishOf(class, subject string) (w wish, err error) {
	if err := checkSubject(subject); err != nil {
		return w, err
	}
	if classPattern(class) {
		w.infos = m.classes.matching(class)
		if len(w.infos) == 0 {
			return w, m.classes.unknown(class)
		}
		w.all = subject == ""
		w.glob = w.all || hasGlob(subject)
		w.subject = subject
		if !w.glob {
			w.subject = literal(subject)
		}
		return w, nil
	}
	info := m.classes.find(belfry.Class(class))
	if info == nil {
		return w, m.classes.unknown(class)
	}
	w.infos = []*belfry.ClassInfo{info}
	return w, m.wishSubject(&w, info, class, subject)
}

// wishSubject judges the subject of one class.
func (m *Machine) wishSubject(w *wish, info *belfry.ClassInfo, class, subject string) error {
	kind := subjectKind(subject)
	asIs := kind != "" && contains(info.LiteralKinds, kind)
	switch {
	case subject == "" && info.Optional:
		w.all, w.glob = true, true
		return nil
	case subject == "" && info.Subject != "":
		return refusal(belfry.ErrUsage, "%s needs a subject; write %s:%s", class, class, info.Subject)
	case subject != "" && info.Subject == "":
		return refusal(belfry.ErrUsage, "%s has no subject; write %s", class, class)
	case asIs:
		w.exact, w.subject = true, subject
	case hasGlob(subject) && !info.Globs:
		return refusal(belfry.ErrUsage, `%s: subjects of %s can not be patterns; write \* for a star`, label(belfry.Class(class), short(subject)), class)
	case hasGlob(subject):
		w.glob, w.subject = true, subject
	default:
		w.exact, w.subject = true, literal(subject)
	}
	if w.exact && m.cfg.CheckSubject != nil {
		return m.cfg.CheckSubject(belfry.Class(class), w.subject)
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func checkThreshold(w *wish, s *belfry.Registration) error {
	value := false
	for _, info := range w.infos {
		value = value || info.Kind == belfry.Value
	}
	t := s.Threshold
	switch {
	case w.exact && value && t.IsZero():
		return refusal(belfry.ErrNoThreshold, "%s is measured; say from which value on, for example --over 90%s", label(belfry.Class(s.Class), s.Subject), w.infos[0].Unit)
	case !t.IsZero() && !value:
		return refusal(belfry.ErrUsage, "%s is not measured; leave the threshold out", s.Class)
	case t.HasHi && !finite(t.Hi) || t.HasLo && !finite(t.Lo) || !finite(t.Hysteresis):
		return refusal(belfry.ErrUsage, "the threshold is not a number; write one")
	case t.Hysteresis < 0:
		return refusal(belfry.ErrUsage, "hysteresis %g; it is at least 0", t.Hysteresis)
	case t.HasHi && t.HasLo && t.Lo >= t.Hi:
		return refusal(belfry.ErrUsage, "the low threshold %g is not below the high one %g; exchange them", t.Lo, t.Hi)
	case t.HasHi && t.HasLo && t.Lo+t.Hysteresis > t.Hi-t.Hysteresis:
		return refusal(belfry.ErrUsage, "hysteresis %g leaves nothing between %g and %g; at most %g", t.Hysteresis, t.Lo, t.Hi, (t.Hi-t.Lo)/2)
	}
	return nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// maxTimed bounds the rules about time.
const maxTimed = 24 * time.Hour

// maxChanges bounds what flap control remembers of one event.
const maxChanges = 1000

func checkTimed(w *wish, s *belfry.Registration) error {
	f := s.Flap
	switch {
	case s.Hold < 0 || s.Hold > maxTimed:
		return refusal(belfry.ErrUsage, "hold %s; 0 to %s are possible", s.Hold, maxTimed)
	case s.MinInterval < 0 || s.MinInterval > maxTimed:
		return refusal(belfry.ErrUsage, "interval %s; 0 to %s are possible", s.MinInterval, maxTimed)
	case s.Hold > 0 && !w.lasts():
		return refusal(belfry.ErrUsage, "%s happens and does not last; leave hold out", s.Class)
	case s.MinInterval > 0 && s.Coalesce == belfry.CoalesceNever:
		return refusal(belfry.ErrUsage, "an interval makes one notification of several, coalesce never forbids that; leave one of them out")
	case f.IsZero():
		return nil
	case f.Window < time.Second || f.Window > maxTimed:
		return refusal(belfry.ErrUsage, "flap window %s; 1s to %s are possible", f.Window, maxTimed)
	case f.Low < 1 || f.Low > f.High || f.High > maxChanges:
		return refusal(belfry.ErrUsage, "flap control %s; HIGH:LOW:WINDOW with HIGH up to %d and LOW from 1 to HIGH", f, maxChanges)
	}
	return nil
}

// lasts tells whether the wish may match a state or a value.
func (w *wish) lasts() bool {
	return slices.ContainsFunc(w.infos, func(info *belfry.ClassInfo) bool { return info.Kind != belfry.Happening })
}

func checkScope(w *wish, s *belfry.Registration) error {
	if s.Scope != belfry.ScopeCluster {
		switch {
		case len(s.Nodes) > 0:
			return refusal(belfry.ErrUsage, "nodes are chosen, but the scope is local; use scope cluster")
		case s.OnlyWhereMonitored:
			return refusal(belfry.ErrUsage, "only where monitored is about other nodes; use scope cluster")
		}
		return nil
	}
	remote := false
	for _, info := range w.infos {
		remote = remote || info.Remote
	}
	if !remote {
		return refusal(belfry.ErrUnsupported, "%s can not be registered on other nodes; use scope local", s.Class)
	}
	if kind := subjectKind(s.Subject); kind != "" && w.exact && contains(w.infos[0].LocalKinds, kind) {
		return refusal(belfry.ErrUnsupported, "%s: %s= means something on this node only; use scope local or another form of %s", label(belfry.Class(s.Class), s.Subject), kind, w.infos[0].Subject)
	}
	return nil
}
