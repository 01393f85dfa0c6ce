package license

import (
	"bytes"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// Admit tells whether a file may be added to the document: what `license
// unlock` asks before anything is written or sent, so that what is refused
// leaves no trace (P1). The text is as [Tidy] gives it, and goes into the
// document as it is. Of in, Product and Files are those before; Product may
// be empty, and else the license must be of it.
//
// Admitted is what holds somewhere in this cluster now or later: a license
// that begins later, that is bound to another member, or that has no room for
// this node, as well. Errors: those of [Parse]; ErrPermission (signature,
// another product or cluster, revoked, ended, made for older releases);
// ErrStale (another license has taken its place); ErrExist; ErrNotMember.
func Admit(text []byte, in Input) (License, error) {
	f, err := Parse(text)
	if err != nil {
		return License{}, err
	}
	l, err := f.Verify(in.Issuers)
	if err != nil {
		return License{}, err
	}
	refuse := func(sentinel error, reason string) (License, error) {
		return License{}, fail("unlock", string(l.ID), fmt.Errorf("%w: %s", sentinel, reason))
	}
	if in.Product != "" && in.Product != l.Product {
		return refuse(belfry.ErrPermission, fmt.Sprintf("is for %s; want a license of %s", l.Product, in.Product))
	}
	for _, other := range in.Files {
		g, err := Parse(other)
		if err != nil || g.Unproven().ID != l.ID || g.Unproven().Product != l.Product {
			continue
		}
		if bytes.Equal(text, other) {
			return refuse(belfry.ErrExist, "is unlocked already; nothing is left to do")
		}
		return refuse(belfry.ErrExist, "another file of this id is there; remove it with `belfry license remove` first")
	}
	in.Product, in.Files = l.Product, append([][]byte{text}, in.Files...)
	clock, _ := Clock(in.Now, in.Mark)
	c := &in.candidates()[0]
	c.here = l.Binding.holdsIn(in.Cluster, in.Members) // on another node is good enough
	switch why := in.judge(c, clock); why {
	case noMember:
		return refuse(belfry.ErrNotMember, in.reason(c, why, clock))
	case superseded:
		return refuse(belfry.ErrStale, in.reason(c, why, clock))
	case elsewhere, revoked, tooNew, ended:
		return refuse(belfry.ErrPermission, in.reason(c, why, clock))
	}
	return l, nil
}
