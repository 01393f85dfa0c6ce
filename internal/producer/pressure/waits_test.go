package pressure_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/pressure"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// procFiles are what the files hold after n times of waiting.
var procFiles = map[string]func(n int) string{
	"schedstat": func(n int) string {
		return fmt.Sprintf("version 17\ntimestamp 1\ncpu0 0 0 0 0 0 0 9 %d %d\ncpu1 0 0 0 0 0 0 9 7000000 5\n", 30_000_000*n, 2*n)
	},
	"vmstat": func(n int) string {
		return fmt.Sprintf("nr_free_pages 5\nallocstall_normal %d\nallocstall_movable 1\n", 12*n)
	},
	"pressure/memory": func(n int) string {
		return fmt.Sprintf("some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=%d\n", 250_000*n, 50_000*n)
	},
}

// A value is what was waited in the second before it.
func TestTheWaitsAreMeasuredEachSecond(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		class belfry.Class
		file  string
		value float64 // after one time of waiting
		data  proto.Message
		none  proto.Message // after none
	}{
		{
			pressure.CPUWait, "schedstat", 15,
			&belfryv1.CpuWait{IntervalSeconds: 1, DelaySeconds: 0.03, Slices: 2, Cpus: 2},
			&belfryv1.CpuWait{IntervalSeconds: 1, Cpus: 2},
		},
		{
			pressure.MemoryWait, "vmstat", 12,
			&belfryv1.MemoryWait{IntervalSeconds: 1, Stalls: 12},
			&belfryv1.MemoryWait{IntervalSeconds: 1},
		},
		{
			pressure.PagingWait, "pressure/memory", 250,
			&belfryv1.PagingWait{IntervalSeconds: 1, SomeSeconds: 0.25, FullSeconds: 0.05},
			&belfryv1.PagingWait{IntervalSeconds: 1},
		},
	} {
		t.Run(string(test.class), func(t *testing.T) {
			t.Parallel()
			files := newProc(t)
			synctest.Test(t, func(t *testing.T) {
				d := producertest.Start(t, pressure.NewAt(files.dir))
				w := d.Watch(event.Watch{Class: test.class, Threshold: over(1)})
				if a := producertest.NextOf[event.Associate](d); a != (event.Associate{Entry: w.Entry}) {
					t.Errorf("%+v", a)
				}
				want := func(value float64, data proto.Message) {
					t.Helper()
					s := producertest.NextOf[event.Sample](d)
					got := data.ProtoReflect().New().Interface()
					if err := proto.Unmarshal(s.Data, got); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(data, got, protocmp.Transform()); diff != "" || s.Value != value || s.Entry != w.Entry || !s.Time.Equal(time.Now()) {
						t.Errorf("entry %d, value %v at %v; want %d, %v, now; data (-want +got):\n%s", s.Entry, s.Value, s.Time, w.Entry, value, diff)
					}
				}
				want(0, test.none)
				d.Quiet(3500 * time.Millisecond) // nothing changes
				files.write(test.file, 1)
				want(test.value, test.data)
				want(0, test.none)
				files.write(test.file, 0) // counted anew
				d.Quiet(1500 * time.Millisecond)
				files.write(test.file, 1)
				want(test.value, test.data)
			})
		})
	}
}

func TestWhatThisKernelDoesNotCountIsRefused(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	if err := errors.Join(
		os.Mkdir(filepath.Join(empty, "self"), 0o755),
		os.WriteFile(filepath.Join(empty, "self", "mountinfo"), nil, 0o644),
		os.WriteFile(filepath.Join(empty, "vmstat"), []byte("nr_free_pages 5\n"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	d := producertest.Start(t, pressure.NewAt(empty))
	for _, test := range []struct {
		class         belfry.Class
		subject, text string
	}{
		{pressure.CPU, "some", "this kernel does not measure pressure; boot it with psi=1"},
		{pressure.IO, "/a", "no cgroup v2 is mounted here; mount it, or watch some"},
		{pressure.CPUWait, "", "(CONFIG_SCHEDSTATS); watch pressure.cpu:some"},
		{pressure.MemoryWait, "", "does not count allocations that stall; watch pressure.memory:some"},
		{pressure.PagingWait, "", "this kernel does not measure pressure; boot it with psi=1"},
	} {
		w := d.Watch(event.Watch{Class: test.class, Subject: test.subject, Wait: true, Threshold: over(1)})
		end := producertest.NextOf[event.End](d)
		if end.Entry != w.Entry || !errors.Is(end.Err, belfry.ErrUnsupported) || !strings.Contains(fmt.Sprint(end.Err), test.text) {
			t.Errorf("%s:%s: %+v; want ErrUnsupported with %q", test.class, test.subject, end, test.text)
		}
	}
}
