package cluster

import (
	"testing"
	"time"
)

// An outage is lost traffic, spread over the time that it took, also in the
// windows that it is longer than.
func TestAnOutageIsLossOverItsTime(t *testing.T) {
	t.Parallel()
	var tr traffic
	at := time.Duration(0)
	for ; at < 100*time.Second; at += 100 * time.Millisecond {
		tr.count(at, 1, 0)
	}
	tr.missed(at, at+8*time.Second, 80) // what was numbered shows when it is heard again
	for end := at + 8*time.Second; end < at+9*time.Second; end += 100 * time.Millisecond {
		tr.count(end, 1, 0)
	}
	ten, sixty, all := tr.ratios(at + 9*time.Second - time.Millisecond)
	if ten.Lost != 80 || ten.Expected != 100 {
		t.Errorf("10 s: %d of %d lost, want 80 of 100", ten.Lost, ten.Expected)
	}
	if sixty.Lost != 80 || sixty.Expected < 540 || sixty.Expected > 600 {
		t.Errorf("60 s: %d of %d lost, want 80 of about 570", sixty.Lost, sixty.Expected)
	}
	if all.Lost != 80 {
		t.Errorf("600 s: %d lost, want 80", all.Lost)
	}

	// Ten minutes of it, seen at their end: nothing else was there.
	tr.missed(at+9*time.Second, at+609*time.Second, 6000)
	ten, sixty, _ = tr.ratios(at + 609*time.Second - time.Millisecond)
	if ten.Lost != ten.Expected || ten.Lost < 89 || ten.Lost > 105 {
		t.Errorf("10 s: %d of %d lost, want all of about 100", ten.Lost, ten.Expected)
	}
	if sixty.Lost != sixty.Expected || sixty.Lost < 539 || sixty.Lost > 605 {
		t.Errorf("60 s: %d of %d lost, want all of about 600", sixty.Lost, sixty.Expected)
	}
}
