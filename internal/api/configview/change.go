package configview

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// The range of how long a change may wait to be confirmed.
const (
	MinConfirm = 10 * time.Second
	MaxConfirm = 24 * time.Hour
)

// A Change makes the next document of the one that is there. It is a value:
// whoever commits may make it again of a newer document, if the one that it
// was made of is not the newest any more.
type Change struct {
	// Text says in the history what was done.
	Text string
	// Notice is what members are told with; zero: that there is a generation.
	Notice repository.NoticeKind
	base   uint64 // that it must be made of; 0: any
	told   bool   // the base is the one that a text names
	// make is the document without an entry of its own.
	make func(base repository.Document, at time.Time) (repository.Document, error)
	// locate puts the places of a text before errors; nil: there is none.
	locate func(error) error
}

// Apply puts the sections of a text in the place of those that are there, if
// these are of generation base; zero: of the one that the text names, or of any
// if it names none. With confirm, [MinConfirm] to [MaxConfirm], the change comes
// back unless it is confirmed in that time; zero: it stays.
func Apply(t *Text, base uint64, confirm time.Duration, known Tunables) (Change, error) {
	if confirm != 0 && (confirm < MinConfirm || confirm > MaxConfirm) {
		return Change{}, fmt.Errorf("%w: confirm %s; want %s to %s, or none", belfry.ErrUsage, confirm, MinConfirm, MaxConfirm)
	}
	return Change{
		Text: "config apply", base: cmp.Or(base, t.Generation()), told: base == 0,
		make: func(base repository.Document, at time.Time) (repository.Document, error) {
			if err := Waits(base); err != nil {
				return base, err
			}
			to := t.over(base, known)
			if known.Acts != nil {
				if err := known.Acts(base, to); err != nil {
					return base, t.source.Locate(err)
				}
			}
			if confirm > 0 && !same(base, to) {
				to.Confirm = &repository.Confirmation{Base: base.Generation(), Deadline: at.Add(confirm).UTC()}
			}
			return to, nil
		},
		locate: t.source.Locate,
	}, nil
}

// Rollback brings back the operator's sections of a past document; a change
// that waits for its confirmation does so no more.
func Rollback(past repository.Document) Change {
	return Change{
		Text: fmt.Sprintf("config rollback %d", past.Generation()),
		make: func(base repository.Document, _ time.Time) (repository.Document, error) {
			return repository.Rollback(base, past), nil
		},
	}
}

// Edit is a change of what is no operator's section: f makes the next document of
// a base, and shares nothing with it that it writes to. Like a join it neither
// waits for a change that is to be confirmed, nor keeps anything from it.
func Edit(text string, notice repository.NoticeKind, f func(base repository.Document, at time.Time) (repository.Document, error)) Change {
	return Change{Text: text, Notice: notice, make: f}
}

// Confirm keeps a change that waits for it. ErrNotFound: none does. generation
// is the one to be confirmed; ErrConflict: another one waits. Zero: whichever.
func Confirm(generation uint64) Change {
	return Change{
		Text: "config confirm",
		make: func(base repository.Document, _ time.Time) (repository.Document, error) {
			if base.Confirm == nil {
				return base, fmt.Errorf("%w: no change waits to be confirmed", belfry.ErrNotFound)
			}
			if waiting := base.Confirm.Base + 1; generation != 0 && generation != waiting {
				return base, fmt.Errorf("%w: generation %d waits to be confirmed, not %d; look at config history", belfry.ErrConflict, waiting, generation)
			}
			base.Confirm = nil
			return base, nil
		},
	}
}

// Expire brings back what was before a change that nobody has confirmed in time:
// past is the document that waits to come back. It is for whoever watches the
// deadline, and does nothing if the change was confirmed, taken back or made
// again meanwhile, or if the deadline is still to come by the time of the entry.
func Expire(past repository.Document) Change {
	return Change{
		Text: fmt.Sprintf("config rollback %d: not confirmed", past.Generation()),
		make: func(base repository.Document, at time.Time) (repository.Document, error) {
			if c := base.Confirm; c == nil || c.Base != past.Generation() || at.Before(c.Deadline) {
				return base, nil
			}
			return repository.Rollback(base, past), nil
		},
	}
}

// Waits refuses a change while another one may still come back: it would come
// back with it, or be lost with it. ErrConflict.
func Waits(base repository.Document) error {
	if c := base.Confirm; c != nil {
		return fmt.Errorf("%w: generation %d waits to be confirmed until %s; belfry config confirm, or belfry config rollback %d, first",
			belfry.ErrConflict, c.Base+1, c.Deadline.Format(time.RFC3339), c.Base)
	}
	return nil
}

