package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// A badWay is what becomes of what an agent sends to a consumer.
type badWay int

const (
	neverReads badWay = iota
	readsAByte        // each second
	dies              // in the middle of the next batch
	holds             // half of a piece of a batch, and never reads the rest
)

// A narrows is a way to an agent's socket that lets everything through until
// it is closed.
type narrows struct {
	path   string
	closed chan struct{}
	unread chan int // of holds: bytes that lie in the socket, once there are any
}

// newNarrows is narrow for the time of a test.
func newNarrows(t *testing.T, agent string, how badWay) *narrows {
	t.Helper()
	n, end, err := narrow(filepath.Join(t.TempDir(), "s"), agent, how)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	return n
}

// narrow listens at path, in front of an agent's socket, until end is called.
func narrow(path, agent string, how badWay) (n *narrows, end func(), err error) {
	n = &narrows{path: path, closed: make(chan struct{}), unread: make(chan int, 1)}
	l, err := net.Listen("unix", n.path)
	if err != nil {
		return nil, nil, err
	}
	over, cancel := context.WithCancel(context.Background())
	var copies sync.WaitGroup
	copies.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", agent)
			if err != nil {
				near.Close()
				continue
			}
			context.AfterFunc(over, func() { near.Close(); far.Close() })
			copies.Go(func() { _, _ = io.Copy(far, near) })
			copies.Go(func() { n.pass(over, near, far, how) })
		}
	})
	return n, func() {
		cancel()
		l.Close()
		copies.Wait()
	}, nil
}

// pass brings what the agent sends.
func (n *narrows) pass(over context.Context, near, far net.Conn, how badWay) {
	room := make([]byte, 4096)
	for {
		got, err := far.Read(room)
		if err != nil {
			return
		}
		select {
		case <-n.closed:
			switch how {
			case neverReads:
				<-over.Done()
				return
			case dies:
				_, _ = near.Write(room[:got/2])
				near.Close()
				far.Close()
				return
			case readsAByte:
				for i := range got {
					select {
					case <-time.After(time.Second):
					case <-over.Done():
						return
					}
					if _, err := near.Write(room[i : i+1]); err != nil {
						return
					}
				}
				continue
			case holds:
				if got < len(room) { // not a piece of a batch, or the last one
					break
				}
				_, _ = near.Write(room[:got/2])
				n.unread <- waitUnread(far)
				<-over.Done()
				return
			}
		default:
		}
		if _, err := near.Write(room[:got]); err != nil {
			return
		}
	}
}

// waitUnread waits until something lies in the socket, and says how much; 0 if
// that can not be known.
func waitUnread(conn net.Conn) (bytes int) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Read(func(fd uintptr) bool {
		bytes, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		return bytes > 0
	})
	return bytes
}

// The load of the test of bad consumers.
const (
	loadSubjects = 500
	loadLimit    = 20_000 // notifications that the good consumer's queue may hold
)

var loadOf = belfry.Registration{Class: "user.load", Subject: "*"}

// A loaded agent has one consumer that reads as it should.
type loaded struct {
	good   *client.Stream
	sender *client.Sender
	last   map[string]uint64 // the number of each subject that good has had
	sum    uint64            // of all occurrences that good has had
}

