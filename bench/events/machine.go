package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
)

// fileClass is a class that its producer watches, so that a post is what it is
// for every producer: a message that names the entry.
const fileClass belfry.Class = "file.modify"

// maxStreams is how many connections the registrations come from at most: 100
// registrations on each for 100,000 (events.md 12).
const maxStreams = 1000

// A rig is an event machine with one entry and registrations on it, in the
// hands of the measurement instead of an agent's loop.
type rig struct {
	machine *event.Machine
	entry   event.EntryID
	streams int
	now     time.Time
}

const (
	rigSubject  = "/etc/passwd"
	rigInstance = "1"
)

// newRig spreads the registrations evenly over the streams. subject is the
// path, or a pattern that fits it.
func newRig(registrations int, subject string) (*rig, error) {
	r := &rig{streams: min(registrations, maxStreams), now: time.Unix(1_700_000_000, 0)}
	r.machine = event.New(event.Config{
		Name: "a", Incarnation: 1,
		Classes: []belfry.ClassInfo{{Class: fileClass, Kind: belfry.Happening, Subject: "PATH", Globs: true, Remote: true}},
	}, r.now, rand.New(rand.NewPCG(1, 1)))
	for s := range r.streams {
		r.machine.Receive(r.now, event.Open{Consumer: event.ConsumerID(s + 1), Name: fmt.Sprint(s)})
	}
	for i := range registrations {
		r.machine.Receive(r.now, event.Register{
			Request: event.RequestID(i + 1), Consumer: event.ConsumerID(i%r.streams + 1), Number: uint32(i/r.streams + 1),
			Registration: belfry.Registration{Class: string(fileClass), Subject: subject},
		})
	}
	return r, r.associate()
}

// associate is the producer's part.
func (r *rig) associate() error {
	for range 3 { // a pattern is answered with Found, which brings the watch of an entry, then come the answers
		out := r.machine.Take()
		for _, w := range out.Watch {
			if w.Entry == 0 {
				r.machine.Receive(r.now, event.Found{Watch: w.ID, Subject: rigSubject})
				continue
			}
			r.entry = w.Entry
			r.machine.Receive(r.now, event.Associate{Entry: w.Entry, Instance: rigInstance})
		}
		for _, a := range out.Answers {
			if a.Err != nil {
				return a.Err
			}
		}
	}
	if r.entry == 0 {
		return fmt.Errorf("no entry of %s was asked for", rigSubject)
	}
	return nil
}

// A happening is the message of the producer, used again for each post.
func (r *rig) happening() *event.Post {
	return &event.Post{Entry: r.entry, Occurrence: belfry.Occurrence{Event: belfry.EventID{Instance: rigInstance}, Time: r.now}}
}

// post lets it happen once; two of different codes never merge.
func (r *rig) post(p *event.Post, code int32) {
	p.Occurrence.Time = p.Occurrence.Time.Add(time.Microsecond)
	p.Occurrence.Code = code
	r.machine.Receive(p.Occurrence.Time, p)
}
