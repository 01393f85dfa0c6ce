package journal

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// An introduction is what a number stands for in one file.
type introduction struct {
	Key
	nodeName string
	event    belfry.EventID
	wanted   bool
}

func (i *introduction) asEvent() *event {
	return &event{Key: i.Key, nodeName: i.nodeName, class: i.event.Class, subject: i.event.Subject}
}

// A record is what a frame says. One of its fields below about is set.
type record struct {
	position uint64
	about    *introduction // of notification; nil: of a gap over several events

	notification *belfryv1.Notification
	start, stop  *int64 // unix ns
	head         *belfryv1.JournalHead
	index        *belfryv1.JournalIndex
	events       []*introduction // of head and index
}

// A decoder reads the records of a file. What can not be read is passed over,
// as if its bytes were damaged.
type decoder struct {
	*frames
	known map[uint32]*introduction
	match func(*introduction) bool // what is wanted
	body  belfryv1.JournalRecord
}

// newDecoder reads the header, unless it is given because that is damaged.
func newDecoder(file ReadFile, magic [4]byte, h *header) (*decoder, error) {
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	if h == nil {
		b := make([]byte, headerSize)
		n, _ := file.ReadAt(b, 0) // a file that is too short has no header
		own, err := parseHeader(b[:n], magic)
		if err != nil {
			return nil, err
		}
		h = &own
	}
	return &decoder{
		frames: readFrames(file, size, h), known: map[uint32]*introduction{},
		match: func(*introduction) bool { return true },
	}, nil
}

// next is io.EOF after the last record.
func (d *decoder) next() (record, error) {
	for {
		f, err := d.frames.next()
		if err != nil {
			return record{}, err
		}
		if r, err := d.decode(f); err == nil {
			return r, nil
		}
	}
}

var errUnreadable = errors.New("not a record of this version")

func (d *decoder) decode(f frame) (r record, err error) {
	if err := proto.Unmarshal(f.body, &d.body); err != nil {
		return r, err
	}
	r.position = f.position
	if d.body.GetBegin() {
		clear(d.known)
	}
	switch kind := d.body.GetKind().(type) {
	case *belfryv1.JournalRecord_Notification:
		if _, err = d.introduce(); err != nil {
			return r, err
		}
		r.notification = kind.Notification
		if id := r.notification.GetEntry(); id != 0 {
			if r.about = d.known[id]; r.about == nil { // its introduction was damaged
				return r, fmt.Errorf("%w: event %d is not introduced", errUnreadable, id)
			}
		}
	case *belfryv1.JournalRecord_Start:
		r.start = &kind.Start.Time
	case *belfryv1.JournalRecord_Stop:
		r.stop = &kind.Stop.Time
	case *belfryv1.JournalRecord_Head:
		r.head = kind.Head
		r.events, err = d.introduce()
		if n := len(r.events); err == nil && (n != len(kind.Head.GetLast()) || n != len(kind.Head.GetAge()) || n != len(kind.Head.GetBase())) {
			err = errUnreadable
		}
	case *belfryv1.JournalRecord_Index:
		r.index = kind.Index
		r.events, err = d.introduce()
		if len(kind.Index.GetEvent()) != len(kind.Index.GetLast()) || len(r.events) != len(kind.Index.GetBase()) {
			err = errUnreadable
		}
	default:
		err = errUnreadable
	}
	return r, err
}

// introduce takes the introductions of the record at hand.
func (d *decoder) introduce() (list []*introduction, err error) {
	for _, e := range d.body.GetEvents() {
		k, err := keyOf(e)
		if err != nil {
			return nil, err
		}
		i := &introduction{
			Key: k, nodeName: e.GetNodeName(),
			event: belfry.EventID{Class: belfry.Class(e.GetClass()), Subject: e.GetSubject(), Instance: e.GetInstance()},
		}
		i.wanted = d.match(i)
		d.known[e.GetId()] = i
		list = append(list, i)
	}
	return list, nil
}

// notificationOf makes the notification of a record.
func (r *record) notificationOf() (belfry.Notification, error) {
	n, err := notificationOf(r.notification)
	if i := r.about; i != nil {
		n.Node, n.NodeName, n.Incarnation, n.Entry, n.Event = i.Node, i.nodeName, i.Incarnation, i.Entry, i.event
	}
	return n, err
}