// maxWhy leaves room in the history for what was done, in bytes.
const maxWhy = 200

// Because is the change with a reason for the history. ErrUsage: it is longer
// than 200 bytes, or not one line.
func (c Change) Because(why string) (Change, error) {
	if len(why) > maxWhy || !utf8.ValidString(why) || strings.ContainsFunc(why, unicode.IsControl) {
		return c, fmt.Errorf("%w: why: %d bytes; want one line of text, %d at most", belfry.ErrUsage, len(why), maxWhy)
	}
	if why != "" {
		c.Text += ": " + why
	}
	return c, nil
}

// Next makes the change and everything that a generation has to be: it follows
// the base, is valid by itself, and has a form. The entry says who made it and
// when; its text is that of the change, unless it has one. changed is false,
// and next the base, if nothing but the history would differ.
//
// ErrConflict: not now; ErrUsage, ErrLimit: the document would not be valid.
// Errors about a text have its line and column.
func (c Change) Next(base repository.Document, e repository.Entry, known Tunables) (next repository.Document, changed bool, err error) {
	if m := base.Moving; m != nil {
		return base, false, fmt.Errorf("%w: the repository moves to epoch %d; try again when it is there", belfry.ErrConflict, m.Epoch)
	}
	if err := c.holds(base.Generation()); err != nil {
		return base, false, err
	}
	to, err := c.make(base, e.Time)
	if err != nil {
		return base, false, err
	}
	if same(base, to) {
		return base, false, nil
	}
	if e.Text == "" {
		e.Text = c.Text
	}
	next, err = repository.Follow(base, to, e)
	if err == nil {
		err = next.Validate(known.Check)
	}
	if err == nil {
		err = repository.Next(base, next)
	}
	if err == nil {
		_, err = repository.Encode(next) // its size
	}
	if err != nil {
		return base, false, c.located(err)
	}
	return next, true, nil
}

// Acts refuses to add or change what no agent acts on yet: that it was taken
// would say that it is in force. What is there may stay, go, and come back. It wraps
// ErrUnsupported.
func Acts(base, next repository.Document) error {
	var problems []error
	for i, l := range next.Links {
		if !slices.ContainsFunc(base.Links, func(was repository.Link) bool { return reflect.DeepEqual(was, l) }) {
			problems = append(problems, notInForce(fmt.Sprintf("links[%d]", i), "every pair of nodes has heartbeats on each network that both are on"))
		}
	}
	for i, l := range next.Linked {
		if !slices.ContainsFunc(base.Linked, func(was repository.LinkedCluster) bool { return reflect.DeepEqual(was, l) }) {
			problems = append(problems, notInForce(fmt.Sprintf("linked[%d]", i), "no other cluster is watched"))
		}
	}
	return errors.Join(problems...)
}

func notInForce(path, is string) error {
	return fmt.Errorf("%s: %w: agents of this version do not act on it: %s; leave it out", path, belfry.ErrUnsupported, is)
}

// holds refuses another generation than the one that somebody has looked at.
func (c Change) holds(generation uint64) error {
	switch {
	case c.base == 0 || c.base == generation:
		return nil
	case c.told:
		return fmt.Errorf("%w: generation is %d, and the text was made from %d; look at belfry config diff %d, take over what is new, and write generation: %d",
			belfry.ErrConflict, generation, c.base, c.base, generation)
	}
	return fmt.Errorf("%w: generation is %d, not %d; plan again", belfry.ErrConflict, generation, c.base)
}

// located leaves out the operation, and puts the place in a text before what is
// wrong there.
func (c Change) located(err error) error {
	var e *belfry.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	err = words(err)
	if c.locate == nil {
		return err
	}
	return c.locate(err)
}

// words are the lines of an error without those of its sentinels, which the
// code of the answer has.
func words(err error) error {
	text := err.Error()
	for _, sentinel := range []error{belfry.ErrUsage, belfry.ErrLimit} {
		text = strings.ReplaceAll(text, sentinel.Error()+": ", "")
	}
	return worded{text, err}
}

// worded is an error in other words.
type worded struct {
	text string
	is   error
}

func (w worded) Error() string { return w.text }

func (w worded) Unwrap() error { return w.is }

// same compares what would be written.
func same(a, b repository.Document) bool {
	x, errX := repository.Encode(a)
	y, errY := repository.Encode(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
