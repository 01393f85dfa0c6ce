package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

func TestDoctorNamesProducersThatFail(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	trouble := func(reason string) *producer.Trouble {
		return &producer.Trouble{
			Reason: reason, Since: now.Add(-90 * time.Second), Failures: 7, Next: now.Add(12 * time.Second),
			Watched: []event.Watch{{Class: "file.modify", Subject: "/a"}, {Class: "file.modify", Subject: "/b/*"}},
		}
	}
	again := trouble("no ink")
	again.Next, again.Failures, again.Watched = time.Time{}, 1, []event.Watch{{Class: "cpu.wait"}}
	for _, tt := range []struct {
		name string
		all  []producer.Status
		want []string
	}{
		{"all work", []producer.Status{{Name: "file", Up: true, Watches: 1}, {Name: "disk"}, {Name: "unit", Up: true, Watches: 9}}, []string{"ok 2 run, none fails"}},
		{"a limit", []producer.Status{{Name: "unit", Up: true}, {Name: "file", Watches: 2, Trouble: trouble("inotify_init1: too many open files; raise fs.inotify.max_user_instances")}}, []string{
			"failure file has failed 7 times since 2026-11-27T11:58:30Z, 1m30s ago, and tells nothing of file.modify:/a, file.modify:/b/*: inotify_init1: too many open files; raise fs.inotify.max_user_instances. It is started again by itself, next in 12s at most",
		}},
		{"two", []producer.Status{{Name: "pressure", Up: true, Watches: 1, Trouble: again}, {Name: "file", Watches: 40, Trouble: trouble("panic: index out of range")}}, []string{
			"failure pressure has failed once since 2026-11-27T11:58:30Z, 1m30s ago, and tells nothing of cpu.wait: no ink; see the log of the agent. It has just been started again",
			"failure file has failed 7 times since 2026-11-27T11:58:30Z, 1m30s ago, and tells nothing of file.modify:/a, file.modify:/b/* and 38 more: panic: index out of range; the log of the agent has the place: report it. It is started again by itself, next in 12s at most",
		}},
	} {
		status := &belfryv1.GetStatusResponse{Producers: producersStatus(tt.all)}
		d := doctor{now: now, ask: Ask{Status: func() (*belfryv1.GetStatusResponse, error) { return status, nil }}}
		var got []string
		for _, f := range d.producers() {
			got = append(got, fmt.Sprintf("%s %s", f.Level, f.Text))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	older := doctor{now: now, ask: Ask{Status: func() (*belfryv1.GetStatusResponse, error) { return &belfryv1.GetStatusResponse{}, nil }}}
	sole(t, "an older agent", older.producers(), LevelUnknown, "restart it, it is of an older version")
	away := doctor{now: now, ask: Ask{Status: func() (*belfryv1.GetStatusResponse, error) {
		return nil, fmt.Errorf("%w at none", belfry.ErrNoAgent)
	}}}
	sole(t, "no agent", away.producers(), LevelUnknown, "needs an agent that answers: no agent at none")
}

// What a kernel or a file system calls things need not be UTF-8; no message
// could carry it.
func TestStatusOfAProducerIsText(t *testing.T) {
	t.Parallel()
	s := producersStatus([]producer.Status{{Name: "file", Watches: 1, Trouble: &producer.Trouble{
		Reason: "open \xff: no", Since: time.Unix(1, 0), Failures: 1, Watched: []event.Watch{{Class: "file.modify", Subject: "/\xfe"}},
	}}})
	want := &belfryv1.FailingProducer{
		Name: "file", Reason: "open \uFFFD: no", Since: timestamppb.New(time.Unix(1, 0)), Failures: 1,
		Watched: []string{"file.modify:/\uFFFD"}, WatchedTotal: 1,
	}
	if got := s.GetFailing()[0]; got.String() != want.String() {
		t.Errorf("%v\nwant %v", got, want)
	}
}
