package etcd

import (
	"context"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/internal/repository"
)

// hinted waits for the hint of a version, and takes those before it.
func hinted(t *testing.T, b *Backend, want repository.Version) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case got := <-b.Hints():
			if got == want {
				return
			}
		case <-limit:
			t.Fatalf("no hint of %+v", want)
		}
	}
}

func TestHintsNameWhatWasCommitted(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 3)
	a, b := open(t, config(0, endpoints(servers)...)), open(t, config(1, endpoints(servers)...))
	for i := range 5 {
		hinted(t, b, add(t, a, opID(1, i+1)))
	}
}

// Who does not take hints gets the newest one, and holds nothing up.
func TestHintsCoalesce(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	a, b := open(t, config(0, endpoints(servers)...)), open(t, config(1, endpoints(servers)...))
	var last repository.Version
	for i := range 20 {
		last = add(t, a, opID(1, i+1))
	}
	hinted(t, b, last)
	if len(b.hints) > 0 {
		t.Errorf("%d hints after the newest one", len(b.hints))
	}
}

// X25: what changed while the watch was interrupted, and was compacted, is told
// without a poll: the watch does not go on at the present revision.
func TestAnInterruptedWatchMissesNothing(t *testing.T) {
	t.Parallel()
	for _, compact := range []bool{false, true} {
		name := "Kept"
		if compact {
			name = "Compacted"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := newRepository(t, 1)
			p := newProxy(t, servers[0].endpoint())
			a, b := open(t, config(0, servers[0].endpoint())), open(t, config(1, p.endpoint()))
			hinted(t, b, add(t, a, opID(1, 1)))
			p.cut()
			var last repository.Version
			for i := range 3 {
				last = add(t, a, opID(2, i+1))
			}
			c := client(t, servers...)
			if _, err := c.Put(ask(t), "another key", "x"); err != nil { // so that the store is ahead of ours
				t.Fatal(err)
			}
			if compact {
				if _, err := c.Compact(ask(t), int64(last.Ballot)+1); err != nil {
					t.Fatal(err)
				}
			}
			p.heal()
			hinted(t, b, last)
			hinted(t, b, add(t, a, opID(3, 1))) // and it goes on
		})
	}
}

// A store that is compacted beyond the key's own revision is no reason to begin
// again and again.
func TestACompactedStoreIsWatchedInPeace(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	a := open(t, config(0, endpoints(servers)...))
	c := client(t, servers...)
	answer, err := c.Put(ask(t), "another key", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ask(t), answer.Header.Revision); err != nil {
		t.Fatal(err)
	}
	b, err := connect(config(1, endpoints(servers)...)) // whose watch is the test's
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int64, 1)
	go func() { ended <- b.follow(ctx, answer.Header.Revision+1, 0) }()
	hinted(t, b, add(t, a, opID(1, 1)))
	select {
	case <-ended:
		t.Error("the watch has ended")
	default:
	}
	cancel()
	<-ended
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	hinted(t, open(t, config(2, endpoints(servers)...)), load(t, a).Version) // from the start
}

// A member that lost the others ends the watch instead of keeping silent.
func TestAWatchGoesOnWithAnotherMember(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 3)
	b := open(t, config(1, endpoints(servers)...))
	first := load(t, b)
	hinted(t, b, first.Version)
	for i, s := range servers { // one of them has the watch
		s.kill()
		hinted(t, b, add(t, patient{open(t, config(0, endpoints(servers)...))}, opID(1, i+1)))
		s.start()
		within(t, 20*time.Second, func() error { _, err := client(t, s).Get(ask(t), "x"); return err })
	}
}
