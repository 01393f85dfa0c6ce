package agent

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/repository"
)

// TestAMemberThatHasPromisedWritesNothing: neither by its own change, nor a generation
// that somebody else has committed, also after a restart.
func TestAMemberThatHasPromisedWritesNothing(t *testing.T) {
	t.Parallel()
	m := machines(t, 1)
	formedOnFile(t, m)
	m[0].waitMode(t, repository.Ready)
	a := m[0].agent
	next, state := a.storage.next, a.opts.Config.State
	held := a.storage.held()
	next.mu.Lock()
	kept := next.durable(&repository.EpochState{Target: repository.TakeoverEpoch(held.Epoch), Promised: repository.EpochBallot{Round: 1, Node: a.id.node.ID}})
	next.mu.Unlock()
	if !kept {
		t.Fatal("the promise was not kept")
	}
	if _, err := m[0].dial(t).SetConfig(t.Context(), "tunables.node_timeout", "7s", false); err == nil {
		t.Error("a change was committed in an epoch that this member has promised to leave")
	}
	d := a.storage.work(repository.Job{Kind: repository.JobKeep, Snapshot: repository.Snapshot{Version: held.Version, Document: []byte("other")}})
	if !errors.Is(d.Err, repository.Moved) {
		t.Errorf("a generation of that epoch is kept: %v", d.Err)
	}
	if copied, err := readCopy(copyOf(state)); err != nil || copied.Digest != held.Digest {
		t.Errorf("the local copy is %v (%v); want generation %d", copied.Version, err, held.Generation)
	}
	again, err := newTakeover(a.storage)
	if err != nil || !again.fences(held.Epoch) || again.fences(repository.TakeoverEpoch(held.Epoch)) {
		t.Errorf("after a restart the promise is %+v (%v)", again, err)
	}
}

func TestAPromiseIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	if s, err := readEpoch(state); err != nil || s.Target != 0 {
		t.Errorf("nothing was promised: %+v, %v", s, err)
	}
	want := repository.EpochState{
		Target: 1_000_000, Promised: repository.EpochBallot{Round: 3, Node: belfry.NodeID{1}}, Accepted: repository.EpochBallot{Round: 2, Node: belfry.NodeID{2}},
		Value: []byte("a document\nof two lines"), Chosen: true,
	}
	if err := writeEpoch(state, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readEpoch(state); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v (%v); want %+v", got, err, want)
	}
	path := filepath.Join(state, epochName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range []string{"", "x", string(whole[:len(whole)-1]), string(whole) + "x", "belfry-epoch-2" + string(whole[len(epochMagic):])} {
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readEpoch(state); !errors.Is(err, belfry.ErrRestricted) {
			t.Errorf("%q is a promise: %v", damaged, err)
		}
	}
}

func TestALetterArrivesAsItWasSent(t *testing.T) {
	t.Parallel()
	want := repository.Letter{
		Kind: repository.LetterPromise, Target: 1_000_000, Ballot: repository.EpochBallot{Round: 3, Node: belfry.NodeID{1}},
		Held:     repository.Version{Repository: repository.UUID{1}, Epoch: 2, Ballot: 3, Generation: 4, Digest: repository.Digest{5}},
		Document: []byte("document"), Accepted: repository.EpochBallot{Round: 2, Node: belfry.NodeID{2}}, Value: []byte("value"), Lost: true,
		Seen: []repository.UUID{{7}, {8}},
	}
	got, err := letterFrom(letterTo(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v (%v); want %+v", got, err, want)
	}
	for name, edit := range map[string]func(*belfryv1.TakeOverRequest){
		"kind 0":        func(r *belfryv1.TakeOverRequest) { r.Kind = 0 },
		"kind 257":      func(r *belfryv1.TakeOverRequest) { r.Kind = 257 },
		"a short node":  func(r *belfryv1.TakeOverRequest) { r.Ballot.Node = []byte{1} },
		"a short hash":  func(r *belfryv1.TakeOverRequest) { r.HeldDigest = []byte{1} },
		"a short disk":  func(r *belfryv1.TakeOverRequest) { r.Seen[0] = []byte{1} },
		"no repository": func(r *belfryv1.TakeOverRequest) { r.Repository = nil },
	} {
		req := letterTo(want)
		edit(req)
		if _, err := letterFrom(req); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWhatIsDamagedIsNotTakenOver: the disks are there, and people have to look at them.
func TestWhatIsDamagedIsNotTakenOver(t *testing.T) {
	t.Parallel()
	m := machines(t, 1)
	formedOnFile(t, m)
	s := m[0].agent.storage
	now := time.Now()
	for _, c := range []struct {
		state storageState
		want  bool
	}{
		{storageState{mode: repository.Restricted, why: repository.TooFew, good: now.Add(-takeoverLost)}, true},
		{storageState{mode: repository.Restricted, why: repository.TooFew, good: now.Add(-takeoverLost + time.Second)}, false},
		{storageState{mode: repository.Restricted, why: repository.Damaged, good: now.Add(-takeoverLost)}, false},
		{storageState{mode: repository.Ready, good: now.Add(-takeoverLost)}, false},
	} {
		if got := (&takeover{s: s}).lostIn(&c.state, now); got != c.want {
			t.Errorf("%v, %v, read %s ago: lost is %t", c.state.mode, c.state.why, now.Sub(c.state.good), got)
		}
	}
}
