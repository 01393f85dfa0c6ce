package main

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/belfry-ha/belfry/internal/sim"
)

// fakeFate does what the test says, and keeps what it was asked.
type fakeFate struct {
	fate  func(src, dst int, at time.Duration, nth int) sim.Fate
	cut   bool
	asked []question
}

type question struct {
	src, dst, network int
	at                time.Duration
	nth               int
}

const fakeDelay = time.Millisecond

func (f *fakeFate) Fate(src, dst, network int, at time.Duration, nth int) sim.Fate {
	f.asked = append(f.asked, question{src, dst, network, at, nth})
	if f.fate == nil {
		return sim.Fate{Delay: fakeDelay, Lost: f.cut}
	}
	return f.fate(src, dst, at, nth)
}

func (f *fakeFate) Cut(int, int, int, time.Duration) bool { return f.cut }

// bubble runs f in virtual time on a network whose scenario begins.
func bubble(t *testing.T, nodes int, f *fakeFate, test func(t *testing.T, n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(nodes, f, fakeDelay)
		n.start()
		test(t, n)
		n.close()
	})
}

func send(t *testing.T, n *network, from, to int, text string) {
	t.Helper()
	if _, err := n.nodes[from].WriteTo([]byte(text), address(to).String()); err != nil {
		t.Fatal(err)
	}
}

// received is what has arrived.
func received(n *network, node int) (texts []string) {
	synctest.Wait()
	for {
		select {
		case p := <-n.nodes[node].packets:
			texts = append(texts, string(p.Buf))
		default:
			return texts
		}
	}
}

func equal(t *testing.T, what string, want, got []string) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: want %q, got %q", what, want, got)
	}
	for i := range want {
		if want[i] != got[i] {
			t.Fatalf("%s: want %q, got %q", what, want, got)
		}
	}
}

func TestPacketsMeetTheirFate(t *testing.T) {
	t.Parallel()
	f := &fakeFate{fate: func(_, _ int, _ time.Duration, nth int) sim.Fate {
		switch nth {
		case 0:
			return sim.Fate{Lost: true}
		case 1:
			return sim.Fate{Delay: 5 * time.Millisecond}
		case 2:
			return sim.Fate{Delay: time.Millisecond, Copy: true, CopyDelay: 9 * time.Millisecond}
		}
		return sim.Fate{Delay: fakeDelay}
	}}
	bubble(t, 2, f, func(t *testing.T, n *network) {
		for _, text := range []string{"lost", "late", "twice"} {
			send(t, n, 0, 1, text)
		}
		time.Sleep(time.Millisecond)
		equal(t, "after 1 ms", []string{"twice"}, received(n, 1))
		time.Sleep(4 * time.Millisecond)
		equal(t, "after 5 ms", []string{"late"}, received(n, 1))
		time.Sleep(4 * time.Millisecond)
		equal(t, "after 9 ms", []string{"twice"}, received(n, 1))
	})
}

func TestPacketsAreNumberedWithinTenMilliseconds(t *testing.T) {
	t.Parallel()
	f := &fakeFate{}
	bubble(t, 3, f, func(t *testing.T, n *network) {
		send(t, n, 0, 1, "a")
		send(t, n, 0, 1, "b")
		send(t, n, 0, 2, "c")
		time.Sleep(12 * time.Millisecond)
		send(t, n, 0, 1, "d")
		want := []question{
			{0, 1, onlyNetwork, 0, 0},
			{0, 1, onlyNetwork, 0, 1},
			{0, 2, onlyNetwork, 0, 0},
			{0, 1, onlyNetwork, 12 * time.Millisecond, 0},
		}
		for i := range want {
			if i >= len(f.asked) || f.asked[i] != want[i] {
				t.Fatalf("question %d: want %v of %v", i, want[i], f.asked)
			}
		}
	})
}

func TestPacketsCountWithTheirHeaders(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &fakeFate{}, func(t *testing.T, n *network) {
		send(t, n, 0, 1, "12345")
		send(t, n, 0, 1, "12345")
		if want := (traffic{Packets: 2, Bytes: 66}); n.nodes[0].sent != want {
			t.Errorf("want %+v, got %+v", want, n.nodes[0].sent)
		}
	})
}

func TestAPausedProcessFindsItsMailAfterwardsAndSendsNothing(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &fakeFate{}, func(t *testing.T, n *network) {
		n.nodes[1].stop(time.Second, true, true)
		send(t, n, 0, 1, "mail")
		sent := make(chan time.Time, 1)
		go func() {
			at, _ := n.nodes[1].WriteTo([]byte("word"), address(0).String())
			sent <- at
		}()
		begin := time.Now()
		time.Sleep(999 * time.Millisecond)
		equal(t, "paused", nil, received(n, 1))
		time.Sleep(2 * time.Millisecond)
		equal(t, "afterwards", []string{"mail"}, received(n, 1))
		if late := (<-sent).Sub(begin); late != time.Second {
			t.Errorf("it sent after %s", late)
		}
	})
}

