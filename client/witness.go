package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A WitnessConfig says what a program depends on, and where to ask.
type WitnessConfig struct {
	// Seeds are targets of agents, as Dial takes them; at least one. Any agent
	// knows all witnesses.
	Seeds []string
	// TLS is for agents of other machines. With it the addresses that the cluster
	// names are dialled; without it only the seeds are.
	TLS *tls.Config
	// Resources are 1 to 64: node/a, address/10.0.0.50, service/db.
	Resources []string
	// At is the node, or the address of one, that the program uses; empty: none in
	// particular. The witness is then on another node, if there is one.
	At string
	// Name is what listings call the program; at most 255 bytes.
	Name string
	// Eager: an unreachable holder counts as unavailable.
	Eager bool
	// AllowMissing: resources that nobody knows are unknown, and no error.
	AllowMissing bool
	// KeepAlive is how long a witness may be silent; 1 s to 60 s; zero: 5 s. One
	// that says nothing for twice as long and a second is left.
	KeepAlive time.Duration
	// Redundancy is at how many witnesses at a time the program is registered, 1 or
	// 2; zero: 1. With 2 nothing is late when a witness dies: the other one tells. Each
	// change is still told once, and where one doubts the word of the other counts.
	Redundancy int
	// Delegate has the first agent that answers register at the best witness, in the
	// same call that says which witnesses there are: the registration is there before
	// the witness has been dialled. It takes TLS, and changes nothing without.
	Delegate bool
}

// WitnessEventKind says what a witness event is about.
type WitnessEventKind uint8

// The kinds.
const (
	WitnessState   WitnessEventKind = iota // what a resource is at the beginning
	WitnessChange                          // a resource is otherwise than before
	WitnessMove                            // the program is asked to go elsewhere
	WitnessAt                              // registered at Node
	WitnessMissing                         // no witness can be reached, for the reason in Err; it goes on trying
)

// A WitnessEvent is what a Witness has to say.
type WitnessEvent struct {
	Kind   WitnessEventKind
	Time   time.Time
	Node   string // name of the witness
	Change belfry.ResourceChange
	Err    error
}

// times of the client's part (witness.md 5).
const (
	witnessKeepAlive = 5 * time.Second
	seedWait         = time.Second // for local agents to answer which witnesses there are
	seedStagger      = 250 * time.Millisecond
	registerWait     = 3 * time.Second  // for one witness to register
	movesSeen        = 16               // ids that are remembered
	mostWitnesses    = 2                // at a time
	longestKeepAlive = 60 * time.Second // that a witness takes
)

// A Witness tells of the resources that a program depends on. It registers at
// the first witness that answers, goes to the next one by itself when that one
// dies, and says each change once, whichever witness it comes from.
//
// Next is for one caller at a time; the other methods are safe for concurrent
// use.
type Witness struct {
	config WitnessConfig
	cancel context.CancelFunc
	events chan WitnessEvent
	opened chan error // the first outcome of each post; has room
	dial   func(ctx context.Context, target string) (*Client, error)
	done   chan struct{} // closed when it is over

	telling sync.Mutex // keeps the order of what is told; before mu
	told    *told      // of the program
	meant   string     // the holder for which told counts

	mu      sync.Mutex
	posts   []*post
	at      string            // what the program uses now
	seeds   map[string]string // targets by node, of those that answered once
	began   bool              // some post has registered once
	missing bool              // the program was told so
	err     error             // of Next, when it is over
}

// A post is the place of one registration: at one witness, and then at the next one.
type post struct {
	*Witness
	number int
	key    string
	holds  string // target at which the registration may be; for the post's goroutine

	// Of run alone.
	misses int        // rounds in a row in which no witness was reached
	short  int        // stays in a row that ended soon
	asked  *askedSeed // that answered in this round; nil: none, or its connection is used

	// Guarded by Witness.mu.
	tried string                  // node that it is at, or tries; empty: none
	node  string                  // node that it is registered at; empty: none
	leave context.CancelCauseFunc // ends the present stay; nil: there is none
}

