package adapter

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// Brief writes a message on one line: entry, index of the interface, and what
// its data says.
func Brief(t testing.TB, classes map[event.EntryID]belfry.Class, m event.Message) string {
	t.Helper()
	index := func(instance string) string {
		before, _, _ := strings.Cut(instance, "@")
		return before
	}
	switch m := m.(type) {
	case event.Found:
		return fmt.Sprintf("found %s for %d", m.Subject, m.Watch)
	case event.Associate:
		if m.State == nil {
			return fmt.Sprintf("associate %d with %s", m.Entry, index(m.Instance))
		}
		return fmt.Sprintf("associate %d with %s: %s", m.Entry, index(m.Instance), briefData(t, StateClass, *m.State))
	case event.Invalidate:
		return fmt.Sprintf("invalidate %d from %s", m.Entry, index(m.Instance))
	case event.End:
		return fmt.Sprintf("end %d%d: %v", m.Entry, m.Watch, m.Err)
	case event.Post:
		bound := map[bool]string{true: "at least "}[m.Occurrence.LowerBound]
		return fmt.Sprintf("post %d of %s: %s%s", m.Entry, index(m.Occurrence.Event.Instance), bound, briefData(t, classes[m.Entry], m.Occurrence))
	}
	return fmt.Sprintf("%#v", m)
}

func briefData(t testing.TB, class belfry.Class, o belfry.Occurrence) string {
	t.Helper()
	var s belfryv1.AdapterState
	var c belfryv1.AdapterChange
	var a belfryv1.AddressChange
	var text string
	var err error
	switch class {
	case StateClass:
		err = proto.Unmarshal(o.Data, &s)
		text = fmt.Sprintf("%s %s>%s %s %v %d", s.GetInterface(), s.GetFrom(), s.GetTo(), s.GetReason(), o.Edge, o.Code)
	case AddedClass, RemovedClass:
		err = proto.Unmarshal(o.Data, &c)
		text = fmt.Sprintf("%s %s %s", c.GetWhat(), c.GetInterface(), c.GetKind())
	default:
		err = proto.Unmarshal(o.Data, &a)
		text = fmt.Sprintf("%s %s %s/%d %s", a.GetInterface(), a.GetFamily(), a.GetAddress(), a.GetPrefix(), a.GetPeer())
	}
	if err != nil {
		t.Errorf("data of %s: %v", class, err)
	}
	return strings.Join(strings.Fields(text), " ")
}
