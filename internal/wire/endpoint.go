package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// Config is what an Endpoint is made with.
type Config struct {
	Cluster     belfry.ClusterID
	Self        belfry.NodeID
	Number      belfry.NodeNumber  // of this node; not zero
	Incarnation belfry.Incarnation // of this start, already on disk; not zero
	Boot        belfry.Boot        // drawn for this start; not zero
	Epoch       uint32             // the present one
	// Secrets holds that of Epoch at least; those of the epochs before and
	// after if they are known. The one before is open for Grace from the start.
	Secrets map[uint32]Secret
}

// Validate names all fields that are wrong; it wraps ErrUsage.
func (c Config) Validate() error {
	var wrong []error
	check := func(ok bool, text string) {
		if !ok {
			wrong = append(wrong, fmt.Errorf("%w: %s", belfry.ErrUsage, text))
		}
	}
	check(!c.Cluster.IsZero(), "no cluster id")
	check(!c.Self.IsZero(), "no node id")
	check(c.Number != 0, "node number 0; 1 to 65535")
	check(c.Incarnation != 0, "incarnation 0; it counts from 1")
	check(c.Boot != 0, "boot 0; a random number that is not zero")
	_, ok := c.Secrets[c.Epoch]
	check(ok, fmt.Sprintf("no secret of epoch %d; nothing is sent unsealed", c.Epoch))
	return errors.Join(wrong...)
}

// A Member is one row of the member table.
type Member struct {
	ID     belfry.NodeID
	Number belfry.NodeNumber // unique among the members; not zero
}

// An Endpoint seals and opens the datagrams of one agent. It is not safe for
// concurrent use; its transport holds the lock. It reads no clock; that `now`
// falls by the time that callers wait for the lock does no harm.
type Endpoint struct {
	self        belfry.NodeID
	number      belfry.NodeNumber
	incarnation belfry.Incarnation
	boot        belfry.Boot
	tag         byte // first byte of SHA-256 of the cluster UUID
	epochs      epochs

	peers    map[belfry.NodeID]*peer
	byNumber map[belfry.NodeNumber]*peer // members only
	wants    []belfry.NodeID
	spent    bool // see Spent

	// Scratch that is reused, so that a forgery costs no allocation.
	nonce [12]byte // the first 8 bytes stay zero
	plain [MaxReceive]byte
}

// New makes an Endpoint without peers. It wraps ErrUsage.
func New(cfg Config, now time.Time) (*Endpoint, error) {
	if err := cfg.Validate(); err != nil {
		return nil, &belfry.Error{Op: "wire.new", Node: cfg.Self, Err: err}
	}
	digest := sha256.Sum256(cfg.Cluster[:])
	e := &Endpoint{
		self: cfg.Self, number: cfg.Number, incarnation: cfg.Incarnation, boot: cfg.Boot, tag: digest[0],
		epochs: epochs{
			cluster: cfg.Cluster, current: cfg.Epoch,
			until: now.Add(Grace), prk: map[uint32][]byte{},
		},
		peers:    map[belfry.NodeID]*peer{},
		byNumber: map[belfry.NodeNumber]*peer{},
	}
	for epoch, secret := range cfg.Secrets { // the order can not be seen
		if err := e.epochs.add(epoch, secret); err != nil {
			return nil, &belfry.Error{Op: "wire.new", Node: cfg.Self, Err: err}
		}
	}
	return e, nil
}

// SetMembers replaces the member table: from now on datagrams of those in it
// are opened and no others. This node's own row is optional and gives its
// number. What is known of a member that leaves and returns is kept. It wraps
// ErrUsage if a node or a number is there twice, and changes nothing then.
func (e *Endpoint) SetMembers(members []Member) error {
	ids := make(map[belfry.NodeID]bool, len(members))
	numbers := make(map[belfry.NodeNumber]bool, len(members))
	for _, m := range members {
		if m.ID.IsZero() || m.Number == 0 || ids[m.ID] || numbers[m.Number] {
			return &belfry.Error{
				Op: "wire.members", Node: m.ID,
				Err: fmt.Errorf("%w: node number %d; node and number must be there once and not be zero", belfry.ErrUsage, m.Number),
			}
		}
		ids[m.ID], numbers[m.Number] = true, true
	}
	for _, p := range e.peers { // the order can not be seen
		p.member = false
	}
	clear(e.byNumber)
	for _, m := range members {
		if m.ID == e.self {
			e.number = m.Number
			continue
		}
		p := e.peers[m.ID]
		if p == nil {
			p = &peer{id: m.ID}
			e.peers[m.ID] = p
		}
		p.number, p.member = m.Number, true
		e.byNumber[m.Number] = p
	}
	for _, p := range e.peers { // the order can not be seen
		if !p.member {
			p.forgetKeys()
		}
	}
	return nil
}

// Learn takes the secret of the epoch after the present one (or of the one
// before, or of the present one again). Datagrams of it are opened at once.
// It wraps ErrUsage for any other epoch.
func (e *Endpoint) Learn(epoch uint32, secret Secret) error {
	if err := e.epochs.add(epoch, secret); err != nil {
		return &belfry.Error{Op: "wire.learn", Err: err}
	}
	return nil
}

// Rotate sends under the next epoch from now on and keeps the one before open
// for receiving during grace: Grace, or GraceRemoval after a removal. The same
// epoch again changes nothing. It wraps ErrNotFound if the secret was not
// learned, ErrUsage if an epoch would be left out.
func (e *Endpoint) Rotate(now time.Time, epoch uint32, grace time.Duration) error {
	if err := e.epochs.rotate(epoch, now.Add(grace)); err != nil {
		return &belfry.Error{Op: "wire.rotate", Err: err}
	}
	return nil
}

// Adopt makes an epoch the present one, wherever it is from here, and forgets
// all other secrets: this node slept through changes, or two halves of the
// cluster have each made an epoch and this is the half that gives way. What was
// received stays received, and no counter starts anew: going back to a secret
// that was in use repeats no nonce.
func (e *Endpoint) Adopt(epoch uint32, secret Secret) {
	e.epochs.adopt(epoch, secret)
	for _, p := range e.peers { // the order can not be seen
		p.forgetKeys()
	}
}

// Reboot takes a new boot, as a machine must that was resumed from a snapshot,
// or that has used up a counter: all keys and counters start anew. It wraps
// ErrUsage if the boot is zero or the present one.
func (e *Endpoint) Reboot(boot belfry.Boot) error {
	if boot == 0 || boot == e.boot {
		return &belfry.Error{
			Op:  "wire.reboot",
			Err: fmt.Errorf("%w: boot %08x; another random number that is not zero", belfry.ErrUsage, uint32(boot)),
		}
	}
	e.boot, e.spent = boot, false
	for _, p := range e.peers { // the order can not be seen
		p.reboot()
	}
	return nil
}

// Spent tells that a counter is near its end: Reboot is due soon, and must
// come within the next million datagrams to that member.
func (e *Endpoint) Spent() bool { return e.spent }

// Wants takes the list of members that sent something authentic and did not
// know my present boot: each should be sent a PROBE, which will show it. A
// member comes back at most 10 times per second.
func (e *Endpoint) Wants() []belfry.NodeID {
	wants := e.wants
	e.wants = nil
	for _, id := range wants {
		e.peers[id].wanted = false
	}
	return wants
}

func (e *Endpoint) want(now time.Time, p *peer) {
	if p.wanted || !p.wished.IsZero() && now.Sub(p.wished) < wishEvery {
		return
	}
	p.wished, p.wanted = now, true
	e.wants = append(e.wants, p.id)
}
