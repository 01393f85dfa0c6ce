// Package user serves user.*: the classes whose names and events come from
// users, through `belfry event emit` and the API.
//
// It watches nothing: the agent hands an event that is sent straight to the
// event machine, and this package says which of them are well formed.
package user

import (
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// Bounds of an event that a user sends.
const (
	MaxSubject = 4096          // bytes
	MaxData    = 4096          // bytes
	MaxClass   = 128           // bytes, "user." included
	MaxRepeat  = 1_000_000_000 // occurrences in one request
)

const prefix = "user."

// A Producer answers every watch at once: an event that users name is there
// as soon as somebody asks for it. It has no state and is safe for concurrent use.
type Producer struct{}

// New makes a Producer.
func New() *Producer { return &Producer{} }

// Name is the folder's.
func (*Producer) Name() string { return "user" }

// Classes is the one class that stands for all below user.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{
		Class:    prefix + "*",
		Kind:     belfry.Happening,
		Summary:  "an event that a user or a program sent: belfry event emit user.NAME:SUBJECT",
		Subject:  "any text without control characters",
		Globs:    true,
		Remote:   true,
		Optional: true,
		Custom:   true,
	}}
}

// Run associates every watch of one event with an identifier that never
// changes. A pattern needs nothing: the machine makes the entries as events come.
func (*Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	associated := map[event.WatchID]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			if r.Watch == nil {
				delete(associated, r.Unwatch)
				continue
			}
			if r.Watch.Entry == 0 || associated[r.Watch.ID] {
				continue
			}
			associated[r.Watch.ID] = true
			if err := send(event.Associate{Entry: r.Watch.Entry}); err != nil {
				return nil // ctx has ended
			}
		}
	}
}

// Validate refuses with ErrUsage or ErrLimit what must not be sent: class has
// the form user.NAME, where NAME is words of [a-z0-9-] joined by dots;
// subject is UTF-8 without control characters, and empty for an event that
// needs none; repeat of 0 counts as 1.
func Validate(class belfry.Class, subject string, data []byte, repeat uint64) error {
	if err := validateClass(string(class)); err != nil {
		return err
	}
	if len(subject) > MaxSubject {
		return fmt.Errorf("%w: the subject has %d bytes; at most %d are possible", belfry.ErrLimit, len(subject), MaxSubject)
	}
	if !utf8.ValidString(subject) {
		return fmt.Errorf("%w: subject %q is not UTF-8", belfry.ErrUsage, subject)
	}
	if i := strings.IndexFunc(subject, unicode.IsControl); i >= 0 {
		return fmt.Errorf("%w: subject %q has a control character at byte %d; leave it out", belfry.ErrUsage, subject, i)
	}
	if len(data) > MaxData {
		return fmt.Errorf("%w: the data has %d bytes; at most %d are possible", belfry.ErrLimit, len(data), MaxData)
	}
	if repeat > MaxRepeat {
		return fmt.Errorf("%w: repeat %d; at most %d are possible", belfry.ErrLimit, repeat, MaxRepeat)
	}
	return nil
}

func validateClass(class string) error {
	name, ok := strings.CutPrefix(class, prefix)
	if !ok {
		return fmt.Errorf("%w: class %q is not for users; write user.NAME", belfry.ErrUsage, class)
	}
	if len(class) > MaxClass {
		return fmt.Errorf("%w: the class has %d bytes; at most %d are possible", belfry.ErrLimit, len(class), MaxClass)
	}
	for word := range strings.SplitSeq(name, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Errorf("%w: class %q; user.NAME is words of a-z, 0-9 and - joined by dots", belfry.ErrUsage, class)
		}
	}
	return nil
}
