package disk_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/disk"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// brief writes a message on one line; identifiers are numbered as they come.
func brief(t *testing.T, seen map[string]int, m event.Message) string {
	t.Helper()
	number := func(instance string) int {
		if _, ok := seen[instance]; !ok {
			seen[instance] = len(seen) + 1
		}
		return seen[instance]
	}
	data := func(o belfry.Occurrence) string {
		var d belfryv1.DiskState
		if err := proto.Unmarshal(o.Data, &d); err != nil {
			t.Fatal(err)
		}
		bound := map[bool]string{true: "at least "}[o.LowerBound]
		text := fmt.Sprintf("%s%s>%s %s %d bytes %v %d", bound, d.GetFrom(), d.GetTo(), d.GetReason(), d.GetSizeBytes(), o.Edge, o.Code)
		return strings.Join(strings.Fields(text), " ")
	}
	switch m := m.(type) {
	case event.Found:
		return "found " + m.Subject
	case event.Associate:
		return fmt.Sprintf("associate %d with %d: %s", m.Entry, number(m.Instance), data(*m.State))
	case event.Invalidate:
		return fmt.Sprintf("invalidate %d from %d", m.Entry, number(m.Instance))
	case event.Post:
		return fmt.Sprintf("post %d of %d: %s", m.Entry, number(m.Occurrence.Event.Instance), data(m.Occurrence))
	}
	return fmt.Sprintf("%#v", m)
}

func expect(t *testing.T, d *producertest.Driver, seen map[string]int, want ...string) {
	t.Helper()
	var got []string
	for range want {
		got = append(got, brief(t, seen, d.Next()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	d.Quiet(50 * time.Millisecond)
}

// N1 to N4: a disk goes and comes back, with its old numbers, and is another one.
func TestAMediumComesAndGoes(t *testing.T) {
	t.Parallel()
	l, seen := newLoop(t), map[string]int{}
	d := producertest.Start(t, disk.New())
	d.Watch(event.Watch{Class: disk.Class, Subject: l.name, Wait: true})
	d.Quiet(50 * time.Millisecond)
	for i := range 2 {
		l.attach()
		expect(t, d, seen, fmt.Sprintf("associate 1 with %d: >up 1048576 bytes recovered 1", i+1),
			fmt.Sprintf("post 1 of %d: absent>up added 1048576 bytes recovered 1", i+1))
		l.detach()
		expect(t, d, seen, fmt.Sprintf("post 1 of %d: up>absent removed 1048576 bytes failing 4", i+1), fmt.Sprintf("invalidate 1 from %d", i+1))
	}
}

func TestAPatternFindsWhatComes(t *testing.T) {
	t.Parallel()
	l, seen := newLoop(t), map[string]int{}
	d := producertest.Start(t, disk.New())
	d.Watch(event.Watch{Class: disk.Class, Subject: l.name + "*", Entry: producertest.NoEntry})
	d.Quiet(50 * time.Millisecond)
	l.attach()
	expect(t, d, seen, "found "+l.name)
	l.detach() // before the machine asks
	d.Watch(event.Watch{ID: 7, Class: disk.Class, Subject: l.name, Entry: 7})
	expect(t, d, seen, "associate 7 with 1: >up 1048576 bytes recovered 1", "post 7 of 1: absent>up added 1048576 bytes recovered 1",
		"post 7 of 1: up>absent removed 1048576 bytes failing 4", "invalidate 7 from 1")
}

func TestNobodyNeedsRights(t *testing.T) {
	if !producertest.WithoutRights(t) {
		return
	}
	d := producertest.Start(t, disk.New())
	d.Watch(event.Watch{Class: disk.Class, Subject: "none"})
	if end := producertest.NextOf[event.End](d); !strings.Contains(end.Err.Error(), "no disk none; ") {
		t.Errorf("%v", end.Err)
	}
}
