package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/witness"
)

// The states of a witness (witness.md 8).
const (
	witnessServing  = "serving"
	witnessDraining = "draining"
	witnessOff      = "off"
)

func standingWord(s witness.Standing) string {
	switch {
	case s.Off:
		return witnessOff
	case s.Draining:
		return witnessDraining
	}
	return witnessServing
}

// tellStanding posts witness.state: others rank this witness by it.
func (a *Agent) tellStanding(s witness.Standing) {
	state, edge := standingWord(s), belfry.EdgeRecovered
	if state != witnessServing {
		edge = belfry.EdgeFailing
	}
	a.notices.Tell(node.WitnessState, a.id.node.Name, time.Now(), edge, &belfryv1.WitnessState{
		Node: a.id.node.Name, State: state, Registrations: uint32(s.Registrations),
	})
}

// tellMoved posts witness.moved.
func (a *Agent) tellMoved(m witness.Moved) {
	a.notices.Tell(node.WitnessMoved, string(m.Resource), time.Now(), belfry.EdgeNone, &belfryv1.WitnessMoved{
		Resource: string(m.Resource), Move: m.Move.ID, From: m.From, To: m.Move.To, Reason: m.Move.Reason.String(),
		Clients: uint32(m.Clients), Witness: a.id.node.Name,
	})
}

// eventChecker says which events can be a resource: one of a class that is there,
// that other nodes can be asked for, and that has states or happens.
func eventChecker(classes []belfry.ClassInfo, check func(belfry.Class, string) error) func(belfry.Class, string) error {
	return func(class belfry.Class, subject string) error {
		refuse := func(sentinel error, format string, args ...any) error {
			return fmt.Errorf("%w: event/%s/%s: "+format, append([]any{sentinel, class, subject}, args...)...)
		}
		at := slices.IndexFunc(classes, func(i belfry.ClassInfo) bool {
			return i.Class == class || i.Custom && strings.HasPrefix(string(class), strings.TrimSuffix(string(i.Class), "*"))
		})
		if at < 0 {
			return refuse(belfry.ErrNotFound, "there is no such class; belfry event types lists them")
		}
		info := &classes[at]
		kind, _, _ := strings.Cut(subject, "=")
		switch {
		case info.Unit != "":
			return refuse(belfry.ErrUnsupported, "it is a value without a threshold; watch it with belfry watch --over")
		case !info.Remote:
			return refuse(belfry.ErrUnsupported, "it can be watched on its own node only")
		case info.Globs && strings.ContainsAny(subject, "*?[") && !slices.Contains(info.LiteralKinds, kind):
			return refuse(belfry.ErrUsage, "a pattern; name one event")
		}
		return check(class, subject)
	}
}
