package main

import (
	"context"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	topInterval = time.Second             // between two looks where nothing happens
	topSpacing  = time.Second / 10        // between two looks where much happens
	topPatience = 1500 * time.Millisecond // for one look; answers come from the agent's memory
	topEvents   = 1000                    // the newest events are kept
)

// topClasses are the classes of the events pane: what changes of nodes and
// links, as this node sees it.
var topClasses = []string{"node.*", "contact.state", "link.state", "cluster.*"}

type linkRow = belfryv1.Link

// A topAnswer is one look at the agent.
type topAnswer struct {
	at        time.Time // when it came, by the clock of this machine
	facts     *topFacts // nil: err says why there are none
	err       error
	events    []belfry.Notification // since the last look, oldest first
	eventsErr error                 // why no events come; nil: they do
}

// topFacts are what the agent holds, at one time.
type topFacts struct {
	status *belfryv1.GetStatusResponse
	links  []*linkRow
}

// A topFeed looks at an agent, once a second and after each event.
type topFeed struct {
	client  *client.Client
	classes catalogue
	news    chan struct{} // has a value when something happened since the last look

	mu        sync.Mutex
	events    []belfry.Notification
	eventsErr error
}

func newTopFeed(c *client.Client) *topFeed {
	return &topFeed{client: c, news: make(chan struct{}, 1)}
}

// run hands one look after the other to show, until ctx ends.
func (f *topFeed) run(ctx context.Context, show func(topAnswer)) {
	var listening sync.WaitGroup
	listening.Go(func() { f.listen(ctx) })
	defer listening.Wait()
	for {
		answer := f.look(ctx)
		if ctx.Err() != nil {
			return
		}
		show(answer)
		if !pause(ctx, topSpacing, nil) || !pause(ctx, topInterval-topSpacing, f.news) {
			return
		}
	}
}

// pause waits for d, or until early has a value; false: ctx has ended.
func pause(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-early:
	case <-ctx.Done():
		return false
	}
	return true
}

// look asks for everything; it takes topPatience at most.
func (f *topFeed) look(ctx context.Context) topAnswer {
	ctx, cancel := context.WithTimeout(ctx, topPatience)
	defer cancel()
	var answer topAnswer
	status, err := f.client.Status(ctx)
	if err == nil {
		var links *belfryv1.ListLinksResponse
		if links, err = f.client.Links(ctx, ""); err == nil {
			answer.facts = &topFacts{status: status, links: links.GetLinks()}
		}
	}
	answer.at, answer.err = time.Now(), err
	f.mu.Lock()
	defer f.mu.Unlock()
	answer.events, f.events = f.events, nil
	answer.eventsErr = f.eventsErr
	return answer
}

// listen gathers events. The stream outlives the agent; where it is refused,
// it is tried again, because rights may change.
func (f *topFeed) listen(ctx context.Context) {
	for {
		err := f.receive(ctx)
		if ctx.Err() != nil {
			return
		}
		f.note(nil, err)
		if !pause(ctx, topInterval, nil) {
			return
		}
	}
}

func (f *topFeed) receive(ctx context.Context) error {
	opening, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	stream, err := f.client.Subscribe(opening, client.Name("top"))
	if err != nil {
		return err
	}
	defer stream.Close()
	for _, class := range topClasses {
		if _, err := stream.Register(opening, belfry.Registration{Class: class, Wait: true}); err != nil {
			return err
		}
	}
	f.note(nil, nil)
	for {
		n, err := stream.Next(ctx)
		if err != nil {
			return err
		}
		if n.Kind != belfry.KindCoverage { // about the registration, not about an event
			f.note(&n, nil)
		}
	}
}

// note keeps what the next look hands on, and has it made soon.
func (f *topFeed) note(n *belfry.Notification, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.eventsErr = err
	if n != nil {
		f.events = append(f.events[max(0, len(f.events)-topEvents+1):], *n)
	}
	select {
	case f.news <- struct{}{}:
	default:
	}
}
