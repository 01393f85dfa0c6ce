package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/sink"
)

// A sharer is a node with a shared handler, whose words reach others directly.
type sharer struct {
	id    belfry.NodeID
	turns *turns
	delay func() time.Duration // of a question, and of an answer

	mu          sync.Mutex
	incarnation belfry.Incarnation
	sees        presence
	out         bool // it answers nobody
	said        belfryv1.Progress
	asked       int
}

func (s *sharer) with(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// sharers are nodes that know of each other.
func sharers(t *testing.T, n int, delay func() time.Duration) (all []*sharer) {
	t.Helper()
	for i := range n {
		s := &sharer{id: belfry.NodeID{byte(i + 1)}, incarnation: 1, delay: delay, said: belfryv1.Progress{Shares: true}}
		s.turns = &turns{
			present: func() presence {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.sees
			},
			ask: func(_ context.Context, node belfry.NodeID, req *belfryv1.GetProgressRequest) (*belfryv1.GetProgressResponse, error) {
				time.Sleep(delay()) //nolint:forbidigo // in a bubble
				resp, err := all[node[0]-1].answer(req)
				time.Sleep(delay()) //nolint:forbidigo // in a bubble
				return resp, err
			},
			spawn: func(f func(context.Context)) { go f(t.Context()) },
		}
		all = append(all, s)
	}
	for _, s := range all {
		s.sees = presence{self: s.id, up: map[belfry.NodeID]belfry.Incarnation{}, known: true}
		for _, other := range all {
			s.sees.up[other.id] = 1
		}
	}
	return all
}

func (s *sharer) answer(req *belfryv1.GetProgressRequest) (*belfryv1.GetProgressResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.out {
		return nil, errors.New("no stream")
	}
	resp := &belfryv1.GetProgressResponse{Incarnation: uint32(s.incarnation)}
	for _, of := range req.GetEvents() {
		p := &belfryv1.Progress{Shares: s.said.Shares, Done: s.said.Done, Started: s.said.Started, Attempt: s.said.Attempt}
		p.Runs, p.Claims = s.turns.progress(turnKey{of.GetHandler(), sink.Key{
			Node: belfry.NodeID(of.GetNode()), Incarnation: belfry.Incarnation(of.GetIncarnation()), Entry: of.GetEntry(),
		}})
		resp.Progress = append(resp.Progress, p)
	}
	return resp, nil
}

// jobOf is an event whose order begins with that node, of those that are there.
func jobOf(first *sharer, all []*sharer) belfry.Notification {
	var ids []belfry.NodeID
	for _, s := range all {
		ids = append(ids, s.id)
	}
	n := belfry.Notification{
		Node: belfry.NodeID{9}, Incarnation: 3, Entry: 7, Event: belfry.EventID{Class: "user.job"},
		First: 1, Last: 9, Count: 9,
	}
	for i := 0; ; i++ {
		n.Event.Subject = fmt.Sprint(i)
		if sink.Order("one", sink.EventOf(&n), ids)[0] == first.id {
			return n
		}
	}
}

func awaited(t *testing.T, s *sharer, n belfry.Notification) <-chan sink.Turn {
	t.Helper()
	got := make(chan sink.Turn, 1)
	go func() {
		turn, err := s.turns.Await(t.Context(), "one", &n)
		if err != nil && t.Context().Err() == nil {
			t.Errorf("node %s: %v", s.id, err)
		}
		got <- turn
	}()
	return got
}

func verdict(got <-chan sink.Turn) string {
	synctest.Wait()
	select {
	case turn := <-got:
		if turn.Mine {
			return fmt.Sprintf("runs, %d begun", turn.Begun)
		}
		return fmt.Sprintf("done up to %d", turn.Done)
	default:
		return "waits"
	}
}

func after(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // of a bubble

func noDelay() time.Duration { return 0 }

func expectVerdict(t *testing.T, what string, got <-chan sink.Turn, want string) {
	t.Helper()
	if v := verdict(got); v != want {
		t.Errorf("%s: %s; want: %s", what, v, want)
	}
}

// TestARestartedNodeRunsNothingThatOthersDid: it waits until it knows who is
// there, and asks them, though it is its turn.
func TestARestartedNodeRunsNothingThatOthersDid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := sharers(t, 2, noDelay)
		a, b := all[0], all[1]
		sees := a.sees
		a.sees = presence{self: a.id, up: map[belfry.NodeID]belfry.Incarnation{a.id: 1}}
		b.said.Done = 9
		got := awaited(t, a, jobOf(a, all))
		after(3 * time.Second)
		expectVerdict(t, "before it knows who is there", got, "waits")
		a.with(func() { a.sees = sees })
		after(sharePeriod)
		expectVerdict(t, "when it knows", got, "done up to 9")
	})
}

// TestWhoeverIsAloneRuns, and whoever has others that say nothing of an event.
func TestWhoeverIsAloneRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := sharers(t, 1, noDelay)
		expectVerdict(t, "alone", awaited(t, all[0], jobOf(all[0], all)), "runs, 0 begun")
		all = sharers(t, 3, noDelay)
		expectVerdict(t, "first", awaited(t, all[1], jobOf(all[1], all)), "runs, 0 begun")
	})
}

