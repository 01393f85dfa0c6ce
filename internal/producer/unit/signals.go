package unit

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

// hear takes what systemd has said.
func (t *tracker) hear(ctx context.Context, now time.Time) error {
	if t.feed == nil {
		return nil
	}
	signals, overrun, ended := t.feed.take()
	for _, signal := range signals {
		if err := t.signal(ctx, now, signal); err != nil {
			return t.survive(now, err)
		}
	}
	if ended {
		t.lose(now, errors.New("the bus has closed the connection"))
		return nil
	}
	if overrun {
		return t.resync(ctx, now)
	}
	return nil
}

func (t *tracker) signal(ctx context.Context, now time.Time, signal *dbus.Signal) error {
	switch signal.Name {
	case propsIface + ".PropertiesChanged":
		return t.changed(ctx, now, signal)
	case managerIface + ".UnitNew":
		if _, path, ok := nameAndPath(signal); ok {
			return t.heardOf(ctx, now, path)
		}
	case managerIface + ".UnitRemoved":
		if _, path, ok := nameAndPath(signal); ok && t.byPath[path] != nil && signal.Sequence > t.byPath[path].at {
			return t.forgotten(now, t.byPath[path])
		}
	case managerIface + ".Reloading":
		if begins, ok := first[bool](signal.Body); ok && !begins { // files may have come, gone or got other names
			return t.lookAtAll(ctx, now)
		}
	case "org.freedesktop.DBus.NameOwnerChanged":
		if len(signal.Body) == 3 && signal.Body[0] == systemdName && signal.Body[2] != "" {
			if err := t.feed.line.subscribe(ctx); err != nil {
				return err
			}
			return t.lookAtAll(ctx, now)
		}
	}
	return nil
}

func nameAndPath(signal *dbus.Signal) (name string, path dbus.ObjectPath, ok bool) {
	err := dbus.Store(signal.Body, &name, &path)
	return name, path, err == nil
}

func first[T any](body []any) (v T, ok bool) {
	if len(body) > 0 {
		v, ok = body[0].(T)
	}
	return v, ok
}

// changed takes a change of a unit. Systemd sends that of the type's interface
// before that of the interface that all units have.
func (t *tracker) changed(ctx context.Context, now time.Time, signal *dbus.Signal) error {
	known := t.byPath[signal.Path]
	if known == nil {
		return t.heardOf(ctx, now, signal.Path)
	}
	if signal.Sequence <= known.at {
		return nil // looked at since
	}
	var iface string
	var changed properties
	var invalidated []string
	if err := dbus.Store(signal.Body, &iface, &changed, &invalidated); err != nil {
		return nil //nolint:nilerr // it is no signal of systemd's
	}
	u := *known
	u.at = signal.Sequence
	if iface != unitIface {
		u.learnOfType(changed)
		return t.take(now, known, &u)
	}
	if !u.learn(now, changed) && u.active != "inactive" { // an old systemd does not send all
		return t.look(ctx, now, signal.Path)
	}
	return t.take(now, known, &u)
}

// heardOf takes that systemd has a unit that may be wanted. To ask for what
// systemd has forgotten again makes it load the file, say that the unit is new,
// and forget it: so what does not run is asked for only if it is not known.
func (t *tracker) heardOf(ctx context.Context, now time.Time, path dbus.ObjectPath) error {
	name, ok := nameOf(path)
	if !ok || !t.mayBeWanted(name) {
		return nil
	}
	rows, err := t.list(ctx, name)
	if err != nil || len(rows) != 1 || rows[0].Load == notFound {
		return err
	}
	r, known := rows[0], t.byPath[path]
	switch {
	case known != nil && known.active == r.Active && r.Active == "inactive":
		return nil
	case known == nil && r.Active == "inactive" && !t.listener.meant(name) && !t.listener.asked(name):
		return nil // if it has the alias that is waited for, that is seen when it is started
	}
	return t.look(ctx, now, path)
}

// mayBeWanted also means units that may have an alias that is waited for: it has
// the same type.
func (t *tracker) mayBeWanted(name string) bool {
	if t.byName[name] != nil || t.listener.meant(name) || t.listener.asked(name) {
		return true
	}
	return slices.ContainsFunc(t.listener.exact(), func(alias string) bool {
		return t.byName[alias] == nil && typeOf(alias) == typeOf(name)
	})
}