// OpenWitness registers, and returns when that has succeeded once. ctx bounds the
// opening only; Close ends it.
//
// ErrUsage for what makes no sense, ErrNotFound for a resource that nobody knows,
// ErrPermission where the program may not register, ErrLimit where there are too
// many, ErrNoAgent if no seed answers before ctx ends.
func OpenWitness(ctx context.Context, config WitnessConfig) (*Witness, error) {
	switch {
	case len(config.Seeds) == 0:
		return nil, fmt.Errorf("%w: no seed; name the target of an agent", belfry.ErrUsage)
	case config.KeepAlive == 0:
		config.KeepAlive = witnessKeepAlive
	case config.KeepAlive < time.Second || config.KeepAlive > longestKeepAlive:
		return nil, fmt.Errorf("%w: keep-alive %s; 1s to %s", belfry.ErrUsage, config.KeepAlive, longestKeepAlive)
	}
	if config.Redundancy < 0 || config.Redundancy > mostWitnesses {
		return nil, fmt.Errorf("%w: redundancy %d; 1 or %d", belfry.ErrUsage, config.Redundancy, mostWitnesses)
	}
	config.Redundancy = max(1, config.Redundancy)
	for i, text := range config.Resources {
		name, err := belfry.ParseResource(text)
		if err != nil {
			return nil, err
		}
		config.Resources = slices.Clone(config.Resources) // the caller's stays as it is
		config.Resources[i] = string(name)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &Witness{
		config: config, cancel: cancel, dial: config.dial, events: make(chan WitnessEvent), done: make(chan struct{}), at: config.At, meant: config.At,
		opened: make(chan error, config.Redundancy), told: newTold(config.Redundancy), seeds: map[string]string{}, err: net.ErrClosed,
	}
	w.run(running)
	select {
	case err := <-w.opened:
		if err != nil {
			w.Close()
			return nil, err
		}
		return w, nil
	case <-ctx.Done():
		w.Close()
		return nil, errors.Join(ctx.Err(), w.lastError())
	}
}

// run starts the posts.
func (w *Witness) run(ctx context.Context) {
	var group sync.WaitGroup
	for i := range w.config.Redundancy {
		var key [16]byte
		rand.Read(key[:])
		p := &post{Witness: w, number: i, key: hex.EncodeToString(key[:])}
		w.posts = append(w.posts, p)
	}
	for _, p := range w.posts {
		group.Go(func() { p.run(ctx) })
	}
	go func() {
		group.Wait()
		close(w.done)
	}()
}

// Next waits for what there is to say. The states at the beginning come first.
// net.ErrClosed after Close.
func (w *Witness) Next(ctx context.Context) (WitnessEvent, error) {
	select {
	case e := <-w.events:
		return e, nil
	case <-w.done:
		return WitnessEvent{}, w.lastError()
	case <-ctx.Done():
		return WitnessEvent{}, ctx.Err()
	}
}

// Node is the name of the witness, of two the first; empty while there is none.
func (w *Witness) Node() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.posts {
		if p.node != "" {
			return p.node
		}
	}
	return ""
}

// Use says which node, or address of one, the program uses from now on. It is
// taken to be usable there until the witness says otherwise.
func (w *Witness) Use(at string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == at {
		return
	}
	w.at = at
	for _, p := range w.posts {
		if p.leave != nil {
			p.leave(errRenewed)
		}
	}
}

// Close ends the registration, also one that is being made. It waits for the witness
// to have heard of it, a second or two at most.
func (w *Witness) Close() {
	w.cancel()
	<-w.done
}

func (w *Witness) lastError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// A candidate is a witness that may be tried.
type candidate struct {
	node   string
	target string
}