// TestWhoIsThere: soon after the start a member that nobody has said anything of
// may be up; later it is gone, or was never there.
func TestWhoIsThere(t *testing.T) {
	t.Parallel()
	a, b, c := belfry.NodeID{1}, belfry.NodeID{2}, belfry.NodeID{3}
	for _, tt := range []struct {
		of    belfry.Verdict
		age   time.Duration
		up    int
		known bool
	}{
		{belfry.VerdictJoining, 0, 2, false},
		{belfry.VerdictJoining, membersPatience, 2, true},
		{belfry.VerdictUp, 0, 3, true},
		{belfry.VerdictDown, 0, 2, true},
	} {
		p := presenceOf(a, 4, []cluster.NodeStatus{
			{ID: a, Verdict: belfry.VerdictJoining}, {ID: b, Verdict: belfry.VerdictUp, Incarnation: 7}, {ID: c, Verdict: tt.of},
		}, tt.age)
		if len(p.up) != tt.up || p.known != tt.known || p.up[a] != 4 || p.up[b] != 7 {
			t.Errorf("%s after %s: %+v; want %d up, known %v", tt.of, tt.age, p, tt.up, tt.known)
		}
	}
}

// TestAStandInTakesOver from a node that is down or was started again, and says
// which attempt it is: the second, unless that node can say better.
func TestAStandInTakesOver(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(a, b *sharer)
		want   string
	}{
		"it has not begun": {func(*sharer, *sharer) {}, "waits"},
		"it shares none":   {func(a, _ *sharer) { a.said.Shares = false }, "runs, 0 begun"},
		"it is down": {func(_, b *sharer) {
			b.sees = presence{self: b.id, up: map[belfry.NodeID]belfry.Incarnation{b.id: 1}, known: true}
		}, "runs, 1 begun"},
		"it was started again in its third attempt": {func(a, b *sharer) {
			a.incarnation, a.said.Started, a.said.Attempt = 2, 9, 3
			b.sees = presence{self: b.id, up: map[belfry.NodeID]belfry.Incarnation{b.id: 1, a.id: 2}, known: true}
		}, "runs, 3 begun"},
		"it was started again before it began": {func(a, b *sharer) {
			a.incarnation = 2
			b.sees = presence{self: b.id, up: map[belfry.NodeID]belfry.Incarnation{b.id: 1, a.id: 2}, known: true}
		}, "runs, 0 begun"},
		"it does not answer any more": {func(a, _ *sharer) { a.out = true }, "waits"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				all := sharers(t, 2, noDelay)
				a, b := all[0], all[1]
				got := awaited(t, b, jobOf(a, all))
				after(2 * sharePeriod)
				expectVerdict(t, "at first", got, "waits")
				a.with(func() { b.with(func() { tt.change(a, b) }) })
				after(3 * sharePeriod)
				expectVerdict(t, name, got, tt.want)
			})
		})
	}
}

// TestANodeThatAnswersNothingHoldsUpForAWhile, and no longer: its streams are
// broken, though its heartbeats come.
func TestANodeThatAnswersNothingHoldsUpForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := sharers(t, 2, noDelay)
		a, b := all[0], all[1]
		b.out = true
		job := jobOf(a, all)
		got := awaited(t, a, job)
		after(claimPatience)
		expectVerdict(t, "within the patience", got, "waits")
		after(2 * sharePeriod)
		expectVerdict(t, "after it", got, "runs, 1 begun")
		job.Entry++
		expectVerdict(t, "the next one", awaited(t, a, job), "runs, 1 begun")
	})
}

// TestAMissedNotificationIsRunAtLast, by a node that waits for another one which
// has not heard of it; and not while that one runs it.
func TestAMissedNotificationIsRunAtLast(t *testing.T) {
	t.Parallel()
	for _, runs := range []bool{false, true} {
		t.Run(fmt.Sprint(runs), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				all := sharers(t, 2, noDelay)
				a, b := all[0], all[1]
				job := jobOf(a, all)
				want := "runs, 0 begun"
				if runs {
					expectVerdict(t, "the first", awaited(t, a, job), want)
					want = "waits"
				}
				got := awaited(t, b, job)
				after(sharePatience - sharePeriod)
				expectVerdict(t, "within the patience", got, "waits")
				after(2 * sharePeriod)
				expectVerdict(t, "after it", got, want)
			})
		})
	}
}

// TestOfTwoThatAskAtMostOneRuns, whatever each thinks whose turn it is, however
// long words take, and all of it is run.
func TestOfTwoThatAskAtMostOneRuns(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			rng := rand.New(rand.NewPCG(seed, 1))
			random := func(most time.Duration) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rng.Int64N(int64(most)))
			}
			all := sharers(t, 3, func() time.Duration { return random(400 * time.Millisecond) })
			var group sync.WaitGroup
			for i, s := range all { // each takes the others for started again, sooner or later
				group.Go(func() {
					after(random(2 * time.Second))
					s.with(func() {
						s.sees.up = map[belfry.NodeID]belfry.Incarnation{s.id: 1}
						for j, other := range all {
							if i != j {
								s.sees.up[other.id] = 2
							}
						}
					})
				})
			}
			job := jobOf(all[0], all)
			running, ran := 0, 0
			for _, s := range all {
				group.Go(func() {
					after(random(2 * time.Second))
					turn, err := s.turns.Await(t.Context(), "one", &job)
					if err != nil || !turn.Mine {
						return
					}
					mu.Lock()
					running, ran = running+1, ran+1
					if running > 1 || ran > 1 {
						t.Errorf("seed %d: %d run it at once, %d in all", seed, running, ran)
					}
					mu.Unlock()
					after(random(3 * time.Second))
					s.with(func() { s.said.Done = job.Last })
					mu.Lock()
					running--
					mu.Unlock()
					turn.Release()
				})
			}
			group.Wait()
			if ran != 1 {
				t.Errorf("seed %d: it ran %d times", seed, ran)
			}
		})
	}
}
