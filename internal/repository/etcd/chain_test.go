package etcd

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// A chain is what several nodes have seen of one repository. A document of these
// tests shows all updates before it, so that being on the way to the final one is
// linearizability without a search.
type chain struct {
	mu      sync.Mutex
	acked   [][]byte
	seen    [][]byte
	refused []repository.OpID
	highest int // length of the longest acknowledged document
	faults  []string
}

// begun is how long a value must be at least that an operation returns which
// begins now.
func (c *chain) begun() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.highest
}

func (c *chain) saw(doc []byte, begun int, acknowledged bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, doc)
	if len(doc) < begun {
		c.faults = append(c.faults, "a value was returned that is older than one acknowledged before")
	}
	if acknowledged {
		c.acked = append(c.acked, doc)
		c.highest = max(c.highest, len(doc))
	}
}

// Four nodes update while members of etcd are killed and paused, and give up
// after each attempt whose outcome is unknown, to try again with the same
// operation. No update is lost or happens twice, none after a conflict, and no
// read goes back.
func TestWritersWhileMembersAreKilledAndPaused(t *testing.T) {
	if testing.Short() {
		t.Skip("needs: a run without -short")
	}
	t.Parallel()
	servers := newRepository(t, 3)
	var seen chain
	trouble := newTrouble(servers)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for host := range 4 {
		b := open(t, config(host, endpoints(servers)...))
		writers.Go(func() { seen.write(b, host, stop) })
	}
	often := int32(4)
	if os.Getenv("BELFRY_SOAK") != "" {
		often = 200
	}
	limit := time.After(time.Duration(often) * 15 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for trouble.kills.Load() < often || trouble.pauses.Load() < often {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("members were not killed and paused %d times in time", often)
		}
	}
	trouble.end()
	close(stop)
	writers.Wait()
	final := patient{open(t, config(5, endpoints(servers)...))}
	seen.check(t, load(t, final))
	t.Logf("%d generations, %d conflicts, %d values seen", len(seen.acked), len(seen.refused), len(seen.seen))
}

func (c *chain) write(b *Backend, host int, stop <-chan struct{}) {
	for n := 1; ; n++ {
		begun := c.begun()
		base, err := b.Poll()
		select {
		case <-stop:
			return
		default:
		}
		if err != nil {
			c.judge(err)
			continue
		}
		c.saw(base.Document, begun, false)
		op := opID(host, n)
		doc := append(base.Document, op[:]...)
		for again := true; again; {
			begun := c.begun()
			_, err := b.CAS(base.Version, doc, op)
			again = errors.Is(err, belfry.ErrUnknown) || errors.Is(err, belfry.ErrRestricted)
			switch {
			case err == nil && len(doc) <= begun: // others have been acknowledged after it, if it is an older attempt
				c.saw(doc, 0, true)
			case err == nil:
				c.saw(doc, begun, true)
			case errors.Is(err, belfry.ErrConflict):
				c.mu.Lock()
				c.refused = append(c.refused, op)
				c.mu.Unlock()
			default:
				c.judge(err)
			}
		}
	}
}

// judge takes what no trouble of etcd's explains for a fault.
func (c *chain) judge(err error) {
	damage := errors.Is(err, repository.Regressed) || errors.Is(err, repository.Damaged)
	if damage || !errors.Is(err, belfry.ErrUnknown) && !errors.Is(err, belfry.ErrRestricted) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.faults = append(c.faults, err.Error())
	}
}

func (c *chain) check(t *testing.T, final repository.Snapshot) {
	t.Helper()
	for _, f := range c.faults {
		t.Error(f)
	}
	if int(final.Generation) != len(final.Document)/opSize || len(c.acked) < 10 {
		t.Errorf("generation %d has %d updates, %d were acknowledged; want one for each, and at least 10", final.Generation, len(final.Document)/opSize, len(c.acked))
	}
	happened := map[repository.OpID]bool{}
	for doc := final.Document; len(doc) > 0; doc = doc[opSize:] {
		if op := repository.OpID(doc[:opSize]); happened[op] {
			t.Errorf("update %x happened twice", op)
		} else {
			happened[op] = true
		}
	}
	for _, doc := range append(c.acked, c.seen...) {
		if !bytes.HasPrefix(final.Document, doc) {
			t.Errorf("a value of %d updates is not on the way to the final one of %d", len(doc)/opSize, final.Generation)
		}
	}
	for _, op := range c.refused {
		if happened[op] {
			t.Errorf("update %x happened after its caller was told of a conflict", op)
		}
	}
	if !bytes.HasPrefix(final.Document, repositorytest.First()) {
		t.Error("the final value does not begin with the first one")
	}
}
