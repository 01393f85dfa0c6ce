package transport

import (
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
)

// protocolVersion is that of peer.proto.
const protocolVersion = 1

// maxText bounds a subject, class or name from a peer, in bytes (security.md,
// Limits: text line).
const maxText = 64 << 10

// An encoder makes the messages of one stream. What it returns is valid until
// the next call. The zero value is ready; not safe for concurrent use.
type encoder struct {
	out   belfryv1.PeerFrame
	batch batchEncoder
}

func (e *encoder) frame(f event.Frame) *belfryv1.PeerFrame {
	switch f := f.(type) {
	case event.Interests:
		e.out.Kind = &belfryv1.PeerFrame_Interests{Interests: interestsTo(f)}
	case event.InterestsAck:
		e.out.Kind = &belfryv1.PeerFrame_InterestsAck{InterestsAck: interestsAckTo(f)}
	case event.Positions:
		e.out.Kind = &belfryv1.PeerFrame_Positions{Positions: positionsTo(f)}
	case event.PeerBatch:
		e.out.Kind = &belfryv1.PeerFrame_Batch{Batch: e.batch.encode(f.Batch)}
	case event.PeerAck:
		e.out.Kind = &belfryv1.PeerFrame_Ack{Ack: &belfryv1.Ack{Batch: f.Batch}}
	default:
		panic(fmt.Sprintf("transport: frame %T has no message", f)) // the set is sealed
	}
	return &e.out
}

// A decoder reads the messages of one stream. Its results share no memory
// with later ones. Not safe for concurrent use.
type decoder struct {
	origin Hello // who sends: notifications are of no other node
	batch  batchDecoder
}

// frame is nil for a kind of a later version. An error means that the peer
// does not keep to the protocol; it wraps ErrUsage.
func (d *decoder) frame(f *belfryv1.PeerFrame) (event.Frame, error) {
	switch k := f.GetKind().(type) {
	case *belfryv1.PeerFrame_Hello:
		return nil, fmt.Errorf("%w: second hello; it is the first frame only", belfry.ErrUsage)
	case *belfryv1.PeerFrame_Interests:
		return interestsOf(k.Interests)
	case *belfryv1.PeerFrame_InterestsAck:
		return interestsAckOf(k.InterestsAck), nil
	case *belfryv1.PeerFrame_Positions:
		return positionsOf(k.Positions), nil
	case *belfryv1.PeerFrame_Batch:
		b, err := d.batch.decode(k.Batch, d.origin)
		return event.PeerBatch{Batch: b}, err
	case *belfryv1.PeerFrame_Ack:
		return event.PeerAck{Batch: k.Ack.GetBatch()}, nil
	}
	return nil, nil
}

func interestsTo(f event.Interests) *belfryv1.Interests {
	out := &belfryv1.Interests{Version: f.Version, Base: f.Base, Full: f.Full, Remove: f.Remove}
	for _, i := range f.Add {
		m := &belfryv1.Interest{
			Number: i.Number, Class: i.Class, Subject: i.Subject,
			Hysteresis:         i.Threshold.Hysteresis,
			OnlyWhereMonitored: i.OnlyWhereMonitored, Snapshot: i.Snapshot, Detailed: i.Detailed,
		}
		if i.Threshold.HasHi {
			m.Hi = &i.Threshold.Hi
		}
		if i.Threshold.HasLo {
			m.Lo = &i.Threshold.Lo
		}
		out.Add = append(out.Add, m)
	}
	return out
}

func interestsOf(m *belfryv1.Interests) (event.Frame, error) {
	f := event.Interests{Version: m.GetVersion(), Base: m.GetBase(), Full: m.GetFull(), Remove: m.GetRemove()}
	for _, i := range m.GetAdd() {
		if len(i.GetClass()) > maxText || len(i.GetSubject()) > maxText {
			return nil, fmt.Errorf("%w: interest %d: class or subject longer than %d bytes", belfry.ErrUsage, i.GetNumber(), maxText)
		}
		f.Add = append(f.Add, event.Interest{
			Number: i.GetNumber(), Class: i.GetClass(), Subject: i.GetSubject(),
			Threshold: belfry.Threshold{
				Hi: i.GetHi(), HasHi: i != nil && i.Hi != nil,
				Lo: i.GetLo(), HasLo: i != nil && i.Lo != nil,
				Hysteresis: i.GetHysteresis(),
			},
			OnlyWhereMonitored: i.GetOnlyWhereMonitored(), Snapshot: i.GetSnapshot(), Detailed: i.GetDetailed(),
		})
	}
	return f, nil
}

func interestsAckTo(f event.InterestsAck) *belfryv1.InterestsAck {
	out := &belfryv1.InterestsAck{Version: f.Version, Full: f.Full}
	for _, r := range f.Refused {
		out.Refused = append(out.Refused, &belfryv1.InterestRefused{Number: r.Number, Refusal: refusalOf(r.Err)})
	}
	for _, p := range f.Placed {
		out.Placed = append(out.Placed, &belfryv1.Placed{Entry: uint64(p.Entry), From: p.From, Until: p.Until, Lapsed: p.Lapsed})
	}
	return out
}

