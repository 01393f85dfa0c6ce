package transport

import (
	"fmt"
	"testing"
	"time"
)

// A member that is off for days fails a dial each two seconds, on two networks.
func TestDialsThatFailAreToldOnceAndThenRarely(t *testing.T) {
	t.Parallel()
	var c complaints
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	dial := func(times int, text func(n int) string) (told int) {
		for n := range times {
			now = now.Add(2 * time.Second)
			if c.news(now, text(n)) {
				told++
			}
		}
		return told
	}
	timeout := func(n int) string { return fmt.Sprintf("dial tcp 10.0.%d.9:7432: i/o timeout", n%2) }
	if told := dial(43_200, timeout); told != 2 {
		t.Errorf("two addresses time out for a day: told %d times, want 2", told)
	}
	if told := dial(1, func(int) string { return "certificate has expired" }); told != 1 {
		t.Error("another reason is not told")
	}
	reset := func(n int) string { return fmt.Sprintf("read tcp 10.0.0.1:%d->10.0.0.9:7432: reset", n) }
	if told := dial(3600/2, reset); told < 5 || told > 7 {
		t.Errorf("another port each time for an hour: told %d times, want about 6", told)
	}
}
