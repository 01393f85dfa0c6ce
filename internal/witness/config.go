package witness

import (
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// Config holds the values of a Machine.
type Config struct {
	Node        belfry.NodeID
	Name        string // of the node
	Incarnation belfry.Incarnation

	// KeepAlive is how long a wait lasts without news before it is answered with
	// nothing, unless the wait says otherwise; 1 s to 60 s.
	KeepAlive time.Duration
	// Unused is how long a registration lives that nobody waits for; 1 s to 1 h.
	Unused time.Duration
	// Registrations is the most of all clients together; PerPrincipal of one, and
	// PerSource from one address or local user. At least 1.
	Registrations, PerPrincipal, PerSource int
	// Off: no client is served here. All else goes on: this node still says how
	// what it holds itself is.
	Off bool

	// CheckEvent says whether a class and a subject name one event that can be a
	// resource; its errors wrap sentinels. Nil: all can.
	CheckEvent func(class belfry.Class, subject string) error
}

// Default is what holds where nothing else is said; the node is left out.
func Default() Config {
	return Config{KeepAlive: 5 * time.Second, Unused: 30 * time.Second, Registrations: 20_000, PerPrincipal: 10_000, PerSource: 10_000}
}

// Validate names every field that is wrong; the error wraps ErrUsage.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{belfry.ErrUsage}, args...)...))
	}
	if c.KeepAlive < time.Second || c.KeepAlive > time.Minute {
		fault("keep-alive %s; from 1s to 60s", c.KeepAlive)
	}
	if c.Unused < time.Second || c.Unused > time.Hour {
		fault("unused for %s; from 1s to 1h", c.Unused)
	}
	if c.Registrations < 1 || c.PerPrincipal < 1 || c.PerSource < 1 {
		fault("%d registrations, %d of one client, %d from one address; at least 1", c.Registrations, c.PerPrincipal, c.PerSource)
	}
	return errors.Join(faults...)
}

// The times and limits that nobody sets (witness.md 2 to 5).
const (
	// answerHold is how long the answer of a registration may wait for the word of
	// the holders, and how long what another witness found unavailable stays so
	// where this one holds otherwise: its own evidence may be on its way.
	answerHold = 500 * time.Millisecond
	// moreHolders is the wait for others once a first holder has spoken of a
	// resource whose holders nobody declared.
	moreHolders = 50 * time.Millisecond
	// firstReport is how long a holder that comes back may be silent until its old
	// state counts, or none.
	firstReport = 2 * time.Second
	// coveredHold is what a holder whose reports flow again has for those that it
	// could not send before.
	coveredHold = 100 * time.Millisecond
	// movesKept is how long a move can be asked for again.
	movesKept = time.Minute

	maxResources = 64 // of one registration
	maxWaits     = 4  // of one registration at a time
	maxName      = 255
	maxKnown     = 65_536 // resources that there are at one time
	maxOwn       = 4_096  // that this node was asked for in one incarnation
	drainEvery   = 20 * time.Millisecond
	drainRate    = 50 // clients a second, where nobody says more
	// drainHead is what a drain that the configuration begins leaves to the call
	// that came with it, which knows the rate.
	drainHead = 2 * time.Second

	// probeWait is how long a probe has to answer for a holder whose agent is down;
	// until then nobody knows (witness.md 2).
	probeWait = 500 * time.Millisecond

	// consulted is how long other witnesses are asked how they do after a client
	// has asked for them, and peersWait how long its first question waits for that.
	consulted = 10 * time.Minute
	peersWait = 250 * time.Millisecond
	// standingEvery is the shortest time between two words on how many are
	// registered here.
	standingEvery = time.Second
)
