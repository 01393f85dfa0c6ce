package unit

import (
	"context"
	"errors"
	"time"

	"github.com/godbus/dbus/v5"
)

// This file asks systemd; tracker.go makes sense of the answers.

// notFound is how systemd has a unit that others name and that has no file.
const notFound = "not-found"

// A row is one of ListUnitsByPatterns.
type row struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	Job                                             uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

// list is what systemd has now of these names; none: of all. It loads nothing.
func (t *tracker) list(ctx context.Context, names ...string) (rows []row, err error) {
	if names == nil {
		names = []string{}
	}
	err = t.feed.line.manager(ctx, "ListUnitsByPatterns", []string{}, names).Store(&rows)
	return rows, err
}

// load is the path of the unit of a name or alias. Systemd reads its file if it
// has not; empty: it does not take the name.
func (t *tracker) load(ctx context.Context, name string) (path dbus.ObjectPath, err error) {
	err = t.feed.line.manager(ctx, "LoadUnit", name).Store(&path)
	if refused(err) {
		return "", nil
	}
	return path, err
}

// refused tells whether it was systemd that said no, and not that nobody
// answered.
func refused(err error) bool {
	named, ok := errors.AsType[dbus.Error](err)
	if !ok {
		return false
	}
	switch named.Name {
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Timeout", "org.freedesktop.DBus.Error.Disconnected":
		return false
	}
	return true
}

// ask fills in all of a unit. It answers false for one that there is not any
// more.
func (t *tracker) ask(ctx context.Context, now time.Time, u *unit) (there bool, err error) {
	l := t.feed.line
	call := l.call(ctx, u.path, propsIface+".GetAll", unitIface)
	all := properties{}
	if err := call.Store(&all); err != nil {
		if refused(err) {
			return false, nil
		}
		return false, err
	}
	u.at = call.ResponseSequence
	u.learn(now, all)
	kind := types[typeOf(u.name)]
	if !kind.result {
		return true, nil
	}
	more := properties{}
	wanted := []string{"Result"}
	if kind.iface == "Service" {
		wanted = append(wanted, "MainPID", "ExecMainStartTimestampMonotonic")
	}
	for _, name := range wanted {
		var v dbus.Variant
		err := l.call(ctx, u.path, propsIface+".Get", systemdName+"."+kind.iface, name).Store(&v)
		switch {
		case refused(err): // it has gone, or an old systemd does not know it
		case err != nil:
			return false, err
		default:
			more[name] = v
		}
	}
	u.learnOfType(more)
	return true, nil
}
