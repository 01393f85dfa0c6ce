package unit_test

import (
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/belfry-ha/belfry/internal/producer/unit"
)

// A fake is a systemd at the other end of a bus of its own. Like the real one
// it forgets what does not run, reads its file again whenever that is asked for,
// and says of it each time that it is new.
type fake struct {
	t      *testing.T
	dir    string
	socket net.Listener

	mu      sync.Mutex
	units   map[string]*fakeUnit
	clients map[*client]bool
	silent  bool // it takes calls and does not answer
	calls   map[string]int
	dials   int
	last    byte // of invocations

	ended  bool           // the bus is down
	served sync.WaitGroup // all goroutines
}

type fakeUnit struct {
	name      string
	aliases   []string
	file      string // empty: it has none
	transient bool
	active    string
	sub       string
	result    string
	id        []byte
	pid       uint32
	started   uint64
	loaded    bool
}

// A client is one connection. Everything that is sent to it goes by the lock of
// the fake, so that it comes in order.
type client struct {
	net.Conn
	subscribed bool
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, dir: t.TempDir(), units: map[string]*fakeUnit{}, clients: map[*client]bool{}, calls: map[string]int{}}
	f.listen()
	t.Cleanup(f.down)
	return f
}

// systemd is the way to it.
func (f *fake) systemd() *unit.Systemd {
	return unit.NewSystemd(unit.Options{Bus: "unix:path=" + filepath.Join(f.dir, "bus"), Booted: f.dir})
}

func (f *fake) producer() *unit.Producer { return unit.New(f.systemd()) }

func (f *fake) listen() {
	socket, err := net.Listen("unix", filepath.Join(f.dir, "bus"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.socket, f.ended = socket, false
	f.mu.Unlock()
	f.served.Go(func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			c := &client{Conn: conn}
			f.mu.Lock()
			if f.ended {
				_ = conn.Close()
				f.mu.Unlock()
				return
			}
			f.clients[c] = true
			f.mu.Unlock()
			f.served.Go(func() { f.serve(c) })
		}
	})
}

// down ends the bus, with all its connections, and waits until nothing of it is
// left that could take part in what comes next.
func (f *fake) down() {
	f.mu.Lock()
	_ = f.socket.Close()
	f.ended = true
	for c := range f.clients {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.served.Wait()
}

// add makes a service that has a file.
func (f *fake) add(name string, aliases ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.units[name] = &fakeUnit{
		name: name, aliases: aliases, file: "/etc/systemd/system/" + name, active: "inactive", sub: "dead", result: "success",
	}
}

// set changes a unit and says so.
func (f *fake) set(name, active, sub string, more ...func(*fakeUnit)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.units[name]
	fresh := !u.loaded
	u.active, u.sub, u.loaded = active, sub, true
	for _, change := range more {
		change(u)
	}
	if fresh { // in the place of a change: that is all it says
		f.signal(managerPath, managerIface, "UnitNew", name, u.path())
	} else {
		f.say(u)
	}
	f.collect(u)
}

// started is what a start brings.
func (f *fake) started(u *fakeUnit) {
	f.last++
	u.id = slices.Repeat([]byte{f.last}, 16)
	u.result = "success"
	u.started = uint64(f.last)
}

func (f *fake) start(name string) {
	f.set(name, "activating", "start", f.started)
	f.set(name, "active", "running")
}

func main(pid int) func(*fakeUnit) { return func(u *fakeUnit) { u.pid = uint32(pid) } }

func failed(result string) func(*fakeUnit) {
	return func(u *fakeUnit) { u.result, u.pid = result, 0 }
}

// reload has systemd read all files again after a change.
func (f *fake) reload(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signal(managerPath, managerIface, "Reloading", true)
	change()
	f.signal(managerPath, managerIface, "Reloading", false)
}

// replaced is another systemd in the place of this one, which knows of no
// subscriber and of a change that nobody was told.
func (f *fake) replaced(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.signalFrom("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", systemdName, ":1.0", ":1.9")
	for c := range f.clients {
		c.subscribed = false
	}
}

// expect waits until so many connections are open, of all that there were.
func (f *fake) expect(dials, open int) {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		f.mu.Lock()
		d, o := f.dials, len(f.clients)
		f.mu.Unlock()
		if d == dials && o == open {
			return
		}
		<-tick.C
	}
	f.t.Fatalf("not %d of %d connections are open", open, dials)
}

