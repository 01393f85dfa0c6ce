package client

import (
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// maxIntroduced is above every number that an agent gives an entry of one
// stream; it bounds what a faulty one can make this process hold.
const maxIntroduced = 1 << 20

// A table holds the entries that were introduced on one stream, by number.
type table struct {
	entries []introduction
	used    bool // batches with these numbers may be read over when they have been worked through
}

type introduction struct {
	known       bool
	node        belfry.NodeID
	nodeName    string
	incarnation belfry.Incarnation
	entry       uint64
	event       belfry.EventID
	seen        *seenEntry // where it was found last
}

// introduce takes the entries of one batch, before its notifications.
func (t *table) introduce(entries []*belfryv1.Entry) error {
	for _, e := range entries {
		id := int(e.GetId())
		if id == 0 || id > maxIntroduced || len(e.GetNodeId()) != len(belfry.NodeID{}) {
			return fmt.Errorf("%w: the agent introduced an entry with number %d and a node id of %d bytes; client and agent differ in version", belfry.ErrUnsupported, id, len(e.GetNodeId()))
		}
		for id >= len(t.entries) {
			t.entries = append(t.entries, introduction{})
		}
		t.entries[id] = introduction{
			known: true, node: belfry.NodeID(e.GetNodeId()), nodeName: e.GetNodeName(),
			incarnation: belfry.Incarnation(e.GetIncarnation()), entry: e.GetEntry(),
			event: belfry.EventID{Class: belfry.Class(e.GetClass()), Subject: e.GetSubject(), Instance: e.GetInstance()},
		}
	}
	return nil
}

// place is where the stream keeps what it has seen of an entry.
func (t *table) place(id uint32) **seenEntry {
	if int(id) < len(t.entries) {
		return &t.entries[id].seen
	}
	return new(*seenEntry)
}

// notification is the inverse of what the agent's encoder does.
func (t *table) notification(p *belfryv1.Notification) (belfry.Notification, error) {
	n := belfry.Notification{
		Kind: belfry.Kind(p.GetKind() - belfryv1.Kind_KIND_OCCURRENCE), Registration: p.GetRegistration(),
		First: p.GetFirstSequence(), Last: p.GetSequence(), Count: p.GetCount(), Skipped: p.GetSkipped(),
		FirstTime: timeOf(p.GetFirstTime()), Time: timeOf(p.GetTime()),
		Code: p.GetCode(), Edge: belfry.Edge(p.GetEdge()), Value: p.GetValue(),
		Data: p.GetData(), Mixed: p.GetMixed(), LowerBound: p.GetLowerBound(), Reason: p.GetReason(),
	}
	if n.First == 0 {
		n.First = n.Last
	}
	if n.FirstTime.IsZero() {
		n.FirstTime = n.Time
	}
	if n.Count == 0 && n.Kind == belfry.KindOccurrence {
		n.Count = n.Last - n.First + 1
	}
	if g := p.GetGap(); g != nil {
		n.Gap = &belfry.Gap{
			Total: g.GetTotal(), Known: g.GetKnown(), Resync: g.GetResync(),
			Reason: belfry.GapReason(g.GetReason() - belfryv1.GapReason_GAP_REASON_SLOW),
			From:   timeOf(g.GetFrom()), To: timeOf(g.GetTo()),
		}
	}
	if n.Kind == belfry.KindGap && n.Gap == nil {
		return n, fmt.Errorf("%w: the agent sent a gap without its number; client and agent differ in version", belfry.ErrUnsupported)
	}
	id := int(p.GetEntry())
	if id == 0 {
		return n, nil
	}
	if id >= len(t.entries) || !t.entries[id].known {
		return n, fmt.Errorf("%w: the agent sent a notification of entry %d, which it never introduced; client and agent differ in version", belfry.ErrUnsupported, id)
	}
	e := &t.entries[id]
	n.Node, n.NodeName, n.Incarnation, n.Entry, n.Event = e.node, e.nodeName, e.incarnation, e.entry, e.event
	return n, nil
}

func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
