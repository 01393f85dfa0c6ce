package process_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
	comm, err := os.ReadFile("/proc/1/comm")
	if err != nil {
		t.Fatal(err)
	}
	path := program(t)
	start(t, path, "exit 0")
	producertest.Run(t, process.New(), producertest.Fixture{
		Class:     process.Class,
		Subject:   "exe=" + path,
		Forbidden: fmt.Sprint("exe=/sbin/", strings.TrimSpace(string(comm))),
		Rounds:    10,
	})
}
