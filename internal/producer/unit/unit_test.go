package unit_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
	"github.com/belfry-ha/belfry/internal/producer/unit"
)

// quiet is how long nothing must come before it counts as nothing.
const quiet = 150 * time.Millisecond

func watch(d *producertest.Driver, subject string) event.Watch {
	return d.Watch(event.Watch{Class: unit.Class, Subject: subject})
}

func wait(d *producertest.Driver, subject string) event.Watch {
	return d.Watch(event.Watch{Class: unit.Class, Subject: subject, Wait: true})
}

// said is what an occurrence says: active/sub/result, and of which unit if the
// subject is an alias.
func said(t *testing.T, o *belfry.Occurrence) string {
	t.Helper()
	if o == nil {
		t.Fatal("no state")
	}
	var data belfryv1.UnitState
	if err := proto.Unmarshal(o.Data, &data); err != nil {
		t.Fatal(err)
	}
	text := data.GetActive() + "/" + data.GetSub() + "/" + data.GetResult()
	if data.GetUnit() != "" {
		text += " of " + data.GetUnit()
	}
	return text
}

// posted reads one occurrence, which is always a lower bound.
func posted(t *testing.T, d *producertest.Driver, want string, code int32, edge belfry.Edge) event.Post {
	t.Helper()
	post := producertest.NextOf[event.Post](d)
	if got := said(t, &post.Occurrence); got != want || post.Occurrence.Code != code || post.Occurrence.Edge != edge {
		t.Fatalf("%s, code %d, edge %v; want %s, %d, %v", got, post.Occurrence.Code, post.Occurrence.Edge, want, code, edge)
	}
	if !post.Occurrence.LowerBound {
		t.Errorf("%s counts as exact, but systemd may have merged", want)
	}
	return post
}

func associated(t *testing.T, d *producertest.Driver, want string) event.Associate {
	t.Helper()
	a := producertest.NextOf[event.Associate](d)
	if got := said(t, a.State); got != want || a.State.LowerBound {
		t.Fatalf("begins as %s (lower bound %v), want %s", got, a.State.LowerBound, want)
	}
	return a
}

func TestAStartGivesAnotherIdentifier(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("web.service")
	d := producertest.Start(t, f.producer())
	w := watch(d, "web.service")
	first := associated(t, d, "inactive/dead/success")
	if first.Instance != strings.Repeat("0", 32) || first.Entry != w.Entry {
		t.Errorf("%+v, want no invocation yet", first)
	}
	f.start("web.service")
	if i := producertest.NextOf[event.Invalidate](d); i.Instance != first.Instance {
		t.Errorf("%+v, want %s", i, first.Instance)
	}
	next := producertest.NextOf[event.Associate](d) // what systemd says of a unit that is new to it may be older than what is so
	if next.Instance != strings.Repeat("01", 16) {
		t.Errorf("instance %q, want the invocation", next.Instance)
	}
	d.Until(func(m event.Message) bool {
		post, ok := m.(event.Post)
		return ok && said(t, &post.Occurrence) == "active/running/success"
	})

	f.set("web.service", "failed", "failed", failed("exit-code"))
	post := posted(t, d, "failed/failed/exit-code", 4, belfry.EdgeFailing)
	if post.Occurrence.Event.Instance != next.Instance {
		t.Errorf("the failure is of %q, want %q", post.Occurrence.Event.Instance, next.Instance)
	}
	f.set("web.service", "activating", "auto-restart")
	posted(t, d, "activating/auto-restart/exit-code", 5, belfry.EdgeNone)
	f.set("web.service", "activating", "start", f.started)
	if i := producertest.NextOf[event.Invalidate](d); i.Instance != next.Instance {
		t.Errorf("%+v, want %s", i, next.Instance)
	}
	associated(t, d, "activating/start/success")
	posted(t, d, "activating/start/success", 5, belfry.EdgeNone)
	f.set("web.service", "active", "running")
	posted(t, d, "active/running/success", 1, belfry.EdgeRecovered)
	f.set("web.service", "active", "exited") // the same in its own words
	f.set("web.service", "reloading", "reload")
	posted(t, d, "reloading/reload/success", 2, belfry.EdgeNone)
	f.set("web.service", "deactivating", "stop-sigterm")
	posted(t, d, "deactivating/stop-sigterm/success", 6, belfry.EdgeNone)
	f.set("web.service", "inactive", "dead") // systemd forgets it, and it is still there
	posted(t, d, "inactive/dead/success", 3, belfry.EdgeNone)
	d.Quiet(quiet)
}

