package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// posted is a witness of a program that is registered twice; what it says has room.
func posted() (w *Witness, first, second *post) {
	w = &Witness{told: newTold(2), seeds: map[string]string{}, events: make(chan WitnessEvent, 4), done: make(chan struct{}), opened: make(chan error, 2), began: true}
	first, second = &post{Witness: w, number: 0}, &post{Witness: w, number: 1}
	w.posts = []*post{first, second}
	return w, first, second
}

// W7: two registrations at one witness would both die with it.
func TestTwoRegistrationsAreNeverAtOneWitness(t *testing.T) {
	t.Parallel()
	_, first, second := posted()
	if !first.try("b") || second.try("b") || !second.try("c") {
		t.Error("the second one is to go to another witness than the first")
	}
	if first.try("c") {
		t.Error("the first one has gone to the witness of the second")
	}
	if first.try(""); !second.try("b") {
		t.Error("the first one has left b, and the second does not go there")
	}
}

// No witness at all is said once, and not while another one is there.
func TestNoWitnessIsSaidOnceAndWhenNoneIsLeft(t *testing.T) {
	t.Parallel()
	w, first, second := posted()
	w.seeds = map[string]string{}
	first.node = "b"
	second.miss(t.Context(), nil)
	if len(w.events) != 0 {
		t.Error("b is there, and the program is told that no witness is")
	}
	first.node, first.tried = "", "b"
	second.miss(t.Context(), nil)
	if len(w.events) != 0 {
		t.Error("the first one registers at b again, and the program is told that no witness is")
	}
	first.tried = ""
	first.miss(t.Context(), nil)
	second.miss(t.Context(), nil)
	if len(w.events) != 1 {
		t.Fatalf("told %d times that there is no witness; want once", len(w.events))
	}
	if e := <-w.events; e.Kind != WitnessMissing || !errors.Is(e.Err, belfry.ErrNoAgent) {
		t.Errorf("told %+v", e)
	}
}

// attempts runs one post in virtual time, with a dial of the test's, until there were
// so many; it returns when each began.
func attempts(t *testing.T, config WitnessConfig, n int, dial func(ctx context.Context) (*Client, error)) (w *Witness, at []time.Time) {
	t.Helper()
	w, p, _ := posted()
	w.config, w.posts = config, []*post{p}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	w.dial = func(ctx context.Context, _ string) (*Client, error) {
		mu.Lock()
		if at = append(at, time.Now()); len(at) == n {
			cancel()
		}
		mu.Unlock()
		return dial(ctx)
	}
	p.run(ctx)
	synctest.Wait() // for those that were asked and not awaited
	return w, at
}

func gaps(at []time.Time) (all []time.Duration) {
	for i := range at[1:] {
		all = append(all, at[i+1].Sub(at[i]))
	}
	return all
}

// W7: while all witnesses are gone the program was told so once, with the reason, and
// they are tried again: after up to 100 ms, then twice as long, up to 5 s, and never in
// step with other programs.
func TestTheBackOffIsJitteredAndGrowsTo5Seconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, at := attempts(t, WitnessConfig{Seeds: []string{"/agent"}}, 64, func(context.Context) (*Client, error) { return nil, belfry.ErrNoAgent })
		waited := gaps(at)
		for i, d := range waited {
			if most := min(backoffMin<<min(i, 16), backoffMax) + time.Millisecond; d > most || d < time.Millisecond {
				t.Errorf("attempt %d came after %s; want 1ms to %s", i+2, d, most)
			}
		}
		if longest := slices.Max(waited); longest < backoffMax/4 {
			t.Errorf("the longest wait is %s; want it to have grown towards %s", longest, backoffMax)
		}
		slices.Sort(waited)
		if len(slices.Compact(waited)) < len(at)/2 {
			t.Errorf("waited %v; want jitter", waited)
		}
		if e := <-w.events; e.Kind != WitnessMissing || !errors.Is(e.Err, belfry.ErrNoAgent) || len(w.events) != 0 {
			t.Errorf("told %+v and %d more; want once that no witness is there", e, len(w.events))
		}
	})
}

