package api

import (
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTenThousandIdleConnections wants that who is connected is answered, that
// those beyond the limit are refused and counted, and that their places are
// free again when they are gone.
func TestTenThousandIdleConnections(t *testing.T) {
	const connections = 10_000
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil || files.Cur < connections+maxConnections+500 {
		t.Skipf("needs: nofile %d", connections+maxConnections+500)
	}
	a := startAgent(t, admin)
	c := a.dial(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	idle := make([]net.Conn, 0, connections)
	defer func() {
		for _, conn := range idle {
			_ = conn.Close()
		}
	}()
	var slowest time.Duration
	for i := range connections {
		idle = append(idle, dialIdle(t, a.socket))
		if i%100 != 0 {
			continue
		}
		begin := time.Now()
		if _, err := c.Status(t.Context()); err != nil {
			t.Fatalf("with %d idle connections: %v", i, err)
		}
		slowest = max(slowest, time.Since(begin))
	}
	waitCount(t, "refused", func() bool { return a.Counters().Limited >= connections-maxConnections })
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse) // of both ends
	if held > 64<<20 {
		t.Errorf("%d bytes more are held; want at most 64 MiB", held)
	}
	t.Logf("slowest answer %v, %d refused, %d KiB held", slowest, a.Counters().Limited, held>>10)
	if slowest > time.Second {
		t.Errorf("an answer took %v; want at most 1 s", slowest)
	}
	for _, conn := range idle {
		_ = conn.Close()
	}
	waitCount(t, "let in again", func() bool { _, err := a.dial(t).Status(t.Context()); return err == nil })
}

// dialIdle connects; while the queue of the listener is full it tries again.
func dialIdle(t *testing.T, path string) net.Conn {
	t.Helper()
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn
		}
		if !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// waitCount waits until the server has done what nobody is told of.
func waitCount(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not %s within 20 s", what)
		}
	}
}
