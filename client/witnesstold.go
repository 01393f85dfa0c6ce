package client

import (
	"slices"

	"github.com/belfry-ha/belfry"
)

// told is what a program was told of its resources, by however many witnesses: one
// change is news once.
type told struct {
	known map[string]belfry.ResourceLevel
	held  []map[string]belfry.ResourceLevel // what each witness holds; empty: it has not said
	moves []string                          // ids, newest last
}

func newTold(witnesses int) *told {
	t := &told{known: map[string]belfry.ResourceLevel{}, held: make([]map[string]belfry.ResourceLevel, witnesses)}
	for i := range t.held {
		t.held[i] = map[string]belfry.ResourceLevel{}
	}
	return t
}

// use says that the program has another holder: it is taken to be usable.
func (t *told) use() {
	for name, l := range t.known {
		l.At = belfry.ResourceAvailable
		t.known[name] = l
	}
}

// left forgets what a witness held that is not asked any more.
func (t *told) left(witness int) { clear(t.held[witness]) }

// begin takes what a witness says when it registers; changed is how many changes that
// is from what it was told that the program knows. first: the program did not know the
// resource.
func (t *told) begin(witness int, c *belfry.ResourceChange, changed uint64) (first, news bool) {
	name := string(c.Resource)
	if _, had := t.known[name]; !had {
		t.known[name], t.held[witness][name] = c.Level, c.Level
		return true, true
	}
	if changed == 0 {
		t.held[witness][name] = c.Level
		return false, false
	}
	return false, t.change(witness, c)
}

// change takes a change, and tells whether the program is to hear of it. With several
// witnesses one that doubts says nothing while another one is certain.
func (t *told) change(witness int, c *belfry.ResourceChange) (news bool) {
	name := string(c.Resource)
	t.held[witness][name] = c.Level
	known, had := t.known[name]
	if len(t.held) == 1 || !had {
		t.known[name] = c.Level
		return true
	}
	if c.Level.State == belfry.ResourceUnknown && t.certain(witness, name) {
		return false
	}
	if !c.HasAt {
		known.At = c.Level.At
	}
	n := known.News(c.Level)
	if n == 0 {
		return false
	}
	c.Count, c.Flapped = n, known.State == c.Level.State && known.At == c.Level.At
	t.known[name] = c.Level
	return true
}

// certain tells whether another witness knows.
func (t *told) certain(witness int, name string) bool {
	for i, held := range t.held {
		if l, ok := held[name]; ok && i != witness && l.State != belfry.ResourceUnknown {
			return true
		}
	}
	return false
}

// move tells whether a move is one that the program has not heard of.
func (t *told) move(id string) bool {
	if slices.Contains(t.moves, id) {
		return false
	}
	t.moves = append(t.moves, id)
	t.moves = t.moves[max(0, len(t.moves)-movesSeen):]
	return true
}

// lastMove is the newest; empty: none.
func (t *told) lastMove() string {
	if len(t.moves) == 0 {
		return ""
	}
	return t.moves[len(t.moves)-1]
}