// Where agents are slow they are given more time from round to round, and not for ever.
func TestPatienceGrowsWithEachRoundInVain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config WitnessConfig
		want   []time.Duration
	}{
		{WitnessConfig{Seeds: []string{"/agent"}}, []time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second}},
		{WitnessConfig{Seeds: []string{"a:1"}, TLS: &tls.Config{}}, []time.Duration{3 * time.Second, 6 * time.Second, 12 * time.Second, 12 * time.Second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var took []time.Duration
			attempts(t, c.config, len(c.want)+1, func(ctx context.Context) (*Client, error) {
				begun := time.Now()
				<-ctx.Done()
				took = append(took, time.Since(begun))
				return nil, ctx.Err()
			})
			if !slices.Equal(took[:len(c.want)], c.want) {
				t.Errorf("gave up after %v; want %v", took, c.want)
			}
		})
	}
}

// With certificates one answer is enough: the next seed is asked when the one before
// fails, at once, or says nothing for a while.
func TestSeedsAreAskedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	config := WitnessConfig{Seeds: []string{"a:1", "b:1", "c:1"}, TLS: &tls.Config{}}
	for want, dial := range map[time.Duration]func(context.Context) (*Client, error){
		0:           func(context.Context) (*Client, error) { return nil, belfry.ErrNoAgent },
		seedStagger: func(ctx context.Context) (*Client, error) { <-ctx.Done(); return nil, ctx.Err() },
	} {
		synctest.Test(t, func(t *testing.T) {
			_, at := attempts(t, config, 3, dial)
			if got := gaps(at); !slices.Equal(got, []time.Duration{want, want}) {
				t.Errorf("asked %v after one another; want %s", got, want)
			}
		})
	}
}

// A fickleWitness registers, and ends the stream at once.
type fickleWitness struct {
	belfryv1.WitnessServiceClient
	grpc.ServerStreamingClient[belfryv1.WatchChangesResponse]
	said bool
}

func (*fickleWitness) GetNodeInformation(context.Context, *belfryv1.GetNodeInformationRequest, ...grpc.CallOption) (*belfryv1.GetNodeInformationResponse, error) {
	return &belfryv1.GetNodeInformationResponse{NodeName: "a", Witnesses: []*belfryv1.WitnessNode{{Node: "a"}, {Node: "b", Addresses: []string{"b:1"}}}}, nil
}

func (f *fickleWitness) WatchChanges(context.Context, *belfryv1.WatchChangesRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[belfryv1.WatchChangesResponse], error) {
	return f, nil
}

func (f *fickleWitness) Recv() (*belfryv1.WatchChangesResponse, error) {
	if f.said {
		return nil, io.EOF
	}
	f.said = true
	return &belfryv1.WatchChangesResponse{Registered: &belfryv1.RegisterClientResponse{
		NodeName: "a", Witnesses: []*belfryv1.WitnessNode{{Node: "a", Addresses: []string{"a:1"}}, {Node: "b", Addresses: []string{"b:1"}}},
	}}, nil
}

func (*fickleWitness) UnregisterClient(context.Context, *belfryv1.UnregisterClientRequest, ...grpc.CallOption) (*belfryv1.UnregisterClientResponse, error) {
	return &belfryv1.UnregisterClientResponse{}, nil
}

// Witnesses that register a program and end that at once are not gone round as fast as
// they answer.
func TestWitnessesThatEndEachStayAreNotGoneRoundAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p, _ := posted()
		w.config, w.posts = WitnessConfig{Seeds: []string{"a:1"}, TLS: &tls.Config{}}, []*post{p}
		ctx, cancel := context.WithCancel(t.Context())
		dials := 0
		w.dial = func(context.Context, string) (*Client, error) {
			conn, err := grpc.NewClient("passthrough:///a:1", grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return nil, err
			}
			dials++
			return &Client{conn: conn, witness: &fickleWitness{}}, nil
		}
		done := make(chan struct{})
		go func() { p.run(ctx); close(done) }()
		for end := time.After(time.Minute); ; {
			select {
			case <-w.events:
				continue
			case <-end:
			}
			break
		}
		cancel()
		<-done
		if dials < 10 || dials > 100 {
			t.Errorf("dialled %d times in a minute; want 10 to 100", dials)
		}
	})
}