func TestAFullQueueDrops(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &fakeFate{}, func(t *testing.T, n *network) {
		n.nodes[1].stop(time.Second, true, true)
		for range queueLimit + 7 {
			send(t, n, 0, 1, "x")
		}
		time.Sleep(2 * time.Second)
		if got := len(received(n, 1)); got != queueLimit || n.nodes[1].dropped != 7 {
			t.Errorf("want %d received and 7 dropped, got %d and %d", queueLimit, got, n.nodes[1].dropped)
		}
	})
}

func dial(n *network, from, to int, timeout time.Duration) (net.Conn, time.Duration, error) {
	begin := time.Now()
	c, err := n.nodes[from].DialAddressTimeout(memberlist.Address{Addr: address(to).String()}, timeout)
	return c, time.Since(begin), err
}

func TestStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(n *network, f *fakeFate)
		want    error
		after   time.Duration
	}{
		{"are there after a round trip", func(*network, *fakeFate) {}, nil, 2 * fakeDelay},
		{"of a killed process are refused", func(n *network, _ *fakeFate) { n.nodes[1].leave(processGone) }, syscall.ECONNREFUSED, 2 * fakeDelay},
		{"of a silent host time out", func(n *network, _ *fakeFate) { n.nodes[1].leave(hostGone) }, syscall.ETIMEDOUT, 10 * time.Second},
		{"of a paused process are there", func(n *network, _ *fakeFate) { n.nodes[1].stop(time.Minute, true, true) }, nil, 2 * fakeDelay},
		{"of a paused machine come when it goes on", func(n *network, _ *fakeFate) { n.nodes[1].stop(2*time.Second, true, false) }, nil, 3*time.Second + 2*fakeDelay},
		{"over a cut network time out", func(_ *network, f *fakeFate) { f.cut = true }, syscall.ETIMEDOUT, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := &fakeFate{}
			bubble(t, 2, f, func(t *testing.T, n *network) {
				c.prepare(n, f)
				_, after, err := dial(n, 0, 1, 10*time.Second)
				if !errors.Is(err, c.want) || after != c.after {
					t.Errorf("want %v after %s, got %v after %s", c.want, c.after, err, after)
				}
			})
		})
	}
}

func TestAStreamCarriesAndCounts(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &fakeFate{}, func(t *testing.T, n *network) {
		near, _, err := dial(n, 0, 1, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		far := <-n.nodes[1].accepted
		begin := time.Now()
		go func() {
			_, _ = near.Write(make([]byte, 3000))
			_ = near.Close()
		}()
		text, err := io.ReadAll(far)
		if err != nil || len(text) != 3000 || time.Since(begin) != 2*fakeDelay {
			t.Errorf("want 3000 bytes and the end after two delays, got %d, %v after %s", len(text), err, time.Since(begin))
		}
		_ = far.Close()
		if want := (traffic{Packets: 3 + 3, Bytes: 3*40 + 3000 + 3*40}); n.nodes[0].sent != want {
			t.Errorf("who dials: want %+v, got %+v", want, n.nodes[0].sent)
		}
		if want := (traffic{Packets: 2, Bytes: 2 * 40}); n.nodes[1].sent != want {
			t.Errorf("who accepts: want %+v, got %+v", want, n.nodes[1].sent)
		}
	})
}

func TestWhatAStreamLosesComesLater(t *testing.T) {
	t.Parallel()
	asked := 0
	f := &fakeFate{fate: func(_, _ int, _ time.Duration, _ int) sim.Fate {
		asked++ // 1, 2: the request is lost; 3, 4: not; 5: a segment is lost, and once more
		return sim.Fate{Lost: asked == 1 || asked == 5 || asked == 6, Delay: fakeDelay}
	}}
	bubble(t, 2, f, func(t *testing.T, n *network) {
		near, after, err := dial(n, 0, 1, 5*time.Second)
		if want := firstRetry + 2*fakeDelay; err != nil || after != want {
			t.Fatalf("want a stream after %s, got %v after %s", want, err, after)
		}
		far := <-n.nodes[1].accepted
		begin := time.Now()
		go func() { _, _ = near.Write([]byte("12345")) }()
		_, err = io.ReadFull(far, make([]byte, 5))
		if want, got := 3*retransmit+fakeDelay, time.Since(begin); err != nil || got != want {
			t.Errorf("want it after %s, got %v after %s", want, err, got)
		}
		if want := (traffic{Packets: 3 + 3, Bytes: 3*40 + 3*45}); n.nodes[0].sent != want {
			t.Errorf("want %+v, got %+v", want, n.nodes[0].sent)
		}
		_, _ = near.Close(), far.Close()
	})
}

func TestTheDeathOfAProcessEndsItsStreams(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &fakeFate{}, func(t *testing.T, n *network) {
		near, _, err := dial(n, 0, 1, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		n.nodes[1].leave(processGone)
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("want the end, got %v", err)
		}
	})
}