func interestsAckOf(m *belfryv1.InterestsAck) event.InterestsAck {
	f := event.InterestsAck{Version: m.GetVersion(), Full: m.GetFull()}
	for _, r := range m.GetRefused() {
		f.Refused = append(f.Refused, event.InterestRefused{Number: r.GetNumber(), Err: errorOf(r.GetRefusal())})
	}
	for _, p := range m.GetPlaced() {
		f.Placed = append(f.Placed, event.Placed{Entry: event.EntryID(p.GetEntry()), From: p.GetFrom(), Until: p.GetUntil(), Lapsed: p.GetLapsed()})
	}
	return f
}

func positionsTo(f event.Positions) *belfryv1.Positions {
	out := &belfryv1.Positions{Incarnation: uint32(f.Incarnation)}
	for _, p := range f.Positions {
		out.Positions = append(out.Positions, &belfryv1.Position{Entry: uint64(p.Entry), Last: p.Last})
	}
	return out
}

func positionsOf(m *belfryv1.Positions) event.Positions {
	f := event.Positions{Incarnation: belfry.Incarnation(m.GetIncarnation())}
	for _, p := range m.GetPositions() {
		f.Positions = append(f.Positions, event.Position{Entry: event.EntryID(p.GetEntry()), Last: p.GetLast()})
	}
	return f
}

func helloTo(h Hello) *belfryv1.PeerFrame {
	return &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Hello{Hello: &belfryv1.PeerHello{
		Version: protocolVersion, NodeId: h.Node[:], Name: h.Name,
		Incarnation: uint32(h.Incarnation), Boot: uint32(h.Boot), Generation: h.Generation,
		Pid: h.PID, AgentVersion: h.Version, Started: nanoseconds(h.Started),
	}}}
}

// helloOf reads the first frame of the node that the certificate names.
func helloOf(f *belfryv1.PeerFrame, from belfry.NodeID) (Hello, error) {
	m := f.GetHello()
	switch {
	case m == nil:
		return Hello{}, fmt.Errorf("%w: frame before hello; hello is the first", belfry.ErrUsage)
	case m.Version != protocolVersion:
		return Hello{}, fmt.Errorf("%w: peer protocol version %d; this agent speaks %d", belfry.ErrUnsupported, m.Version, protocolVersion)
	case string(m.NodeId) != string(from[:]):
		return Hello{}, fmt.Errorf("%w: hello of node %x over the certificate of node %s", belfry.ErrPermission, m.NodeId, from)
	case m.Incarnation == 0 || m.Boot == 0:
		return Hello{}, fmt.Errorf("%w: hello with incarnation %d, boot %d; both count from 1", belfry.ErrUsage, m.Incarnation, m.Boot)
	case len(m.Name) > maxText || len(m.AgentVersion) > maxText:
		return Hello{}, fmt.Errorf("%w: hello with a name longer than %d bytes", belfry.ErrUsage, maxText)
	}
	return Hello{
		Node: from, Name: m.Name,
		Incarnation: belfry.Incarnation(m.Incarnation), Boot: belfry.Boot(m.Boot), Generation: m.Generation,
		PID: m.Pid, Version: m.AgentVersion, Started: timeOf(m.Started),
	}, nil
}

func reasonTo(r cluster.StreamEvent) belfryv1.GoodbyeReason {
	switch r {
	case cluster.GoodbyeLeave:
		return belfryv1.GoodbyeReason_GOODBYE_REASON_LEAVE
	case cluster.GoodbyeRestart:
		return belfryv1.GoodbyeReason_GOODBYE_REASON_RESTART
	}
	return belfryv1.GoodbyeReason_GOODBYE_REASON_REKEY
}

// reasonOf takes a reason that it does not know for one that proves nothing.
func reasonOf(r belfryv1.GoodbyeReason) cluster.StreamEvent {
	switch r {
	case belfryv1.GoodbyeReason_GOODBYE_REASON_LEAVE:
		return cluster.GoodbyeLeave
	case belfryv1.GoodbyeReason_GOODBYE_REASON_RESTART:
		return cluster.GoodbyeRestart
	}
	return cluster.GoodbyeRekey
}

// refusalOf carries an error to the peer: the sentinel's code and the text of
// the innermost cause, with operation, node and subject beside it.
func refusalOf(err error) *belfryv1.Refusal {
	if err == nil {
		return nil
	}
	r := &belfryv1.Refusal{Code: belfry.Code(err), Message: err.Error()}
	for e := (*belfry.Error)(nil); errors.As(err, &e); err = e.Err {
		r.Op, r.Subject, r.Node, r.Message = e.Op, e.Subject, "", e.Err.Error()
		if !e.Node.IsZero() {
			r.Node = e.Node.String()
		}
	}
	return r
}

// errorOf is the inverse; the result wraps the sentinel.
func errorOf(r *belfryv1.Refusal) error {
	if r == nil {
		return nil
	}
	var err error = refused{text: r.GetMessage(), sentinel: belfry.Sentinel(r.GetCode())}
	if r.GetOp() == "" && r.GetNode() == "" && r.GetSubject() == "" {
		return err
	}
	node, _ := belfry.ParseNodeID(r.GetNode()) // zero if it is none
	return &belfry.Error{Op: r.GetOp(), Node: node, Subject: r.GetSubject(), Err: err}
}

// refused is an error that happened elsewhere: its text already names the
// sentinel.
type refused struct {
	text     string
	sentinel error
}

func (e refused) Error() string { return e.text }
func (e refused) Unwrap() error { return e.sentinel }

// nanoseconds is 0 for the zero time.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}
