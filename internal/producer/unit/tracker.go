package unit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/belfry-ha/belfry"
)

// A listener is told by a tracker what becomes of units. What it says of itself
// must not change while it is told something.
type listener interface {
	exact() []string        // names and aliases that are asked for, sorted
	asked(name string) bool // as one of them
	meant(name string) bool // by a pattern

	appear(now time.Time, u *unit) error              // it is there, with all its names
	change(now time.Time, before unit, u *unit) error // u is as it is now
	vanish(now time.Time, u *unit) error              // nothing of its names is there
}

// Bounds of the back-off after the bus could not be reached: it doubles from the
// first to the second, plus up to a quarter of itself.
const (
	firstBackOff    = 100 * time.Millisecond
	greatestBackOff = 30 * time.Second
)

// A tracker knows the units that its listener wants as they are now. It holds
// its place on the connection and takes it again when it was lost: what it knows
// stands until then. Not safe for concurrent use.
type tracker struct {
	systemd  *Systemd
	listener listener

	feed    *feed // nil: not connected
	why     error // while not connected
	retry   time.Time
	backOff time.Duration

	byPath map[dbus.ObjectPath]*unit
	byName map[string]*unit // and by alias
}

func newTracker(systemd *Systemd, l listener) *tracker {
	return &tracker{
		systemd: systemd, listener: l, backOff: firstBackOff,
		byPath: map[dbus.ObjectPath]*unit{}, byName: map[string]*unit{},
	}
}

// bell rings when hear has something to do.
func (t *tracker) bell() <-chan struct{} {
	if t.feed == nil {
		return nil
	}
	return t.feed.bell
}

// leave gives the place on the connection back.
func (t *tracker) leave() {
	if t.feed != nil {
		t.systemd.leave(t.feed)
		t.feed = nil
	}
	for _, u := range t.byPath {
		u.at = 0 // the next connection numbers its messages anew
	}
}

// connect tries it when that is due, and then learns what has changed meanwhile.
func (t *tracker) connect(ctx context.Context, now time.Time) error {
	if t.feed != nil || now.Before(t.retry) {
		return nil
	}
	if t.feed, t.why = t.systemd.join(); t.why != nil {
		t.pause(now)
		return nil
	}
	return t.resync(ctx, now)
}

func (t *tracker) pause(now time.Time) {
	t.retry = now.Add(t.backOff + rand.N(t.backOff/4+1))
	t.backOff = min(2*t.backOff, greatestBackOff)
}

// lose takes an error of the connection, after which all is asked for anew on
// another one.
func (t *tracker) lose(now time.Time, err error) {
	t.why = t.systemd.unreachable(err)
	t.leave()
	t.pause(now)
}

// errListener marks what the listener said: that ends the producer, whatever
// becomes of the connection.
type errListener struct{ error }

func (e errListener) Unwrap() error { return e.error }

func told(err error) error {
	if err != nil {
		return errListener{err}
	}
	return nil
}

// survive takes the error of anything that asks the bus. Only the listener's is
// passed on.
func (t *tracker) survive(now time.Time, err error) error {
	if own, ok := errors.AsType[errListener](err); ok {
		return own.error
	}
	if err != nil {
		t.lose(now, err)
	}
	return nil
}

// resync looks at all that is wanted.
func (t *tracker) resync(ctx context.Context, now time.Time) error {
	err := t.lookAtAll(ctx, now)
	if err == nil {
		t.backOff = firstBackOff
	}
	return t.survive(now, err)
}