// run goes from witness to witness until ctx ends.
func (p *post) run(ctx context.Context) {
	defer p.goodbye(ctx)
	defer p.dismiss()
	var next []candidate // known from the last answer, without asking a seed
	for ctx.Err() == nil {
		candidates := next
		next = nil
		var err error
		discovered := len(candidates) == 0
		var delegated *belfryv1.RegisterClientResponse
		if discovered {
			candidates, delegated, err = p.find(ctx)
		}
		for _, c := range candidates {
			if !p.try(c.node) {
				continue // the other post is there
			}
			var registered *belfryv1.RegisterClientResponse
			if delegated.GetNodeName() != c.node {
				delegated = nil // it is made here, or again
			} else if delegated != nil {
				p.holds = c.target
			}
			begun := time.Now()
			registered, err = p.stay(ctx, c, delegated)
			delegated = nil
			p.try("")
			if ctx.Err() != nil {
				return
			}
			if registered != nil || errors.Is(err, errRenewed) {
				p.misses = 0
				p.stayed(ctx, time.Since(begun), err)
				next = p.others(registered.GetWitnesses(), c)
				if errors.Is(err, errRenewed) {
					next = append([]candidate{c}, next...)
				}
				break
			}
			if p.hopeless(err) {
				return
			}
		}
		p.dismiss()
		if len(next) > 0 || !discovered {
			continue // there are others, or a seed knows some
		}
		p.miss(ctx, err)
		pause(ctx, p.misses)
		p.misses++
	}
}

// pause waits before the next attempt, with full jitter: up to backoffMin after the
// first failure, which doubles with each one more up to backoffMax.
func pause(ctx context.Context, before int) {
	most := min(backoffMin<<min(before, 16), backoffMax)
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(mathrand.Int64N(int64(most))) + time.Millisecond):
	}
}

// stayed waits where one witness after the other registers the program and ends that
// soon: it would else go round them as fast as they answer. After the first the next
// one is tried at once.
func (p *post) stayed(ctx context.Context, d time.Duration, err error) {
	if d >= backoffMax || errors.Is(err, errRenewed) {
		p.short = 0
		return
	}
	if p.short++; p.short > 1 {
		pause(ctx, p.short-2)
	}
}

// patience is how long an agent may take. It grows to four times of what it is at
// first: where thousands come at once all are slow, and if each gave up before it is
// served the agents would be busy with those who have gone.
func (p *post) patience(first time.Duration) time.Duration { return first << min(p.misses, 2) }

// try takes a node for this post; false: the other one has it.
func (p *post) try(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if node != "" && slices.ContainsFunc(p.posts, func(o *post) bool { return o != p && o.tried == node }) {
		return false
	}
	p.tried = node
	return true
}

// hopeless tells whether the first registration of all can not succeed anywhere.
func (p *post) hopeless(err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began || !conclusive(err) {
		return false
	}
	p.err = err
	p.opened <- err
	return true
}

// miss says once that no witness can be reached by any post.
func (p *post) miss(ctx context.Context, err error) {
	if err == nil {
		err = fmt.Errorf("%w: no witness answers", belfry.ErrNoAgent)
	}
	p.telling.Lock()
	defer p.telling.Unlock()
	p.mu.Lock()
	// Another one that is on its way says it itself, if there is none for it either.
	alone := !slices.ContainsFunc(p.posts, func(o *post) bool { return o.node != "" || o != p && o.tried != "" })
	if !p.began {
		p.err = err // why the opening takes too long
	}
	tell := alone && p.began && !p.missing
	p.missing = p.missing || tell
	p.mu.Unlock()
	if tell {
		p.say(ctx, WitnessEvent{Kind: WitnessMissing, Err: err})
	}
}

// conclusive tells whether a first registration can not succeed elsewhere either.
func conclusive(err error) bool {
	return errors.Is(err, belfry.ErrUsage) || errors.Is(err, belfry.ErrPermission) || errors.Is(err, belfry.ErrNotFound)
}

func (w *Witness) say(ctx context.Context, e WitnessEvent) bool {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	select {
	case w.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c WitnessConfig) dial(ctx context.Context, target string) (*Client, error) {
	var opts []Option
	if c.TLS != nil {
		opts = append(opts, WithTLS(c.TLS))
	}
	return Dial(ctx, target, opts...)
}