func TestAStartThatSystemdMergedIsAnOccurrence(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("web.service")
	f.start("web.service")
	d := producertest.Start(t, f.producer())
	watch(d, "web.service")
	a := associated(t, d, "active/running/success")
	f.set("web.service", "active", "running", f.started)
	if i := producertest.NextOf[event.Invalidate](d); i.Instance != a.Instance {
		t.Errorf("%+v, want %s", i, a.Instance)
	}
	associated(t, d, "active/running/success")
	posted(t, d, "active/running/success", 1, belfry.EdgeRecovered)
}

func TestAPatternFindsUnitsAndThoseThatCome(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("web.service", "www.service")
	f.add("db@1.service")
	f.add("off.service") // systemd has not read it
	f.start("web.service")
	d := producertest.Start(t, f.producer())
	pattern := d.Watch(event.Watch{Class: unit.Class, Subject: "*.service", Entry: producertest.NoEntry})
	if found := producertest.NextOf[event.Found](d); found.Subject != "web.service" || found.Watch != pattern.ID {
		t.Fatalf("%+v, want web.service", found)
	}
	watch(d, "web.service")
	associated(t, d, "active/running/success")
	d.Quiet(quiet) // an alias is not found a second time

	f.start("db@1.service")
	if found := producertest.NextOf[event.Found](d); found.Subject != "db@1.service" {
		t.Fatalf("%+v, want db@1.service", found)
	}
	watch(d, "db@1.service")
	d.Until(func(m event.Message) bool {
		post, ok := m.(event.Post)
		return ok && said(t, &post.Occurrence) == "active/running/success"
	})
}

func TestAnAliasNamesTheUnit(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("ssh.service", "sshd.service")
	f.start("ssh.service")
	d := producertest.Start(t, f.producer())
	watch(d, "ssh.service")
	one := associated(t, d, "active/running/success")
	watch(d, "sshd.service")
	other := associated(t, d, "active/running/success of ssh.service")
	if one.Instance != other.Instance || one.Exclusive || other.Exclusive {
		t.Errorf("%+v and %+v, want the same unit, which both may name", one, other)
	}
	f.set("ssh.service", "failed", "failed", failed("signal"))
	posted(t, d, "failed/failed/signal", 4, belfry.EdgeFailing)
	posted(t, d, "failed/failed/signal of ssh.service", 4, belfry.EdgeFailing)
}

func TestAnAliasThatIsWaitedForComes(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := producertest.Start(t, f.producer())
	wait(d, "sshd.service")
	d.Unwatch(0) // when it is taken, the watch was carried out
	d.Quiet(quiet)
	f.add("ssh.service", "sshd.service")
	f.start("ssh.service")
	producertest.NextOf[event.Associate](d)
	d.Until(func(m event.Message) bool {
		post, ok := m.(event.Post)
		return ok && said(t, &post.Occurrence) == "active/running/success of ssh.service"
	})
}

func TestATransientUnitGoesForGood(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("run-1.service")
	f.set("run-1.service", "active", "running", f.started, func(u *fakeUnit) { u.transient = true })
	d := producertest.Start(t, f.producer())
	watch(d, "run-1.service")
	a := associated(t, d, "active/running/success")
	f.set("run-1.service", "inactive", "dead")
	posted(t, d, "inactive/dead/success", 3, belfry.EdgeNone)
	if i := producertest.NextOf[event.Invalidate](d); i.Instance != a.Instance {
		t.Errorf("%+v, want %s", i, a.Instance)
	}
	d.Quiet(quiet)
}

func TestAReloadShowsWhatCameAndWent(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("old.service")
	d := producertest.Start(t, f.producer())
	old := watch(d, "old.service")
	associated(t, d, "inactive/dead/success")
	fresh := wait(d, "new.service")
	d.Unwatch(0) // when it is taken, the watch was carried out
	d.Quiet(quiet)
	f.reload(func() {
		f.units["old.service"].file = ""
		f.units["new.service"].file = "/etc/systemd/system/new.service"
	})
	if a := associated(t, d, "inactive/dead/"); a.Entry != fresh.Entry {
		t.Errorf("%+v, want new.service to come", a)
	}
	if p := posted(t, d, "inactive/dead/", 3, belfry.EdgeNone); p.Entry != fresh.Entry {
		t.Errorf("%+v, want new.service to come", p)
	}
	if i := producertest.NextOf[event.Invalidate](d); i.Entry != old.Entry {
		t.Errorf("%+v, want old.service to go", i)
	}
	d.Quiet(quiet)
}

// Systemd reads a file each time it is asked for what it has forgotten, and
// says that the unit is new: who asks because of that never stops.
func TestWaitingDoesNotKeepSystemdBusy(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("idle.service")
	d := producertest.Start(t, f.producer())
	watch(d, "idle.service")
	associated(t, d, "inactive/dead/success")
	wait(d, "none.service")
	d.Watch(event.Watch{Class: unit.Class, Entry: producertest.NoEntry})
	d.During(4 * quiet)
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.calls["LoadUnit"] + f.calls["GetAll"]; n > 12 {
		t.Errorf("systemd was made to read units %d times, want a few", n)
	}
}

