package client

import (
	"context"
	"errors"
	"io"
	"sync"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// fakeAgent is the other end of links, in memory, so that reconnecting runs
// on virtual time.
type fakeAgent struct {
	links chan *fakeLink // as they are opened

	mu   sync.Mutex
	away error // of open, while set
}

func newFakeAgent() *fakeAgent { return &fakeAgent{links: make(chan *fakeLink, 1024)} }

func (a *fakeAgent) setAway(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = err
}

func (a *fakeAgent) open(ctx context.Context) (link, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away != nil {
		a.links <- nil
		return nil, a.away
	}
	l := &fakeLink{ctx: ctx, up: make(chan *belfryv1.SubscribeRequest, 1024), down: make(chan *belfryv1.SubscribeResponse, 1024), broken: make(chan error, 1)}
	a.links <- l
	return l, nil
}

type fakeLink struct {
	ctx    context.Context // stands for a stream, which has one
	up     chan *belfryv1.SubscribeRequest
	down   chan *belfryv1.SubscribeResponse
	broken chan error
}

var errBroken = errors.New("the connection broke")

func (l *fakeLink) Send(m *belfryv1.SubscribeRequest) error {
	if l.ctx.Err() != nil {
		return io.EOF
	}
	l.up <- m
	return nil
}

func (l *fakeLink) Recv() (*belfryv1.SubscribeResponse, error) {
	select {
	case m := <-l.down:
		return m, nil
	default:
	}
	select {
	case m := <-l.down:
		return m, nil
	case err := <-l.broken:
		return nil, err
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
}

func (l *fakeLink) CloseSend() error {
	l.broken <- io.EOF
	return nil
}

func (l *fakeLink) welcome(token string, resumed bool) {
	l.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Welcome{Welcome: &belfryv1.Welcome{Token: []byte(token), Resumed: resumed, ClusterName: "dev", NodeName: "a"}}}
}

func (l *fakeLink) registered(number uint32) {
	l.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Registered{Registered: &belfryv1.Registered{Number: number}}}
}

func (l *fakeLink) refused(number uint32, code string) {
	l.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Refused{Refused: &belfryv1.Refused{Number: number, Refusal: &belfryv1.Refusal{Code: code, Message: "refused: " + code}}}}
}

// batch sends occurrences of one event, as [first, last] each.
func (l *fakeLink) batch(number uint64, ranges ...[2]uint64) {
	b := &belfryv1.Batch{Number: number, Entries: []*belfryv1.Entry{{Id: 1, NodeId: make([]byte, 16), NodeName: "b", Incarnation: 1, Entry: 7, Class: "user.x"}}}
	for _, r := range ranges {
		b.Notifications = append(b.Notifications, &belfryv1.Notification{Kind: belfryv1.Kind_KIND_OCCURRENCE, Registration: 1, Entry: 1, FirstSequence: r[0], Sequence: r[1], Time: 1})
	}
	l.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: b}}
}

// state sends the present state of the same event, which has no number of its
// own that could tell it from a repeated one.
func (l *fakeLink) state(number uint64) {
	b := &belfryv1.Batch{Number: number, Notifications: []*belfryv1.Notification{{Kind: belfryv1.Kind_KIND_STATE, Registration: 1, Time: 1}}}
	l.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: b}}
}
