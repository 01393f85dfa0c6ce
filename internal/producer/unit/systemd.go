package unit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/belfry-ha/belfry"
)

// Options are where a Systemd is found.
type Options struct {
	// Bus is the address of the bus as D-Bus writes it, unix:path=/run/…. Empty:
	// the system bus.
	Bus string

	// Booted is a folder that is there if systemd runs (sd_booted(3)): what can not
	// be reached then is about to come, and may be waited for. Empty:
	// /run/systemd/system.
	Booted string
}

// A Systemd is the way to the service manager of this machine. All who ask
// share one connection: the first opens it, the last closes it. Safe for
// concurrent use.
type Systemd struct {
	opts Options

	mu   sync.Mutex
	line *line // nil: there is none
}

// NewSystemd makes one that opens nothing yet.
func NewSystemd(opts Options) *Systemd {
	if opts.Booted == "" {
		opts.Booted = "/run/systemd/system"
	}
	return &Systemd{opts: opts}
}

// callTimeout is how long the bus and systemd may take to answer; then they
// count as gone.
const callTimeout = 5 * time.Second

// join gives a feed of what systemd says, beginning now.
func (s *Systemd) join() (*feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == nil || !s.line.Connected() {
		l, err := open(s.opts.Bus)
		if err != nil {
			return nil, s.unreachable(err)
		}
		s.line = l
	}
	return s.line.feed(), nil
}

// leave ends a feed, and with the last one the connection.
func (s *Systemd) leave(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.line.drop(f) > 0 {
		return
	}
	f.line.close()
	if s.line == f.line {
		s.line = nil
	}
}

// unreachable says what to do about it.
func (s *Systemd) unreachable(err error) error {
	if _, not := os.Stat(s.opts.Booted); not != nil {
		return fmt.Errorf("%w: systemd does not run on this node (%w); follow the processes themselves: process.exit:exe=/PATH or pidfile=/PATH",
			belfry.ErrUnsupported, err)
	}
	return outage{fmt.Errorf("%w: systemd can not be asked: %w; see that the bus runs (systemctl status dbus), or wait for it (--wait)",
		belfry.ErrUnsupported, err)}
}

// An outage is what may end by itself.
type outage struct{ error }

func (o outage) Unwrap() error { return o.error }

// Temporary tells who waits to go on waiting.
func (outage) Temporary() bool { return true }

func temporary(err error) bool {
	_, ok := errors.AsType[outage](err)
	return ok
}

// A line is one connection to the bus, on which systemd tells of its units.
type line struct {
	*dbus.Conn

	mu    sync.Mutex
	feeds map[*feed]bool
	ended bool // which the connection itself says a little later
}

// The words of D-Bus that are needed here.
const (
	systemdName  = "org.freedesktop.systemd1"
	managerPath  = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIface = systemdName + ".Manager"
	unitIface    = systemdName + ".Unit"
	propsIface   = "org.freedesktop.DBus.Properties"
)

// open connects and asks for the signals of all units.
func open(address string) (l *line, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	l = &line{feeds: map[*feed]bool{}}
	options := []dbus.ConnOption{dbus.WithSignalHandler(l)}
	if address == "" {
		l.Conn, err = dbus.SystemBusPrivate(options...)
	} else {
		l.Conn, err = dbus.Dial(address, options...)
	}
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // a bus that accepts and says nothing
	defer stop()
	if err := l.Auth(nil); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := l.begin(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *line) begin(ctx context.Context) error {
	if err := l.Hello(); err != nil {
		return err
	}
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(systemdName), dbus.WithMatchInterface(managerIface)},
		{
			dbus.WithMatchSender(systemdName), dbus.WithMatchInterface(propsIface), dbus.WithMatchMember("PropertiesChanged"),
			dbus.WithMatchPathNamespace(dbus.ObjectPath(unitPaths[:len(unitPaths)-1])),
		},
		{
			dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchInterface("org.freedesktop.DBus"),
			dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, systemdName),
		},
	} {
		if err := l.AddMatchSignalContext(ctx, match...); err != nil {
			return err
		}
	}
	return l.subscribe(ctx)
}

// subscribe makes systemd send signals, which it spares itself while nobody has
// asked. It forgets who had when it is replaced by another one.
func (l *line) subscribe(ctx context.Context) error {
	err := l.manager(ctx, "Subscribe").Err
	if named, ok := errors.AsType[dbus.Error](err); ok && named.Name == systemdName+".AlreadySubscribed" {
		return nil
	}
	return err
}

func (l *line) manager(ctx context.Context, method string, args ...any) *dbus.Call {
	return l.call(ctx, managerPath, managerIface+"."+method, args...)
}

func (l *line) call(ctx context.Context, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return l.Object(systemdName, path).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
}

func (l *line) close() { _ = l.Close() }

func (l *line) feed() *feed {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &feed{line: l, bell: make(chan struct{}, 1)}
	l.feeds[f] = true
	if l.ended {
		f.end()
	}
	return f
}

// drop answers how many are left.
func (l *line) drop(f *feed) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.feeds, f)
	return len(l.feeds)
}

// DeliverSignal is called by the connection's reader, which must not wait: the
// answers come by it too.
func (l *line) DeliverSignal(_, _ string, signal *dbus.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.feeds {
		f.put(signal)
	}
}

// Terminate is called when the connection has ended.
func (l *line) Terminate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for f := range l.feeds {
		f.end()
	}
}

// kept is how many signals a feed holds for who is slow to take them. Beyond
// that they are dropped, and all is to be asked for anew.
const kept = 4096

// A feed is what systemd says to one who asks.
type feed struct {
	line *line
	bell chan struct{} // capacity 1: there is something to take

	mu      sync.Mutex
	signals []*dbus.Signal
	overrun bool
	ended   bool
}

func (f *feed) put(signal *dbus.Signal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.overrun = f.overrun || len(f.signals) == kept; f.overrun {
		f.signals = nil
	} else {
		f.signals = append(f.signals, signal)
	}
	f.ring()
}

func (f *feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.ring()
}

func (f *feed) ring() {
	select {
	case f.bell <- struct{}{}:
	default: // it is heard already
	}
}

// take gives what has come. With overrun there was more, and with ended nothing
// comes any more.
func (f *feed) take() (signals []*dbus.Signal, overrun, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	signals, overrun, ended = f.signals, f.overrun, f.ended
	f.signals, f.overrun = nil, false
	return signals, overrun, ended
}
