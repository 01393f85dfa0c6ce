package link_test

import (
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer/link"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func TestLinksConform(t *testing.T) { // not parallel: it counts goroutines
	p := link.New(nil)
	p.Update(view("b", "net1", "net2"))
	producertest.Run(t, p, producertest.Fixture{
		Class:     link.Class,
		Subject:   "b/net1",
		Cause:     func() { p.LinkChanged(state("b", "net1", belfry.LinkDown), belfry.LinkUp) },
		Undo:      func() { p.LinkChanged(state("b", "net1", belfry.LinkUp), belfry.LinkDown) },
		Absent:    "c/net1",
		Malformed: "b",
		Overflow: func() {
			for range 10_000 {
				p.LinkChanged(state("b", "net1", belfry.LinkUp), belfry.LinkUp)
			}
		},
	})
}

func TestContactsConform(t *testing.T) { // not parallel: it counts goroutines
	p := link.New(nil)
	p.Update(view("b", "net1"))
	producertest.Run(t, p, producertest.Fixture{
		Class:     link.Contact,
		Subject:   "b",
		Cause:     func() { p.ContactChanged(link.ContactState{Peer: "b", State: belfry.LinkDown}, belfry.LinkUp) },
		Undo:      func() { p.ContactChanged(link.ContactState{Peer: "b", State: belfry.LinkUp}, belfry.LinkDown) },
		Absent:    "c",
		Malformed: "b/net1",
	})
}
