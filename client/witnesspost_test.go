package client

import (
	"errors"
	"testing"

	"github.com/belfry-ha/belfry"
)

// posted is a witness of a program that is registered twice; what it says has room.
func posted() (w *Witness, first, second *post) {
	w = &Witness{events: make(chan WitnessEvent, 4), done: make(chan struct{}), opened: make(chan error, 2), began: true}
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
