package repository

import (
	"errors"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

// TestAGenerationComesFromTheOneThatIsHeld: who was away for some generations
// takes none that did not come from the one that it has.
func TestAGenerationComesFromTheOneThatIsHeld(t *testing.T) {
	t.Parallel()
	w := newTown(t, []string{"a", "b", "c"})
	a := w.node("a")
	from := w.boot1(t)
	then := w.follow(from.Document, a, func(d *Document) { d.Tunables = map[string]string{"allowance": "3s"} })
	for _, c := range []struct {
		name string
		edit func(*Document)
		want string // of the error; empty: it is taken
	}{
		{"two later", func(*Document) {}, ""},
		{"another past", func(d *Document) {
			d.History[1].Hash[0]++
		}, "history: wrong use: generation 1 is not the one that this node holds"},
		{"another cluster", func(d *Document) { d.Cluster.UUID[0]++ }, "cluster.uuid"},
		{"another key", func(d *Document) {
			d.Nodes = append([]Node(nil), d.Nodes...)
			d.Nodes[1].Key = append([]byte{99}, d.Nodes[1].Key[1:]...)
		}, "nodes[1]: wrong use: has another number or key"},
		{"another slot", func(d *Document) {
			d.Nodes = append([]Node(nil), d.Nodes...)
			d.Nodes[1].Slot = new(7)
		}, "nodes[1].slot"},
		{"another repository", func(d *Document) { d.Repository.UUID[0]++ }, "repository: wrong use: file d1"},
	} {
		to := w.follow(then, a, func(d *Document) { d.Tunables = map[string]string{"allowance": "4s"} })
		to.History = append([]Entry(nil), to.History...)
		c.edit(&to)
		err := descends(&from, &to)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, belfry.ErrUsage)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	former := FormerNode{ID: belfry.NodeID{0xa0, 9}, Number: 9, Key: testNode(9, "z").Key}
	from.Document.Former = []FormerNode{former}
	other := former
	other.ID[1] = 8
	to := w.follow(then, a, func(d *Document) { d.Former = []FormerNode{other} })
	to.History[1].Hash = from.Digest
	if err := descends(&from, &to); err == nil || !strings.Contains(err.Error(), "former[0]: wrong use: is another one") {
		t.Errorf("another former node: %v", err)
	}
}

// boot1 is the first generation as every node holds it.
func (w *town) boot1(t *testing.T) Held {
	t.Helper()
	held, err := HeldOf(w.values[0].Version, w.values[0].Document)
	if err != nil {
		t.Fatal(err)
	}
	return held
}
