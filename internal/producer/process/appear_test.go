package process_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// inBothWays plays a test with the connector, where the kernel has it, and
// without.
func inBothWays(t *testing.T, test func(t *testing.T, p *process.Producer, way string)) {
	t.Helper()
	t.Run("connector", func(t *testing.T) {
		t.Parallel()
		if err := process.Connector(); err != nil {
			t.Skipf("needs: proc-connector (%v)", err)
		}
		test(t, process.New(), "process connector")
	})
	t.Run("scan", func(t *testing.T) {
		t.Parallel()
		test(t, process.Scanning(), "scan of /proc: not in this test")
	})
}

func TestWhatAppearsLaterIsFound(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, p *process.Producer, way string) {
		path := program(t)
		marked := "cmdline=a-word-of-" + strings.ReplaceAll(t.Name(), "/", "-") + "$"
		for _, subject := range []string{"exe=" + path, marked} {
			d := producertest.Start(t, p)
			w := d.Watch(event.Watch{Class: process.Class, Subject: subject, Wait: true})
			d.Unwatch(0) // when it is taken, the watch was carried out
			if got := p.Source(); got != way {
				t.Errorf("%s: found by %q, want %q", subject, got, way)
			}
			for range 2 {
				c := start(t, path, "exit 0", strings.TrimSuffix(strings.TrimPrefix(marked, "cmdline="), "$"))
				a := associated(t, d, c)
				c.kill(syscall.SIGKILL)
				exited(t, d, a)
			}
			d.Unwatch(w.ID)
			d.Unwatch(0)
			if got := p.Source(); got != "" {
				t.Errorf("%q while nobody asks", got)
			}
			d.Stop()
		}
	})
}

// With the connector it is not a matter of luck.
func TestTheConnectorMissesNoShortLife(t *testing.T) {
	if err := process.Connector(); err != nil {
		t.Skipf("needs: proc-connector (%v)", err)
	}
	t.Parallel()
	path := program(t)
	d := producertest.Start(t, process.New())
	d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + path, Wait: true})
	d.Quiet(3 * time.Second) // past the time of close attention
	for range 10 {
		c := start(t, path, "exit 0")
		a := associated(t, d, c)
		if took := time.Since(c.started); took > time.Second {
			t.Fatalf("found after %v, want at once", took)
		}
		c.release()
		exited(t, d, a)
	}
}
