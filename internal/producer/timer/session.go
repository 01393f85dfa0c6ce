package timer

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// mostTimes is how often one post can happen.
const mostTimes = 1_000_000_000

// A session is one call of Run.
type session struct {
	zone    *time.Location
	send    producer.Send
	targets map[event.WatchID]*target
}

// A target is the watch of one alarm.
type target struct {
	watch event.Watch
	alarm alarm
}

func newSession(zone *time.Location, send producer.Send) *session {
	return &session{zone: zone, send: send, targets: map[event.WatchID]*target{}}
}

func (s *session) watch(now instant, w event.Watch) error {
	if s.targets[w.ID] != nil {
		return nil // a change: there is nothing in a Watch that matters here
	}
	if w.Entry == 0 {
		return s.send(event.End{Watch: w.ID, Err: fmt.Errorf("%w: there are as many times as there are names; write one", belfry.ErrUnsupported)})
	}
	a, err := parse(w.Subject, s.zone)
	if err == nil {
		err = a.begin(now)
	}
	if err != nil { // waiting would not help: the past does not come back
		return s.send(event.End{Entry: w.Entry, Err: err})
	}
	s.targets[w.ID] = &target{watch: w, alarm: a}
	return s.send(event.Associate{Entry: w.Entry})
}

func (s *session) unwatch(id event.WatchID) { delete(s.targets, id) }

// next is when the first alarm is due by each clock.
func (s *session) next() (first due) {
	for _, t := range s.targets {
		d := t.alarm.next()
		if !d.wall.IsZero() && (first.wall.IsZero() || d.wall.Before(first.wall)) {
			first.wall = d.wall
		}
		if d.boot > 0 && (first.boot == 0 || d.boot < first.boot) {
			first.boot = d.boot
		}
	}
	return first
}

func (s *session) advance(now instant) error {
	for _, id := range slices.Sorted(maps.Keys(s.targets)) {
		t := s.targets[id]
		r := t.alarm.take(now)
		if r.count == 0 {
			continue
		}
		if err := s.post(now, t, r); err != nil {
			return err
		}
		if !r.over {
			continue
		}
		delete(s.targets, id)
		if err := s.send(event.End{Entry: t.watch.Entry}); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) post(now instant, t *target, r ring) error {
	late := max(now.wall.Sub(r.newest), 0)
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(&belfryv1.TimerFire{
		Due: r.newest.UnixNano(), Missed: r.count - 1,
		LateSeconds: math.Round(late.Seconds()*1000) / 1000, // ms is what a timer promises
	})
	if err != nil {
		return err
	}
	return s.send(event.Post{
		Entry: t.watch.Entry, Repeat: min(r.count, mostTimes),
		Occurrence: belfry.Occurrence{Time: now.wall, Data: data},
	})
}
