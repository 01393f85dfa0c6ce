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
	seedWait         = time.Second      // for one agent to answer which witnesses there are
	registerWait     = 3 * time.Second  // for one witness to register
	movesSeen        = 16               // ids that are remembered
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
	key    string
	cancel context.CancelFunc
	events chan WitnessEvent
	done   chan struct{} // closed when it is over; err is set before
	err    error

	// What the program was told; the goroutine's own.
	known map[string]belfry.ResourceLevel
	moves []string          // newest last
	seeds map[string]string // targets by node, of those that answered once

	mu    sync.Mutex
	node  string                  // of the witness; empty: none
	at    string                  // what the program uses now
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
	for i, text := range config.Resources {
		name, err := belfry.ParseResource(text)
		if err != nil {
			return nil, err
		}
		config.Resources = slices.Clone(config.Resources) // the caller's stays as it is
		config.Resources[i] = string(name)
	}
	var key [16]byte
	rand.Read(key[:])
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &Witness{
		config: config, key: hex.EncodeToString(key[:]), cancel: cancel,
		events: make(chan WitnessEvent), done: make(chan struct{}), at: config.At, known: map[string]belfry.ResourceLevel{}, seeds: map[string]string{},
	}
	opened := make(chan error, 1)
	go w.run(running, opened)
	select {
	case err := <-opened:
		if err != nil {
			cancel()
			<-w.done
			return nil, err
		}
		return w, nil
	case <-ctx.Done():
		cancel()
		<-w.done
		return nil, errors.Join(ctx.Err(), w.err)
	}
}

// Next waits for what there is to say. The states at the beginning come first.
// net.ErrClosed after Close.
func (w *Witness) Next(ctx context.Context) (WitnessEvent, error) {
	select {
	case e := <-w.events:
		return e, nil
	case <-w.done:
		return WitnessEvent{}, w.err
	case <-ctx.Done():
		return WitnessEvent{}, ctx.Err()
	}
}

// Node is the name of the witness; empty while there is none.
func (w *Witness) Node() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.node
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
	if w.leave != nil {
		w.leave(errRenewed)
	}
}

// Close ends the registration. It waits a second at most for the witness to have
// heard of it.
func (w *Witness) Close() {
	w.cancel()
	<-w.done
}

func (w *Witness) setNode(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.node = name
}

// A candidate is a witness that may be tried.
type candidate struct {
	node   string
	target string
}

// run goes from witness to witness until ctx ends.
func (w *Witness) run(ctx context.Context, opened chan<- error) {
	defer close(w.done)
	w.err = net.ErrClosed
	var next []candidate // known from the last answer, without asking a seed
	delay, missing := backoffMin, false
	for ctx.Err() == nil {
		candidates := next
		next = nil
		var err error
		discovered := len(candidates) == 0
		if discovered {
			candidates, err = w.discover(ctx)
		}
		for _, c := range candidates {
			var registered *belfryv1.RegisterClientResponse
			registered, err = w.stay(ctx, c, opened)
			if ctx.Err() != nil {
				return
			}
			if registered != nil {
				opened, delay, missing = nil, backoffMin, false
				next = w.others(registered.GetWitnesses(), c)
				if errors.Is(err, errRenewed) {
					next = append([]candidate{c}, next...)
				}
				break
			}
			if opened != nil && conclusive(err) {
				opened <- err
				w.err = err
				return
			}
		}
		if len(next) > 0 || !discovered {
			continue // there are others, or a seed knows some
		}
		if err == nil {
			err = fmt.Errorf("%w: no witness answers", belfry.ErrNoAgent)
		}
		w.err = err
		if opened == nil && !missing {
			missing = true
			w.say(ctx, WitnessEvent{Kind: WitnessMissing, Err: err})
		}
		wait := time.Duration(mathrand.Int64N(int64(delay))) + time.Millisecond
		delay = min(2*delay, backoffMax)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		w.err = net.ErrClosed
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

func (w *Witness) dial(ctx context.Context, target string) (*Client, error) {
	var opts []Option
	if w.config.TLS != nil {
		opts = append(opts, WithTLS(w.config.TLS))
	}
	return Dial(ctx, target, opts...)
}

// discover asks all seeds at once and takes the first ranking that comes. Without
// certificates the others only say which node they are.
func (w *Witness) discover(ctx context.Context) ([]candidate, error) {
	type answer struct {
		seed string
		info *belfryv1.GetNodeInformationResponse
		err  error
	}
	answers := make(chan answer, len(w.config.Seeds))
	ctx, cancel := context.WithTimeout(ctx, seedWait)
	defer cancel()
	for _, seed := range w.config.Seeds {
		go func() {
			c, err := w.dial(ctx, seed)
			if err != nil {
				answers <- answer{seed, nil, err}
				return
			}
			defer c.Close()
			info, err := c.WitnessNodes(ctx, w.config.Name, w.config.At, w.config.Resources)
			answers <- answer{seed, info, err}
		}()
	}
	var ranking []*belfryv1.WitnessNode
	var failed error
	answered := false
	for range w.config.Seeds {
		a := <-answers
		if a.err != nil {
			failed = a.err
			continue
		}
		w.seeds[a.info.GetNodeName()] = a.seed
		answered = true
		if ranking == nil {
			ranking = a.info.GetWitnesses()
		}
		if w.config.TLS != nil {
			break // the addresses are in the ranking
		}
	}
	candidates := w.reachable(ranking)
	if len(candidates) == 0 && answered {
		return nil, fmt.Errorf("%w: no witness can be reached; each agent that answers is draining, or its address needs a certificate", belfry.ErrRestricted)
	}
	if len(candidates) > 0 {
		failed = nil
	}
	return candidates, failed
}

// reachable are the witnesses of a ranking that can be dialled, in its order.
func (w *Witness) reachable(ranking []*belfryv1.WitnessNode) (all []candidate) {
	for _, n := range ranking {
		target := w.seeds[n.GetNode()]
		if target == "" && w.config.TLS != nil && len(n.GetAddresses()) > 0 {
			target = n.GetAddresses()[0]
		}
		if target != "" {
			all = append(all, candidate{n.GetNode(), target})
		}
	}
	return all
}

// others are the witnesses to try when one is left, that one last.
func (w *Witness) others(ranking []*belfryv1.WitnessNode, left candidate) []candidate {
	all := w.reachable(ranking)
	others := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return c.node == left.node })
	return others
}
