package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// The load of the test of bad consumers.
const (
	loadSubjects = 500    // more than a bad consumer's queue holds: the oldest fall into its gap
	fewSubjects  = 100    // fewer: what has fallen behind coalesces
	loadLimit    = 20_000 // notifications that the good consumer's queue may hold
)

var loadOf = belfry.Registration{Class: "user.load", Subject: "*"}

// A loaded agent has one consumer that reads as it should.
type loaded struct {
	asks   *client.Client
	good   *client.Stream
	sender *client.Sender
	last   map[string]uint64 // the number of each subject that good has had
	sum    uint64            // of all occurrences that good has had
}

func load(ctx context.Context, t *testing.T, m *machine) *loaded {
	t.Helper()
	r := loadOf
	r.Limit = loadLimit
	c := m.dial(t)
	good, err := c.Register(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := m.dial(t).Sender(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sender.Close)
	return &loaded{asks: c, good: good, sender: sender, last: map[string]uint64{}}
}

// A burst is n occurrences of so many subjects in turn, repeat of them at once.
type burst struct {
	n, repeat, subjects int
	data                []byte
	halfway             func() // called when half of them are posted
}

// burst posts as fast as the agent takes it, and reads until the good consumer
// has all of it.
func (l *loaded) burst(ctx context.Context, t *testing.T, b burst) time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin, end := time.Now(), l.sum+uint64(b.n)
	var posting sync.WaitGroup
	posting.Go(func() {
		for i := range b.n / b.repeat {
			if err := l.sender.Post(ctx, "user.load", strconv.Itoa(i%b.subjects), b.data, uint64(b.repeat)); err != nil {
				cancel(fmt.Errorf("post %d: %w", i, err))
				return
			}
			if i == b.n/b.repeat/2 {
				b.halfway()
			}
		}
	})
	defer posting.Wait()
	for l.sum < end {
		l.next(ctx, t)
	}
	took := time.Since(begin)
	if posting.Wait(); l.sum != end {
		t.Fatalf("%d occurrences; %d were posted", l.sum, end)
	}
	if _, err := l.sender.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	return took
}

// next takes one notification, which must follow the one before it.
func (l *loaded) next(ctx context.Context, t *testing.T) {
	t.Helper()
	n, err := l.good.Next(ctx)
	if err != nil {
		t.Fatalf("after %d: %v, %v", l.sum, err, context.Cause(ctx))
	}
	if n.Gap != nil || n.First != l.last[n.Event.Subject]+1 || n.Count != n.Last-n.First+1 {
		t.Fatalf("%s: %d to %d, %d times, follows %d, gap %v", n.Event.Subject, n.First, n.Last, n.Count, l.last[n.Event.Subject], n.Gap)
	}
	l.last[n.Event.Subject] = n.Last
	l.sum += n.Count
}

