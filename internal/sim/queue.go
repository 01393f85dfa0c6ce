package sim

import (
	"time"

	"github.com/belfry-ha/belfry/internal/cluster"
)

// eventKind is what happens at one moment.
type eventKind uint8

const (
	eventWake    eventKind = iota // the machine of node asked to be woken; token says which time
	eventPacket                   // packet arrives
	eventMessage                  // message reaches the driver of node
	eventStep                     // a step of the scenario begins
	eventBoot                     // node's process starts
	eventResume                   // a pause of node ends
	eventConnect                  // node opens its streams
	eventTable                    // node learns the newest member table
	eventProbe                    // what does not count is thrown at a machine (invariant 1)
)

// An event is kept small: a large cluster has some ten thousand at a time.
type event struct {
	at      int64 // ns since the start
	order   uint64
	kind    eventKind
	node    int32
	token   uint32
	step    int32
	packet  *packet
	message cluster.Message
}

// A packet is one datagram on its way.
type packet struct {
	from, to    int32
	link        uint8
	network     uint8
	incarnation uint32
	boot        uint32 // of the sender
	shown       uint32 // what the sender took for the receiver's boot
	body        cluster.Body
}

// queue is a heap of events by time, then by order. Four children a node are
// faster than two: fewer levels, and children lie side by side.
type queue []event

func (q queue) less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}

func (q *queue) push(e event) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 4
		if !h.less(i, parent) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (q *queue) pop() event {
	h := *q
	first := h[0]
	last := len(h) - 1
	h[0] = h[last]
	h[last] = event{}
	h = h[:last]
	*q = h
	for i := 0; ; {
		least := i
		for child := 4*i + 1; child <= 4*i+4 && child < len(h); child++ {
			if h.less(child, least) {
				least = child
			}
		}
		if least == i {
			return first
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

// at is a moment of the virtual clock.
func (s *simulation) time(at int64) time.Time { return s.start.Add(time.Duration(at)) }
