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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// A badWay is what becomes of what an agent sends to a consumer.
type badWay int

const (
	neverReads badWay = iota
	readsAByte        // each second
	dies              // in the middle of the next batch
)

// A narrows is a way to an agent's socket that lets everything through until
// it is closed.
type narrows struct {
	path   string
	closed chan struct{}
}

// newNarrows listens in front of an agent's socket.
func newNarrows(t *testing.T, agent string, how badWay) *narrows {
	t.Helper()
	n := &narrows{path: filepath.Join(t.TempDir(), "s"), closed: make(chan struct{})}
	l, err := net.Listen("unix", n.path)
	if err != nil {
		t.Fatal(err)
	}
	over, end := context.WithCancel(context.Background())
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
	t.Cleanup(func() {
		end()
		l.Close()
		copies.Wait()
	})
	return n
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
			}
		default:
		}
		if _, err := near.Write(room[:got]); err != nil {
			return
		}
	}
}

// TestBadConsumersHarmNobody: sixty consumers that read nothing, or a byte a
// second, or die in the middle of a batch. Another one has every occurrence, in
// time, its node is heard, and the agent's memory is bounded.
func TestBadConsumersHarmNobody(t *testing.T) {
	m := machines(t, 2)
	formed(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const occurrences, subjects = 20_000, 500
	// Of each: 1 MiB that is queued, four batches of 256 KiB on their way, and what
	// the library and the other end hold of them. All there is would be 20 MiB.
	const consumers, share = 60, 3 << 20
	load := belfry.Registration{Class: "user.load", Subject: "*", Limit: occurrences}
	begun := heap()
	for i := range consumers {
		way := newNarrows(t, m[0].settings().Socket.Path, badWay(i%3))
		c, err := client.Dial(ctx, way.path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		bad := load
		bad.Limit = 0
		if _, err := c.Register(ctx, bad); err != nil {
			t.Fatal(err)
		}
		close(way.closed)
	}
	good, err := m[0].dial(t).Register(ctx, load)
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := m[0].dial(t).Register(ctx, belfry.Registration{Class: "node.state", Scope: belfry.ScopeCluster})
	if err != nil {
		t.Fatal(err)
	}
	sender, err := m[0].dial(t).Sender(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	data := []byte(fmt.Sprintf(`{"filler":%q}`, strings.Repeat("x", 1000)))
	post := func(i int) {
		if err := sender.Post(ctx, "user.load", fmt.Sprint(i%subjects), data, 1); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for i := range occurrences {
			if err := sender.Post(ctx, "user.load", fmt.Sprint(i%subjects), data, 1); err != nil {
				t.Errorf("post %d: %v", i, err)
				cancel()
				return
			}
		}
	}()
	last := map[string]uint64{}
	for sum := uint64(0); sum < occurrences; {
		n, err := good.Next(ctx)
		if err != nil {
			t.Fatalf("after %d: %v", sum, err)
		}
		if n.Gap != nil || n.First != last[n.Event.Subject]+1 {
			t.Fatalf("%s: %d to %d follows %d, gap %v", n.Event.Subject, n.First, n.Last, last[n.Event.Subject], n.Gap)
		}
		last[n.Event.Subject] = n.Last
		sum += n.Count
	}
	var took []time.Duration
	for i := range 200 {
		begin := time.Now()
		post(i)
		if _, err := good.Next(ctx); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	t.Logf("one occurrence beside them: median %v, longest %v; heap grew by %d KiB", took[len(took)/2], took[len(took)-1], (heap()-begun)>>10)
	if longest := took[len(took)*99/100]; longest > time.Second {
		t.Errorf("one of a hundred took %v, want a second at most", longest)
	}
	if grown := heap() - begun; grown > consumers*share {
		t.Errorf("the heap has grown by %d MiB; want %d at most", grown>>20, consumers*share>>20)
	}
	short, over := context.WithTimeout(ctx, 10*time.Millisecond)
	defer over()
	if n, err := verdicts.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v; want no change of a verdict", n, err)
	}
}

// heap is what is reachable.
func heap() int64 {
	runtime.GC()
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