// singly posts one occurrence after the other and says how long each took to
// be at the good consumer: the median, and what one of a hundred exceeds.
func (l *loaded) singly(ctx context.Context, t *testing.T, data []byte) (median, late time.Duration) {
	t.Helper()
	var took []time.Duration
	for i := range 300 {
		begin := time.Now()
		if err := l.sender.Post(ctx, "user.load", strconv.Itoa(i%loadSubjects), data, 1); err != nil {
			t.Fatal(err)
		}
		l.next(ctx, t)
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}

// TestBadConsumersHarmNobody: a hundred consumers that read nothing, or a byte
// a second, or die in the middle of a batch. Another one has every occurrence, in
// about the time that it takes without them, its node is heard, and the agent's
// memory is bounded.
func TestBadConsumersHarmNobody(t *testing.T) {
	m := machines(t, 2)
	formed(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	// Of each: two messages that gRPC has encoded, in buffers of 1 MiB, the one that
	// it sends and the next; what is queued and unacknowledged, whose data all share.
	// More rounds need no more. All that is posted would be 10 MiB.
	const consumers, share = 100, 3 << 20
	verdicts, err := m[0].dial(t).Register(ctx, belfry.Registration{Class: "node.state", Scope: belfry.ScopeCluster})
	if err != nil {
		t.Fatal(err)
	}
	l, control := load(ctx, t, m[0]), load(ctx, t, m[1])
	without := []pace{l.measure(ctx, t), control.measure(ctx, t)}
	begun := heap()
	badConsumers(ctx, t, m[0], consumers)
	if n := l.consumers(ctx, t); n != consumers+1 {
		t.Fatalf("%d consumers of the load; want %d", n, consumers+1)
	}
	var beside []pace
	for range 2 { // in turns: a machine that others use too is not always as fast
		beside = append(beside, l.measure(ctx, t))
		without = append(without, control.measure(ctx, t))
	}
	grown := heap() - begun
	t.Logf("without bad consumers %v; beside %d of them %v; heap grew by %d KiB", without, consumers, beside, grown>>10)
	harmless(t, without, beside)
	if grown > consumers*share {
		t.Errorf("the heap has grown by %d MiB; want %d at most", grown>>20, consumers*share>>20)
	}
	short, over := context.WithTimeout(ctx, 10*time.Millisecond)
	defer over()
	if n, err := verdicts.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v; want no change of a verdict", n, err)
	}
}

// TestAKilledConsumerHarmsNobody: a consumer's process has read half of a piece
// of a batch, the rest lies unread in its socket, and in the middle of a million
// occurrences it is killed. The other one has exactly a million.
func TestAKilledConsumerHarmsNobody(t *testing.T) {
	m := machines(t, 1)
	formed(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	l := load(ctx, t, m[0])
	without := l.measure(ctx, t)
	process := startBadProcess(t, m[0].settings().Socket.Path)
	process.wants(t, "registered")
	if n := l.consumers(ctx, t); n != 2 {
		t.Fatalf("%d consumers of the load; want the process and the good one", n)
	}
	beside := l.measure(ctx, t) // fills its socket
	process.wants(t, "holding")
	before := l.sum
	took := l.burst(ctx, t, burst{n: 1_000_000, repeat: millionRepeat, subjects: fewSubjects, halfway: func() { process.kill(t) }})
	if l.sum-before != 1_000_000 {
		t.Errorf("%d occurrences; want a million", l.sum-before)
	}
	process.wantsDeath(t)
	after := l.measure(ctx, t)
	t.Logf("without the process %v, beside it %v, after its death %v; a million took %v", without, beside, after, took)
	harmless(t, []pace{without}, []pace{beside, after})
}

// A pace is how long it takes to have many occurrences, and to have one: the
// median, and what one of a hundred exceeds.
type pace struct{ many, one, late time.Duration }

func (p pace) String() string { return fmt.Sprintf("many %v, one %v, late %v", p.many, p.one, p.late) }

func (l *loaded) measure(ctx context.Context, t *testing.T) (p pace) {
	t.Helper()
	data := []byte(fmt.Sprintf(`{"filler":%q}`, strings.Repeat("x", 1000)))
	p.many = l.burst(ctx, t, burst{n: 5_000, repeat: 1, subjects: loadSubjects, data: data, halfway: func() {}})
	p.one, p.late = l.singly(ctx, t, data)
	return p
}

// harmless compares. The bound is wide: what waits for somebody who does not
// read waits for ever, or for seconds.
func harmless(t *testing.T, without, beside []pace) {
	t.Helper()
	const worse = 20
	var many, one time.Duration
	for _, p := range without {
		many, one = max(many, worse*p.many), max(one, worse*p.one)
	}
	for _, p := range beside {
		if p.many > many {
			t.Errorf("beside bad consumers it took %v; want %v at most", p.many, many)
		}
		if p.one > one {
			t.Errorf("beside bad consumers one occurrence took %v; want %v at most", p.one, one)
		}
		if p.late > time.Second {
			t.Errorf("beside bad consumers one of a hundred took %v; want a second at most", p.late)
		}
	}
}

// badConsumers registers n of them, which are bad from then on.
func badConsumers(ctx context.Context, t *testing.T, m *machine, n int) {
	t.Helper()
	for i := range n {
		way := newNarrows(t, m.settings().Socket.Path, badWay(i%3))
		c, err := client.Dial(ctx, way.path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Register(ctx, loadOf); err != nil {
			t.Fatal(err)
		}
		close(way.closed)
	}
}

// consumers is how many have asked for the load.
func (l *loaded) consumers(ctx context.Context, t *testing.T) int {
	t.Helper()
	list, err := l.asks.Registrations(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.GetEntries() {
		if e.GetClass() == loadOf.Class && e.GetSubject() == loadOf.Subject {
			return len(e.GetConsumers())
		}
	}
	return 0
}

// heap is what is reachable.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools had kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestOneConsumerAsksForTooMuch: a hundred thousand registrations of one
// consumer. What is beyond the limit is refused, with the remedy; the rest, and
// others, are as they were.
func TestOneConsumerAsksForTooMuch(t *testing.T) {
	m := machines(t, 1)
	formed(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	greedy, err := m[0].dial(t).Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	begun := heap()
	const asked, allowed = 100_000, 10_000
	var mu sync.Mutex
	granted, refused := 0, map[string]int{}
	var asking sync.WaitGroup
	numbers := make(chan int)
	for range 64 {
		asking.Go(func() {
			for i := range numbers {
				_, err := greedy.Register(ctx, belfry.Registration{Class: "user.many", Subject: fmt.Sprint(i), Wait: true})
				mu.Lock()
				if err == nil {
					granted++
				} else if refused[err.Error()]++; !errors.Is(err, belfry.ErrLimit) {
					t.Errorf("%d: %v", i, err)
				}
				mu.Unlock()
			}
		})
	}
	for i := range asked {
		numbers <- i
	}
	close(numbers)
	asking.Wait()
	if granted != allowed || len(refused) != 1 {
		t.Errorf("%d granted, refused %v; want %d", granted, refused, allowed)
	}
	for text := range refused {
		if !strings.Contains(text, "this consumer has 10000 registrations; at most 10000 are allowed, a pattern may stand for many") {
			t.Errorf("%q; want the limit and the remedy", text)
		}
	}
	if grown := heap() - begun; grown > 64<<20 {
		t.Errorf("the heap has grown by %d MiB; want 64 at most", grown>>20)
	}
	other := m[0].dial(t)
	stream, err := other.Register(ctx, belfry.Registration{Class: "user.many", Subject: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Send(ctx, "user.many", "x", nil, 1); err != nil {
		t.Fatal(err)
	}
	if n, err := stream.Next(ctx); err != nil || n.Count != 1 {
		t.Errorf("%+v, %v; want the occurrence, as if nothing were", n, err)
	}
	greedy.Close()
	for list, err := other.Registrations(ctx, ""); ; list, err = other.Registrations(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		if n := len(list.GetEntries()); n < 100 {
			break
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // of an agent, whose list is asked
	}
}
