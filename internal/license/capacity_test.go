package license

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

func TestCoveredAreTheFirstToJoin(t *testing.T) {
	t.Parallel()
	members := []Member{
		{Node: node(5), Joined: 1, Cores: 8, MemoryBytes: 32},
		{Node: node(1), Joined: 7, Cores: 8, MemoryBytes: 32},
		{Node: node(3), Joined: 2, Cores: 16, MemoryBytes: 64},
		{Node: node(4), Joined: 7, Cores: 4, MemoryBytes: 32},
		{Node: node(2), Joined: 9},
	}
	for _, tt := range []struct {
		name     string
		capacity Capacity
		bound    []int
		want     []int
	}{
		{"no limit", Capacity{}, nil, []int{5, 3, 1, 4, 2}},
		{"no node", Capacity{Cores: 7}, nil, nil},
		{"one node", Capacity{Nodes: 1}, nil, []int{5}},
		{"one of two that joined together", Capacity{Nodes: 3}, nil, []int{5, 3, 1}},
		{"exactly", Capacity{Cores: 24}, nil, []int{5, 3}},
		{"a smaller one behind does not slip in", Capacity{Cores: 20}, nil, []int{5}},
		{"the tightest limit counts", Capacity{Nodes: 4, Cores: 36, MemoryBytes: 127}, nil, []int{5, 3}},
		{"cores that are not known do not fit", Capacity{Cores: 1000}, nil, []int{5, 3, 1, 4}},
		{"memory that is not known does not fit", Capacity{MemoryBytes: 1000}, nil, []int{5, 3, 1, 4}},
		{"they do where nobody counts", Capacity{Nodes: 5}, nil, []int{5, 3, 1, 4, 2}},
		{"of a license for nodes only those count", Capacity{Nodes: 2}, []int{1, 2, 4}, []int{1, 4}},
	} {
		l := License{Capacity: tt.capacity}
		for _, n := range tt.bound {
			l.Binding.Nodes = append(l.Binding.Nodes, node(n))
		}
		var want []belfry.NodeID
		for _, n := range tt.want {
			want = append(want, node(n))
		}
		if diff := cmp.Diff(want, Covered(l, members)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// A cluster grows and shrinks. Whatever the order in which nodes learn of it
// and however many join in one generation: never more are covered than there
// is room for; joins, and members that leave, take the license from nobody.
func TestCapacityIsNeverOverGranted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := License{Capacity: Capacity{
			Nodes: rapid.SampledFrom([]int64{0, 0, 0, 1, 3, 6}).Draw(t, "nodes"), Cores: rapid.SampledFrom([]int64{0, 8, 20, 40}).Draw(t, "cores"),
			MemoryBytes: rapid.SampledFrom([]int64{0, 0, 30, 100}).Draw(t, "memory"),
		}}
		if rapid.Bool().Draw(t, "bound") {
			for n := range 12 {
				l.Binding.Nodes = append(l.Binding.Nodes, node(3*n+1))
			}
		}
		var members []Member
		var before []belfry.NodeID
		numbers := rapid.Permutation(slices.Collect(func(yield func(int) bool) {
			for n := range 40 {
				if !yield(n + 1) {
					return
				}
			}
		})).Draw(t, "numbers")
		for generation := range rapid.IntRange(2, 12).Draw(t, "generations") {
			leaves := -1
			if len(members) > 0 && rapid.Bool().Draw(t, "leave") {
				leaves = rapid.IntRange(0, len(members)-1).Draw(t, "who")
			}
			if leaves >= 0 {
				gone := members[leaves].Node
				members = slices.Delete(slices.Clone(members), leaves, leaves+1)
				before = slices.DeleteFunc(before, func(id belfry.NodeID) bool { return id == gone })
			}
			for range rapid.IntRange(0, 3).Draw(t, "joins") {
				if len(numbers) == 0 {
					break
				}
				members = append(members, Member{
					Node: node(numbers[0]), Joined: uint64(generation + 1),
					Cores: rapid.Int64Range(0, 16).Draw(t, "its cores"), MemoryBytes: rapid.Int64Range(0, 30).Draw(t, "its memory"),
				})
				numbers = numbers[1:]
			}
			members = rapid.Permutation(members).Draw(t, "as this node lists them")
			covered := Covered(l, members)
			checkRoom(t, l, members, covered)
			for _, id := range before {
				if !slices.Contains(covered, id) {
					t.Fatalf("generation %d takes the license from %s", generation+1, id)
				}
			}
			before = covered
		}
	})
}

// checkRoom adds up what the covered members have.
func checkRoom(t *rapid.T, l License, members []Member, covered []belfry.NodeID) {
	var nodes, cores, memory int64
	for _, m := range members {
		if slices.Contains(covered, m.Node) {
			nodes, cores, memory = nodes+1, cores+m.Cores, memory+m.MemoryBytes
		}
	}
	for _, part := range []struct {
		name      string
		used, max int64
	}{{"nodes", nodes, l.Capacity.Nodes}, {"cores", cores, l.Capacity.Cores}, {"memory", memory, l.Capacity.MemoryBytes}} {
		if part.max > 0 && part.used > part.max {
			t.Fatalf("%d %s are covered; the license is for %d", part.used, part.name, part.max)
		}
	}
	if int(nodes) != len(covered) {
		t.Fatalf("%d covered, %d of them members", len(covered), nodes)
	}
}

// Two nodes join at the same time and each judges for itself: of the one place
// that is left, one has it.
func TestConcurrentJoinsShareOnePlace(t *testing.T) {
	t.Parallel()
	in := scene(t, with(annual(), func(l *License) { l.Capacity.Nodes = 5 }))
	in.Members = append(in.Members, Member{Node: node(9), Joined: 5}, Member{Node: node(8), Joined: 5})
	var states []string
	for _, n := range []int{8, 9, 4} {
		in.Node = node(n)
		states = append(states, Evaluate(in).State.String())
	}
	if diff := cmp.Diff([]string{"unlocked", "over_capacity", "unlocked"}, states); diff != "" {
		t.Errorf("nodes 8 and 9, which joined, and 4, which was there (-want +got):\n%s", diff)
	}
}