func load(ctx context.Context, t *testing.T, m *machine) *loaded {
	t.Helper()
	r := loadOf
	r.Limit = loadLimit
	good, err := m.dial(t).Register(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := m.dial(t).Sender(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sender.Close)
	return &loaded{good: good, sender: sender, last: map[string]uint64{}}
}

// burst posts n occurrences as fast as they are taken, and reads until the good
// consumer has all of them. At half of them it calls halfway.
func (l *loaded) burst(ctx context.Context, t *testing.T, n int, data []byte, halfway func()) time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin, end := time.Now(), l.sum+uint64(n)
	var posting sync.WaitGroup
	posting.Go(func() {
		for i := range n {
			if err := l.sender.Post(ctx, "user.load", strconv.Itoa(i%loadSubjects), data, 1); err != nil {
				cancel(fmt.Errorf("post %d: %w", i, err))
				return
			}
			if i == n/2 {
				halfway()
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
	matched, err := l.sender.Flush(ctx)
	if err != nil || matched < end {
		t.Fatalf("%d matched, %v; want each of %d at least once", matched, err, end)
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
// a second, or die in the middle of a batch, and one whose process is killed while
// it holds an unread response. Another one has every occurrence, of a million, in
// about the time that it takes without them; its node is heard, and the agent's
// memory is bounded.
func TestBadConsumersHarmNobody(t *testing.T) {
	m := machines(t, 2)
	formed(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// Of each: two messages that gRPC has encoded, in buffers of 1 MiB, the one that
	// it sends and the next; what is queued and unacknowledged, whose data all share.
	// More rounds need no more. All that is posted would be 10 MiB.
	const consumers, share = 100, 3 << 20
	const occurrences, million = 20_000, 1_000_000
	// The same without bad consumers, before and after, because a machine that
	// others use too is not always as fast. Wide: what waits for a consumer that does
	// not read waits for ever, not for twenty times as long.
	const worse = 20
	data := []byte(fmt.Sprintf(`{"filler":%q}`, strings.Repeat("x", 1000)))
	verdicts, err := m[0].dial(t).Register(ctx, belfry.Registration{Class: "node.state", Scope: belfry.ScopeCluster})
	if err != nil {
		t.Fatal(err)
	}
	l := load(ctx, t, m[0])
	nobody := func() {}
	burst := l.burst(ctx, t, occurrences, data, nobody)
	median, _ := l.singly(ctx, t, data)

	begun := heap()
	socket := m[0].settings().Socket.Path
	end := badConsumers(ctx, t, socket, consumers)
	process := startBadProcess(t, socket)
	process.wants(t, "registered")
	if n := watching(ctx, t, m[0].dial(t)); n != consumers+2 {
		t.Fatalf("%d consumers of the load; want %d", n, consumers+2)
	}
	beside := l.burst(ctx, t, occurrences, data, nobody)
	process.wants(t, "holding")
	besideMedian, besideLate := l.singly(ctx, t, data)
	great := l.burst(ctx, t, million, nil, func() { process.kill(t) })
	afterMedian, afterLate := l.singly(ctx, t, data)
	grown := heap() - begun
	end()
	burstAgain := l.burst(ctx, t, occurrences, data, nobody)
	medianAgain, _ := l.singly(ctx, t, data)

	t.Logf("%d occurrences took %v and %v without bad consumers, %v beside them; a million took %v", occurrences, burst, burstAgain, beside, great)
	t.Logf("one took %v and %v without them, %v beside them and %v after the million; heap grew by %d KiB", median, medianAgain, besideMedian, afterMedian, grown>>10)
	if limit := worse * max(burst, burstAgain); beside > limit {
		t.Errorf("%d occurrences took %v beside bad consumers; want %v at most", occurrences, beside, limit)
	}
	if limit := worse * max(median, medianAgain); max(besideMedian, afterMedian) > limit {
		t.Errorf("one occurrence took %v and %v; want %v at most", besideMedian, afterMedian, limit)
	}
	if late := max(besideLate, afterLate); late > time.Second {
		t.Errorf("one of a hundred took %v, want a second at most", late)
	}
	if grown > (consumers+1)*share {
		t.Errorf("the heap has grown by %d MiB; want %d at most", grown>>20, (consumers+1)*share>>20)
	}
	short, over := context.WithTimeout(ctx, 10*time.Millisecond)
	defer over()
	if n, err := verdicts.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v; want no change of a verdict", n, err)
	}
}

// badConsumers registers n of them, and returns what ends them.
func badConsumers(ctx context.Context, t *testing.T, socket string, n int) (end func()) {
	t.Helper()
	var all []*client.Client
	for i := range n {
		way := newNarrows(t, socket, badWay(i%3))
		c, err := client.Dial(ctx, way.path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Register(ctx, loadOf); err != nil {
			t.Fatal(err)
		}
		close(way.closed)
		all = append(all, c)
	}
	return func() {
		for _, c := range all {
			c.Close()
		}
	}
}

// watching is how many consumers have asked for the load.
func watching(ctx context.Context, t *testing.T, c *client.Client) int {
	t.Helper()
	list, err := c.Registrations(ctx, "")
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