// collect forgets what does not run.
func (f *fake) collect(u *fakeUnit) {
	if u.active != "inactive" {
		return
	}
	u.loaded, u.id = false, nil
	f.signal(managerPath, managerIface, "UnitRemoved", u.name, u.path())
	if u.transient {
		delete(f.units, u.name)
	}
}

func (f *fake) say(u *fakeUnit) {
	f.signal(u.path(), propsIface, "PropertiesChanged", systemdName+".Service", u.service(), []string{})
	all := u.all()
	for _, constant := range []string{"Id", "Names", "LoadState", "FragmentPath", "Transient"} {
		delete(all, constant)
	}
	f.signal(u.path(), propsIface, "PropertiesChanged", systemdName+".Unit", all, []string{})
}

func (u *fakeUnit) path() dbus.ObjectPath {
	return dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + strings.NewReplacer("_", "_5f", "-", "_2d", ".", "_2e", "@", "_40").Replace(u.name))
}

func (u *fakeUnit) load() string {
	if u.file == "" && !u.transient {
		return "not-found"
	}
	return "loaded"
}

func (u *fakeUnit) all() map[string]dbus.Variant {
	return map[string]dbus.Variant{
		"Id": dbus.MakeVariant(u.name), "Names": dbus.MakeVariant(append([]string{u.name}, u.aliases...)),
		"LoadState": dbus.MakeVariant(u.load()), "FragmentPath": dbus.MakeVariant(u.file), "Transient": dbus.MakeVariant(u.transient),
		"ActiveState": dbus.MakeVariant(u.active), "SubState": dbus.MakeVariant(u.sub), "InvocationID": dbus.MakeVariant(u.id),
		"StateChangeTimestamp": dbus.MakeVariant(uint64(1)),
	}
}

func (u *fakeUnit) service() map[string]dbus.Variant {
	return map[string]dbus.Variant{
		"Result": dbus.MakeVariant(u.result), "MainPID": dbus.MakeVariant(u.pid), "ExecMainStartTimestampMonotonic": dbus.MakeVariant(u.started),
	}
}

const (
	systemdName  = "org.freedesktop.systemd1"
	managerPath  = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIface = systemdName + ".Manager"
	propsIface   = "org.freedesktop.DBus.Properties"
)

func (f *fake) call(c *client, method string, path dbus.ObjectPath, args []any) ([]any, error) {
	switch method {
	case "Hello":
		return []any{":1.1"}, nil
	case "AddMatch":
		return nil, nil
	case "Subscribe":
		c.subscribed = true
		return nil, nil
	case "ListUnitsByPatterns":
		return []any{f.list(args[1].([]string))}, nil
	case "LoadUnit":
		u := f.load(args[0].(string))
		return []any{u.path()}, nil
	}
	for _, u := range f.units {
		if u.path() != path {
			continue
		}
		f.load(u.name)
		switch method {
		case "GetAll":
			return []any{u.all()}, nil
		case "Get":
			return []any{u.service()[args[1].(string)]}, nil
		}
	}
	return nil, errors.New("org.freedesktop.DBus.Error.UnknownObject")
}

// load reads the file of what systemd has forgotten, and forgets it again.
func (f *fake) load(name string) *fakeUnit {
	var u *fakeUnit
	for _, other := range f.units {
		if other.name == name || slices.Contains(other.aliases, name) {
			u = other
		}
	}
	if u == nil {
		u = &fakeUnit{name: name, active: "inactive", sub: "dead"}
		f.units[name] = u
	}
	if !u.loaded {
		f.signal(managerPath, managerIface, "UnitNew", u.name, u.path())
		f.collect(u)
	}
	return u
}

type listed struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	Job                                             uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

func (f *fake) list(names []string) []listed {
	all := []listed{}
	for _, u := range f.units {
		if u.loaded && (len(names) == 0 || slices.Contains(names, u.name)) {
			all = append(all, listed{Name: u.name, Load: u.load(), Active: u.active, Sub: u.sub, Path: u.path(), JobPath: "/"})
		}
	}
	return all
}
