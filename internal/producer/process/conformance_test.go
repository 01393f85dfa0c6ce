package process_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func TestConformance(t *testing.T) { conformance(t, process.New()) }

func TestConformanceOfTheScan(t *testing.T) { conformance(t, process.Scanning()) }

func conformance(t *testing.T, p *process.Producer) { // not parallel: it counts goroutines
	t.Helper()
	path := program(t)
	worker := start(t, path, "exit 0")
	dead := func() {
		worker.kill(syscall.SIGKILL)
		<-worker.reaped
	}
	again := func() { worker = start(t, path, "exit 0") }
	undo := func() {
		select {
		case <-worker.reaped:
			again()
		default:
		}
	}
	producertest.Run(t, p, producertest.Fixture{
		Class:     process.Class,
		Subject:   "exe=" + path,
		Cause:     dead,
		Undo:      undo,
		Replace:   func() { dead(); again() },
		Absent:    "exe=" + filepath.Join(t.TempDir(), "none"),
		Malformed: "nginx",
		Rounds:    100, // each looks through /proc
	})
	producertest.Run(t, p, producertest.Fixture{
		Class:     process.Class,
		Subject:   pid(worker),
		Absent:    "pid=4194304", // the greatest pid_max: numbers stay below it
		Malformed: "pid=nginx",
	})
}

func TestConformanceWithoutRights(t *testing.T) {
	if !producertest.WithoutRights(t) {
		return
	}
	path := program(t)
	start(t, path, "exit 0")
	producertest.Run(t, process.New(), producertest.Fixture{
		Class:     process.Class,
		Subject:   "exe=" + path,
		Forbidden: filepath.Join("exe=/sbin", nameOfTheFirst(t)),
		Rounds:    10,
	})
}

// nameOfTheFirst is the name of process 1, which is root's.
func nameOfTheFirst(t *testing.T) string {
	t.Helper()
	comm, err := os.ReadFile("/proc/1/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(comm))
}

// unseen makes a program of which only root may see that a process runs it:
// nobody may read the file, see "Access to /proc/PID/exe" in proc(5).
func unseen(t *testing.T, path string) string {
	t.Helper()
	hidden := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := errors.Join(os.Rename(program(t), hidden), os.Chmod(hidden, 0o111)); err != nil {
		t.Fatal(err)
	}
	return hidden
}

// Whoever waits is told when a process comes that may be the one and can not be
// seen, but not refused for another one that happens to have the same name.
func TestOnlyWhoeverMayRunTheFileEndsAWatchThatWaits(t *testing.T) {
	if !producertest.WithoutRights(t) {
		return
	}
	d := producertest.Start(t, process.Scanning())
	path := program(t)
	other := unseen(t, path)
	d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + path, Wait: true})
	d.Unwatch(0) // when it is taken, the watch was carried out
	sameName := start(t, other, "exit 0")
	d.Quiet(1500 * time.Millisecond) // there is a search each second
	meant := start(t, path, "exit 0")
	a := associated(t, d, meant)
	meant.release()
	exited(t, d, a)
	sameName.kill(syscall.SIGKILL)
	<-sameName.reaped

	hidden := unseen(t, path)
	w := d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + hidden, Wait: true})
	d.Unwatch(0)
	start(t, hidden, "exit 0")
	if end := producertest.NextOf[event.End](d); end.Entry != w.Entry || !errors.Is(end.Err, belfry.ErrPermission) {
		t.Errorf("%+v, want ErrPermission", end)
	}
}
