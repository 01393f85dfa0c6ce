package numbered

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A table is a map whose numbers come in order.
func TestATableIsAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var got Table[int]
		want := map[uint64]int{}
		number := rapid.OneOf(rapid.Uint64Range(0, 70), rapid.Uint64Max(1<<20), rapid.Uint64())
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			n := number.Draw(t, "number")
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				v := rapid.IntRange(0, 3).Draw(t, "value")
				got.Set(n, v)
				want[n] = v
			case 1:
				got.Delete(n)
				delete(want, n)
			}
			v, ok := got.Get(n)
			if w, there := want[n]; v != w || ok != there || got.Len() != len(want) {
				t.Fatalf("%d: %d, %t of %d; want %d, %t of %d", n, v, ok, got.Len(), w, there, len(want))
			}
		}
		var order []uint64
		for n, v := range got.All() {
			order = append(order, n)
			if v != want[n] {
				t.Fatalf("%d: %d, want %d", n, v, want[n])
			}
		}
		if !slices.Equal(order, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("all are %v", order)
		}
	})
}

// What has gone leaves no page behind.
func TestAnEmptyPageGoes(t *testing.T) {
	t.Parallel()
	var table Table[*int]
	for n := range uint64(1000) {
		table.Set(n*n, new(int))
	}
	for n := range uint64(1000) {
		table.Delete(n * n)
	}
	if table.Len() != 0 || len(table.pages) != 0 || table.last != nil {
		t.Errorf("%d values, %d pages are left", table.Len(), len(table.pages))
	}
}