func (t *tracker) lookAtAll(ctx context.Context, now time.Time) error {
	before := maps.Clone(t.byPath) // and then what is left of it
	rows, err := t.list(ctx)
	if err != nil {
		return err
	}
	var paths []dbus.ObjectPath
	for _, r := range rows {
		if r.Load != notFound && (t.listener.meant(r.Name) || before[r.Path] != nil) {
			paths = append(paths, r.Path)
		}
	}
	for _, name := range t.listener.exact() {
		path, err := t.load(ctx, name)
		if err != nil {
			return err
		}
		if path != "" && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		if err := t.look(ctx, now, path); err != nil {
			return err
		}
		delete(before, path)
	}
	for _, path := range slices.Sorted(maps.Keys(before)) {
		u := t.byPath[path]
		switch {
		case u == nil:
			continue
		case u.stays: // its file may have been removed
			err = t.look(ctx, now, path)
		default:
			err = t.forgotten(now, u)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// want looks at a unit that the listener is about to ask for. What it hears of
// it on the way comes before.
func (t *tracker) want(ctx context.Context, now time.Time, name string) error {
	t.retry = time.Time{} // somebody waits for the answer
	if err := t.connect(ctx, now); err != nil || t.feed == nil || t.byName[name] != nil {
		return err
	}
	path, err := t.load(ctx, name)
	if err == nil && path != "" {
		err = t.look(ctx, now, path)
	}
	return t.survive(now, err)
}

// wantAll looks at the units that a pattern of the listener means.
func (t *tracker) wantAll(ctx context.Context, now time.Time, means func(name string) bool) error {
	t.retry = time.Time{}
	if err := t.connect(ctx, now); err != nil || t.feed == nil {
		return err
	}
	rows, err := t.list(ctx)
	for _, r := range rows {
		if err == nil && r.Load != notFound && means(r.Name) && t.byPath[r.Path] == nil {
			err = t.look(ctx, now, r.Path)
		}
	}
	return t.survive(now, err)
}

// prune forgets what nobody asks for.
func (t *tracker) prune() {
	for _, u := range t.byPath {
		if !t.wanted(u) {
			t.drop(u)
		}
	}
}

func (t *tracker) wanted(u *unit) bool {
	return t.listener.meant(u.name) || slices.ContainsFunc(u.names, t.listener.asked)
}

func (t *tracker) drop(u *unit) {
	delete(t.byPath, u.path)
	for _, name := range u.names {
		if t.byName[name] == u {
			delete(t.byName, name)
		}
	}
}

// look takes a unit as systemd has it now.
func (t *tracker) look(ctx context.Context, now time.Time, path dbus.ObjectPath) error {
	u := &unit{path: path}
	known := t.byPath[path]
	if known != nil {
		*u = *known
	}
	there, err := t.ask(ctx, now, u)
	switch {
	case err != nil:
		return err
	case there:
		if u.path = pathOf(u.name); u.path != path { // it was asked for by an alias
			known = t.byPath[u.path]
		}
		return t.take(now, known, u)
	case known != nil:
		return t.forgotten(now, known)
	}
	return nil
}

// take puts what is so now in the place of what was known before; nil: nothing.
func (t *tracker) take(now time.Time, known, u *unit) error {
	switch {
	case u.load == notFound && known != nil:
		return t.gone(now, known)
	case u.load == notFound, !t.wanted(u):
		return nil
	case known == nil:
		t.byPath[u.path] = u
		t.name(u)
		return told(t.listener.appear(now, u))
	}
	before := *known
	if slices.Equal(known.names, u.names) {
		*known = *u
		return told(t.listener.change(now, before, known))
	}
	if err := t.gone(now, known); err != nil { // it has got or lost an alias, which names another unit now
		return err
	}
	return t.take(now, nil, u)
}

func (t *tracker) name(u *unit) {
	for _, name := range u.names {
		t.byName[name] = u
	}
}

// gone takes a unit out.
func (t *tracker) gone(now time.Time, u *unit) error {
	t.drop(u)
	return told(t.listener.vanish(now, u))
}

// forgotten takes that systemd has no unit any more: it does not run. If it has a
// file it can be started again, and only then comes back.
func (t *tracker) forgotten(now time.Time, u *unit) error {
	before := *u
	u.active, u.sub, u.since, u.main = "inactive", "dead", now, Main{}
	if before.active != u.active {
		if err := told(t.listener.change(now, before, u)); err != nil {
			return err
		}
	}
	if u.stays {
		return nil
	}
	return t.gone(now, u)
}

// absent says why a unit is not known.
func (t *tracker) absent(name string) error {
	if t.feed == nil {
		return t.why
	}
	return fmt.Errorf("%w: systemd has no unit %s; see `systemctl list-unit-files`, or wait for it (--wait)", belfry.ErrNoEvent, name)
}
