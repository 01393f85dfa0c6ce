package unit

import (
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// A message may wait here while the unit is looked at, and then says what was
// so before.
func TestAnOldMessageSaysNothing(t *testing.T) {
	t.Parallel()
	m := &Mains{names: map[string]bool{"web.service": true}}
	tr := newTracker(NewSystemd(Options{}), m)
	u := &unit{name: "web.service", names: []string{"web.service"}, path: pathOf("web.service"), load: "loaded", active: "active", at: 10}
	tr.byPath[u.path] = u
	tr.name(u)
	for _, test := range []struct {
		sequence dbus.Sequence
		says     string
		want     string
	}{{9, "failed", "active"}, {11, "failed", "failed"}, {10, "active", "failed"}} {
		err := tr.changed(t.Context(), time.Now(), &dbus.Signal{
			Name: propsIface + ".PropertiesChanged", Path: u.path, Sequence: test.sequence,
			Body: []any{unitIface, map[string]dbus.Variant{
				"ActiveState": dbus.MakeVariant(test.says), "InvocationID": dbus.MakeVariant(make([]byte, 16)),
			}, []string{}},
		})
		if err != nil || u.active != test.want {
			t.Errorf("message %d says %s: %s (%v), want %s", test.sequence, test.says, u.active, err, test.want)
		}
	}
}

func TestAnotherConnectionNumbersItsMessagesAnew(t *testing.T) {
	t.Parallel()
	tr := newTracker(NewSystemd(Options{}), &Mains{})
	u := &unit{name: "web.service", path: pathOf("web.service"), at: 1000}
	tr.byPath[u.path] = u
	l := &line{feeds: map[*feed]bool{}}
	l.feed() // somebody else's: the connection stays open
	tr.feed = l.feed()
	tr.leave()
	if u.at != 0 {
		t.Errorf("the last message has number %d, so the first of the next connection would be too old", u.at)
	}
}

// Who joins between the end of a connection and its saying so hears of it too.
func TestAFeedOfAnEndedConnectionHasEnded(t *testing.T) {
	t.Parallel()
	l := &line{feeds: map[*feed]bool{}}
	before := l.feed()
	l.Terminate()
	for _, f := range []*feed{before, l.feed()} {
		select {
		case <-f.bell:
		default:
			t.Error("the bell does not ring")
		}
		if _, _, ended := f.take(); !ended {
			t.Error("the feed goes on")
		}
	}
}