func TestTheBusGoesAndComesBack(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	for _, name := range []string{"same.service", "fails.service"} {
		f.add(name)
		f.start(name)
	}
	d := producertest.Start(t, f.producer())
	watch(d, "same.service")
	associated(t, d, "active/running/success")
	watch(d, "fails.service")
	associated(t, d, "active/running/success")

	f.down()
	f.set("fails.service", "failed", "failed", failed("timeout"))
	refused := watch(d, "late.service") // taken after what was heard before
	end := producertest.NextOf[event.End](d)
	if end.Entry != refused.Entry || !errors.Is(end.Err, belfry.ErrUnsupported) || !strings.Contains(end.Err.Error(), "systemctl status dbus") {
		t.Errorf("%+v, want ErrUnsupported and what to do", end)
	}
	f.listen()
	posted(t, d, "failed/failed/timeout", 4, belfry.EdgeFailing)
	f.set("same.service", "deactivating", "stop")
	posted(t, d, "deactivating/stop/success", 6, belfry.EdgeNone)
	d.Quiet(quiet)
}

func TestMoreThanIsKeptIsAskedFor(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("web.service")
	f.start("web.service")
	both := f.systemd()
	slow, quick := producertest.Start(t, unit.New(both)), producertest.Start(t, unit.New(both))
	for _, d := range []*producertest.Driver{slow, quick} {
		watch(d, "web.service")
		associated(t, d, "active/running/success")
	}
	f.expect(1, 1) // both have the same connection
	last := func(m event.Message) bool {
		post, ok := m.(event.Post)
		return ok && said(t, &post.Occurrence) == "failed/failed/watchdog"
	}
	resume := slow.Pause()
	for range 3000 { // two messages each time
		f.set("web.service", "deactivating", "stop")
		f.set("web.service", "active", "running")
	}
	f.set("web.service", "failed", "failed", failed("watchdog"))
	quick.Until(last) // so all has arrived
	resume()
	slow.Until(last)
	slow.Quiet(quiet)
}

func TestAnotherSystemdIsAskedAnew(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("web.service")
	f.start("web.service")
	d := producertest.Start(t, f.producer())
	watch(d, "web.service")
	associated(t, d, "active/running/success")
	f.replaced(func() { f.units["web.service"].active, f.units["web.service"].sub = "failed", "failed" })
	posted(t, d, "failed/failed/success", 4, belfry.EdgeFailing)
	f.set("web.service", "activating", "start") // it is told again
	posted(t, d, "activating/start/success", 5, belfry.EdgeNone)
}

func TestABusThatIsAboutToComeIsWaitedFor(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.down()
	f.add("web.service")
	d := producertest.Start(t, f.producer())
	wait(d, "web.service")
	d.Quiet(quiet)
	f.listen()
	associated(t, d, "inactive/dead/success")
}

func TestWithoutSystemdNothingIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := unit.New(unit.NewSystemd(unit.Options{Bus: "unix:path=" + filepath.Join(dir, "bus"), Booted: filepath.Join(dir, "system")}))
	d := producertest.Start(t, p)
	for _, w := range []event.Watch{{Subject: "web.service"}, {Subject: "web.service", Wait: true}, {Subject: "*.service", Entry: producertest.NoEntry}} {
		w.Class = unit.Class
		w = d.Watch(w)
		end := producertest.NextOf[event.End](d)
		if !errors.Is(end.Err, belfry.ErrUnsupported) || end.Entry != w.Entry || (w.Entry == 0) != (end.Watch == w.ID) {
			t.Errorf("%+v: %+v, want ErrUnsupported", w, end)
		}
		if !strings.Contains(end.Err.Error(), "process.exit:exe=/PATH") {
			t.Errorf("%v: no word of what to do", end.Err)
		}
	}
	d.Quiet(quiet)
}

func TestNamesThatCanNotBe(t *testing.T) {
	t.Parallel()
	p := unit.New(unit.NewSystemd(unit.Options{}))
	for _, name := range []string{
		"nginx.service", "getty@tty1.service", `dev-disk-by\x2dlabel-a.device`, "-.mount", "a.b.timer", "_x.slice", "user-1000:2.scope",
	} {
		if err := p.CheckSubject(unit.Class, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "nginx", ".service", "nginx.conf", "getty@.service", "@tty1.service", "a b.service", "a/b.service", "a*.service",
		strings.Repeat("a", 250) + ".service",
	} {
		if err := p.CheckSubject(unit.Class, name); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "; ") {
			t.Errorf("%s: %v, want ErrUsage and what would be right", name, err)
		}
	}
}
