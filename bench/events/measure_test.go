package main

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestPaceKeepsTheRateOrSaysThatItDidNot(t *testing.T) {
	t.Parallel()
	slow := false
	behind, err := pace(t.Context(), 300, 1000, func(i int) error {
		if i == 150 && !slow { // one event held up for longer than is allowed
			slow = true
			<-time.After(maxLate + 20*time.Millisecond)
		}
		return nil
	})
	if err != nil || !behind {
		t.Errorf("a post that takes %s: want behind, got %v, %v", maxLate, behind, err)
	}
	broken := errors.New("broken")
	if _, err := pace(t.Context(), 10, 1000, func(int) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("want the error of the post, got %v", err)
	}
}

func TestRecorderCountsEachEventOfAMergedDelivery(t *testing.T) {
	t.Parallel()
	n := warmUp + 2*latencySubjects
	r := newRecorder(n)
	now := time.Now()
	for i := range r.posted {
		r.posted[i] = now.Add(-time.Millisecond).UnixNano()
	}
	for s := range latencySubjects { // all rounds of a subject at once, but for one subject
		if s != 7 {
			r.deliver(delivery{subject: s, count: uint64(n / latencySubjects), oldest: now})
		}
	}
	select {
	case <-r.all:
		t.Fatal("subject 7 is missing and all is said to have arrived")
	default:
	}
	for range n / latencySubjects {
		r.deliver(delivery{subject: 7, count: 1})
	}
	<-r.all
	if want := 2 * latencySubjects; len(r.perEvent) != want {
		t.Errorf("latencies: want %d, those of the warm-up left out; got %d", want, len(r.perEvent))
	}
	if want := 2 * (latencySubjects - 1); len(r.perNode) != want {
		t.Errorf("latencies from the node: want %d, got %d", want, len(r.perNode))
	}
	if got := r.result(); got.post50 < 1000 || got.merged <= 0.5 {
		t.Errorf("want at least 1000 µs, and most of it merged; got %+v", got)
	}
}

// A loopBus delivers at once, on a goroutine for each consumer.
type loopBus struct {
	queues  []chan int
	readers sync.WaitGroup
	lose    int // of how many each is lost; 0: none
}

func (b *loopBus) open(_ context.Context, consumers, _ int, deliver func(int, delivery)) error {
	for i := range consumers {
		q := make(chan int, 1<<16)
		b.queues = append(b.queues, q)
		b.readers.Go(func() {
			n := 0
			for s := range q {
				if n++; b.lose > 0 && n%b.lose == 0 {
					deliver(i, delivery{subject: s, lost: 1})
					continue
				}
				deliver(i, delivery{subject: s, count: 1, oldest: time.Now()})
			}
		})
	}
	return nil
}

func (b *loopBus) post(_ context.Context, subject int) error {
	for _, q := range b.queues {
		q <- subject
	}
	return nil
}

func (b *loopBus) servers() []int { return nil }

func (b *loopBus) close() error {
	for _, q := range b.queues {
		close(q)
	}
	b.readers.Wait()
	return nil
}

func TestThroughputCountsWhatAllConsumersGot(t *testing.T) {
	t.Parallel()
	got, err := throughputOf(t.Context(), &loopBus{}, load{consumers: 3, window: 64, subjects: 64}, 20*time.Millisecond)
	if err != nil || got.events <= 0 || got.events != got.notifications {
		t.Errorf("want as many events as notifications, more than 0; got %+v, %v", got, err)
	}
}

func TestLossVoidsARepetition(t *testing.T) {
	t.Parallel()
	got, err := throughputOf(t.Context(), &loopBus{lose: 10}, load{consumers: 2, window: 64, subjects: 64}, 20*time.Millisecond)
	if err != nil || !math.IsNaN(got.events) {
		t.Errorf("want NaN, got %+v, %v", got, err)
	}
	l, err := latencyOf(t.Context(), &loopBus{lose: 10}, 100_000, 20*time.Millisecond)
	if err != nil || !math.IsNaN(l.post50) {
		t.Errorf("want NaN, got %+v, %v", l, err)
	}
}

func TestFanOutDeliversEachEventToEachConsumer(t *testing.T) {
	t.Parallel()
	for _, consumers := range []int{1, 7, 2500} {
		for _, burst := range []int{1, fanoutBurst} {
			if took, err := fanMachine(consumers, 2*fanoutBurst, burst); err != nil || took <= 0 {
				t.Errorf("machine, %d consumers, bursts of %d: %v, %v", consumers, burst, took, err)
			}
			if took, err := fanChannels(consumers, 2*fanoutBurst, burst); err != nil || took <= 0 {
				t.Errorf("channels, %d consumers, bursts of %d: %v, %v", consumers, burst, took, err)
			}
		}
	}
}

func TestStalledConsumersGetTheExactNumberAfterwards(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{rigSubject, "/etc/*"} {
		s, err := stallMachine(3, subject, 5000)
		if err != nil || s.accounts != 5000 || s.queued != 1 {
			t.Errorf("%s: want 5000 in 1 notification, got %+v, %v", subject, s, err)
		}
	}
}

func TestAChildEndsWithItsInput(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := play("nats-server", nil, strings.NewReader(""), &out); err != nil || !strings.HasPrefix(out.String(), "nats://127.0.0.1:") {
		t.Errorf("want an address, got %q, %v", out.String(), err)
	}
	if err := play("other", nil, nil, nil); err == nil {
		t.Error("an unknown part: want an error")
	}
}

func TestWrongFlagsAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-reps", "0"}, {"-scale", "0"}, {"-scale", "NaN"}, {"-only", "("}, {"-only", "fanout", "-readme", "x"}, {"fanout"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q: want an error", args)
		}
	}
}
