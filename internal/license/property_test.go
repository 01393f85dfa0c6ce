package license

import (
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// Nodes get the lists from the same document, but a verdict must not hang on
// how somebody sorted them.
func TestOrderOfTheInputDoesNotMatter(t *testing.T) {
	t.Parallel()
	pool := drawPool(t)
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, pool)
		want := Evaluate(in)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
		shuffled := in
		shuffled.Files, shuffled.Members = slices.Clone(in.Files), slices.Clone(in.Members)
		shuffled.Revocations, shuffled.Issuers = slices.Clone(in.Revocations), slices.Clone(in.Issuers)
		shuffled.Activations = slices.Clone(in.Activations)
		shuffle(rng, shuffled.Files)
		shuffle(rng, shuffled.Members)
		shuffle(rng, shuffled.Revocations)
		shuffle(rng, shuffled.Issuers)
		shuffle(rng, shuffled.Activations)
		if diff := cmp.Diff(want, Evaluate(shuffled)); diff != "" {
			t.Fatalf("in another order (-was +is):\n%s", diff)
		}
	})
}

func shuffle[T any](rng *rand.Rand, list []T) {
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// Until is exact: the state is the same up to it, and another one at it.
func TestUntilIsWhenTheStateChanges(t *testing.T) {
	t.Parallel()
	pool := drawPool(t)
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, pool)
		v := Evaluate(in)
		state := func(at time.Time) belfry.LicenseState {
			later := in
			later.Now = at
			return Evaluate(later).State
		}
		end := v.Until
		if end.IsZero() {
			end = v.Time.AddDate(2, 0, 0) // later than all that begins or ends
		} else if got := state(end); got == v.State {
			t.Fatalf("%s, and at that instant %s again", told(v), got)
		}
		if !end.After(v.Time) {
			t.Fatalf("%s, which is not after now, %s", told(v), v.Time)
		}
		if got := state(end.Add(-1)); got != v.State {
			t.Fatalf("%s, and %s just before", told(v), got)
		}
		for range 20 {
			between := v.Time.Add(time.Duration(rapid.Int64Range(0, int64(end.Sub(v.Time))-1).Draw(t, "between")))
			if got := state(between); got != v.State {
				t.Fatalf("%s, and %s at %s", told(v), got, between)
			}
		}
	})
}

// drawPool is files with all sorts of dates, which cost too much to sign anew
// for each draw.
func drawPool(t *testing.T) [][]byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	var pool [][]byte
	for i := range 60 {
		l := annual()
		l.ID = ID(fmt.Sprintf("D%d", i%40))
		l.NotBefore, l.NotAfter = at("2026-01-01").AddDate(0, 0, rng.IntN(365)), time.Time{}
		if rng.IntN(5) > 0 {
			l.NotAfter = l.NotBefore.AddDate(0, 0, rng.IntN(200))
		}
		l.GraceDays = rng.IntN(30)
		l.Capacity.Nodes, l.Capacity.Cores = int64(rng.IntN(4)), int64(rng.IntN(3)*12)
		for range rng.IntN(3) {
			if other := ID(fmt.Sprintf("D%d", rng.IntN(40))); other != l.ID && !slices.Contains(l.Supersedes, other) {
				l.Supersedes = append(l.Supersedes, other)
			}
		}
		l.Binding = []Binding{{Any: true}, {Any: true}, {Cluster: testCluster}, {Cluster: testCluster}, {Cluster: otherCluster}, {Nodes: []belfry.NodeID{node(1), node(2)}}}[rng.IntN(6)]
		pool = append(pool, signedBy(t, l, []ed25519.PrivateKey{vendorKey, vendorKey, vendorKey, secondKey, rogueKey}[rng.IntN(5)]))
	}
	return pool
}

func drawInput(t *rapid.T, pool [][]byte) Input {
	in := Input{
		Product: product, Issuers: testIssuers, Cluster: testCluster, Node: node(2),
		Now:   at("2025-12-01").Add(time.Duration(rapid.IntRange(0, 500*24*3600).Draw(t, "now")) * time.Second),
		Files: rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 0, 4, func(text []byte) string { return string(text) }).Draw(t, "files"),
	}
	for n := range rapid.IntRange(1, 4).Draw(t, "members") {
		in.Members = append(in.Members, Member{
			Node: node(n + 1), Joined: uint64(rapid.IntRange(1, 3).Draw(t, "joined")), Cores: int64(rapid.IntRange(0, 9).Draw(t, "cores")),
		})
	}
	if rapid.Bool().Draw(t, "out of reach") {
		in.LastRead = in.Now.Add(-time.Duration(rapid.IntRange(0, 100*3600).Draw(t, "read")) * time.Second)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "activations") {
		in.Activations = append(in.Activations, Activation{License: ID(fmt.Sprintf("D%d", 3*i)), Time: at("2026-01-01").AddDate(0, 0, -i)})
	}
	return in
}
