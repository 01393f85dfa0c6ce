package transport

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/belfry-ha/belfry"
)

// Of two nodes one dials, and the other one may be alone in knowing that their
// stream is gone: its kernel gave up while the network was cut, and could not say
// so across the cut. The end that dials sends nothing on an idle stream, and would
// believe in it for ever. So whoever waits to be dialled knocks: it opens a
// connection, says hello, is refused as ever, and is dialled.

// knockFirst is what a peer has to dial by itself: after a restart, or a goodbye.
const knockFirst = 500 * time.Millisecond

// knockLoop knocks while there is no stream, from the end of the first one, or
// from Wake on, until ctx ends. A peer that is off is knocked at as often as it
// would be dialled.
func (r *remote) knockLoop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for turn := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			timer.Reset(knockFirst)
			continue
		case <-timer.C:
		}
		if r.session() != nil {
			continue
		}
		r.log.Debug("knocked", "answer", r.knock(ctx, turn))
		turn++
		timer.Reset(backoffLast*3/4 + rand.N(backoffLast/2))
	}
}

// knock returns what the peer answered, or why it did not.
func (r *remote) knock(ctx context.Context, turn int) error {
	conn, cc, err := r.reach(ctx, turn)
	if err != nil {
		return err
	}
	defer func() { _, _ = cc.Close(), conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, handshakeFirst)
	defer cancel()
	if _, err = r.greet(ctx, cc, hostOf(conn.RemoteAddr()), cancel); err == nil {
		err = fmt.Errorf("%w: the peer has the higher id here and the lower one there", belfry.ErrUsage)
	}
	return err
}

// knocked is told of a peer that waits to be dialled and has no stream. What this
// node takes for the stream to it is gone, unless it was dialled meanwhile.
func (r *remote) knocked(hello Hello) error {
	if err := r.admit(hello); err != nil {
		r.notAdmitted(err)
		return err
	}
	if s := r.session(); s != nil && time.Since(s.began) > knockFirst {
		s.replaced(hello)
	}
	r.poke()
	return fmt.Errorf("%w: node %s dials; of two nodes the one with the lower id does, and it will now", belfry.ErrUsage, r.id)
}
