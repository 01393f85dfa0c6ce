package etcd

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]int{"OneMember": 1, "ThreeMembers": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := newCluster(t, count)
			repositorytest.Run(t, fresh(servers, func(b *Backend) repository.Backend { return b }))
		})
	}
}

// Each of the members is killed or stopped for a while, one after the other: who
// tries again, as the driver does, sees nothing of it.
func TestConformanceWhileMembersAreKilledAndPaused(t *testing.T) {
	if testing.Short() {
		t.Skip("needs: a run without -short")
	}
	t.Parallel()
	servers := newCluster(t, 3)
	found(t, config(0, endpoints(servers)...)) // all have started
	trouble := newTrouble(servers)
	defer trouble.end()
	for round := 1; (trouble.kills.Load() < 3 || trouble.pauses.Load() < 3) && !t.Failed(); round++ {
		t.Run(fmt.Sprint("Round", round), func(t *testing.T) {
			repositorytest.Run(t, fresh(servers, func(b *Backend) repository.Backend { return patient{b} }))
		})
	}
}

// fresh is a repository of its own for each call, in the same etcd.
func fresh(servers []*server, as func(*Backend) repository.Backend) repositorytest.New {
	return func(t *testing.T) func(int) repository.Backend {
		of := func(host int) Config {
			cfg := config(host, endpoints(servers)...)
			cfg.Prefix = t.Name()
			return cfg
		}
		found(t, of(0))
		return func(host int) repository.Backend {
			b, err := Open(of(host))
			if err != nil {
				t.Fatal(err)
			}
			return as(b)
		}
	}
}

// patient tries again what has no answer, as the driver of a node does.
type patient struct{ *Backend }

func (p patient) Load() (found repository.Snapshot, err error) {
	return found, p.try(func() error { found, err = p.Backend.Load(); return err })
}

func (p patient) Poll() (found repository.Snapshot, err error) {
	return found, p.try(func() error { found, err = p.Backend.Poll(); return err })
}

func (p patient) CAS(base repository.Version, doc []byte, op repository.OpID) (v repository.Version, err error) {
	return v, p.try(func() error { v, err = p.Backend.CAS(base, doc, op); return err })
}

func (p patient) try(call func() error) (err error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		err = call()
		answered := errors.Is(err, repository.Regressed) || errors.Is(err, repository.Damaged)
		if answered || !errors.Is(err, belfry.ErrUnknown) && !errors.Is(err, belfry.ErrRestricted) {
			return err
		}
	}
	return err
}

// A trouble is a goroutine that kills and pauses one member at a time.
type trouble struct {
	stop          chan struct{}
	done          chan struct{}
	kills, pauses atomic.Int32
}

func newTrouble(servers []*server) *trouble {
	x := &trouble{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(x.done)
		for i := 0; ; i++ {
			s := servers[i%len(servers)]
			if i%2 == 0 {
				s.pause()
				x.rest(700 * time.Millisecond)
				s.resume()
				x.pauses.Add(1)
			} else {
				s.kill()
				x.rest(300 * time.Millisecond)
				s.start()
				x.kills.Add(1)
			}
			if !x.rest(1500 * time.Millisecond) { // until it is a member again
				return
			}
		}
	}()
	return x
}

// rest tells whether the trouble goes on.
func (x *trouble) rest(d time.Duration) bool {
	select {
	case <-x.stop:
		return false
	case <-time.After(d):
		return true
	}
}

func (x *trouble) end() {
	close(x.stop)
	<-x.done
}
