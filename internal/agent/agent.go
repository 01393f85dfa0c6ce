// Package agent wires the parts of one agent together: it opens the sockets,
// runs the loop that owns each machine, and carries values between them. It is
// the only package that knows all the others.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
	"github.com/belfry-ha/belfry/internal/producer/adapter"
	"github.com/belfry-ha/belfry/internal/producer/disk"
	"github.com/belfry-ha/belfry/internal/producer/file"
	"github.com/belfry-ha/belfry/internal/producer/filesystem"
	"github.com/belfry-ha/belfry/internal/producer/link"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/producer/pressure"
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/producer/resource"
	"github.com/belfry-ha/belfry/internal/producer/sysctl"
	"github.com/belfry-ha/belfry/internal/producer/timer"
	"github.com/belfry-ha/belfry/internal/producer/unit"
	"github.com/belfry-ha/belfry/internal/producer/user"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

// Options are what an agent depends on; Config is what it is told. Two agents
// with different options live in one process without knowing of each other.
type Options struct {
	Config  config.Settings
	Logger  *slog.Logger // nil: nothing is logged
	Version string       // of the program, as others see it

	// Alive is called by the loop that sends heartbeats, each time it turns: at
	// least every 100 ms. It must be cheap and must not wait. Nil: nobody asks.
	Alive func()

	// WebToken lets a client of the web listener in as operator. Empty: nobody.
	WebToken string
}

// An Agent is one running agent. New, Start, Stop; Run is all three.
type Agent struct {
	opts    Options
	log     *slog.Logger
	id      identity
	members Membership

	// Of a cluster whose document lies on shared storage; nil: the members keep it.
	documents *documentMembership
	storage   *storage
	unfit     unfit

	config  configuration
	commits commits
	keys    *keyring
	sealing *security.SealingKey // nil: the node has none
	polled  poll
	policy  atomic.Pointer[security.Policy] // who may do what; never nil once the state is open

	forwarding chan struct{} // one token for each change that waits for the leader
	due        chan struct{} // something is due now: capacity 1
	announce   chan struct{} // a token was made: capacity 1
	renewAt    time.Duration // age of the certificate at which it is renewed

	misses misses // of tokens

	toldCertificate time.Time // when security.certificate was posted last; of the duties

	leaving  atomic.Bool // somebody here has asked that it be removed
	rotating sync.Mutex  // held from the draw of a group secret until its epoch
	started  time.Time

	auditor     security.Auditor
	events      *eventLoop
	cluster     *clusterLoop
	clocks      clockWatch // of the cluster loop
	changes     *mailbox[cluster.Change]
	nodes       *node.Producer
	notices     *node.Notices
	links       *link.Producer
	linkNews    bell // rings when the link database changes
	pauses      *pauseStore
	runner      *producer.Runner
	identified  identifiers
	udp         *transport.UDP
	streams     *transport.Streams
	server      *api.Server
	calls       map[string]peerCall // never written after openNetwork
	agents      *agentTable
	duplicates  duplicates
	saidClocks  saidClocks
	unconfirmed unconfirmed
	handlers    *handlers
	plan        handlerPlan
	witness     *witnessLoop
	resources   *resource.Producer
	licenses    *licenses                       // nil: the members keep the configuration
	marked      time.Time                       // when this node has committed the time mark of licenses last; of the duties
	observers   observersOf                     // that producers' words are shown to
	reloaded    atomic.Pointer[config.Settings] // that were read last; nil: those of the start
	journal     *recorder
	webMu       sync.Mutex // of web
	web         webListener
	cleanups    []cleanup

	cancel context.CancelFunc
	group  *errgroup.Group
	ended  context.Context // ends when a part fails or the agent is stopped
}

// A cleanup undoes one step of Start. They run backwards.
type cleanup struct {
	name string
	undo func(context.Context) error
}

// stopTimeout bounds all clean-ups together.
const stopTimeout = 5 * time.Second

// New checks what can be checked without touching anything.
func New(opts Options) (*Agent, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Alive == nil {
		opts.Alive = func() {}
	}
	if err := opts.Config.Validate(); err != nil {
		return nil, err
	}
	a := &Agent{
		opts: opts, log: opts.Logger, changes: newMailbox[cluster.Change](),
		config:   configuration{refused: map[belfry.NodeID]bool{}, admitted: map[belfry.NodeID]time.Time{}},
		announce: make(chan struct{}, 1),

		due: make(chan struct{}, 1), forwarding: make(chan struct{}, maxForwarded), renewAt: renewAge(),
	}
	a.handlers = &handlers{agent: a, running: map[string]*handler{}, turns: newTurns(a)}
	return a, nil
}

// Run starts the agent, calls ready, and stops it when ctx ends or a part
// fails; it calls stopping before it does, unless another agent follows (Again).
func (a *Agent) Run(ctx context.Context, ready, stopping func()) error {
	if err := a.Start(ctx); err != nil {
		return err
	}
	ready()
	select {
	case <-ctx.Done():
	case <-a.ended.Done():
	}
	if !a.Again() {
		stopping()
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return a.Stop(stop)
}

// Again tells whether the process is to make and run an agent anew, because this
// one ended in favour of it: not before it has ended by itself.
func (a *Agent) Again() bool { return a.ended != nil && errors.Is(context.Cause(a.ended), errAgain) }

// Start returns when the agent answers on its socket and sends heartbeats. On
// error everything is undone. ctx bounds the start only.
func (a *Agent) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			err = errors.Join(err, a.Stop(undo))
		}
	}()
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.cancel = cancel
	a.group, a.ended = errgroup.WithContext(running)
	a.started = time.Now()

	for _, step := range []func() error{a.openState, a.openJournal, a.newWitness, a.newEvents, a.startJournal, a.newCluster, a.openNetwork, a.startLoops, a.startWitness, a.startHandlers, a.serve} {
		if err := step(); err != nil {
			return err
		}
	}
	a.log.Info("agent started", "node", a.id.node.Name, "incarnation", a.id.incarnation, "socket", a.opts.Config.Socket.Path)
	return nil
}

// Stop says goodbye, undoes Start backwards and returns the error of the part
// that failed first, if one did.
func (a *Agent) Stop(ctx context.Context) error {
	var errs []error
	for _, c := range slices.Backward(a.cleanups) {
		if err := c.undo(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", c.name, err))
		}
	}
	a.cleanups = nil
	if a.cancel != nil {
		a.cancel()
		if err := a.group.Wait(); !errors.Is(err, errLeft) && !errors.Is(err, errAgain) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) onStop(name string, undo func(context.Context) error) {
	a.cleanups = append(a.cleanups, cleanup{name, undo})
}

// newEvents makes the loop that owns the event machine, and its producers;
// nothing runs before startLoops.
func (a *Agent) newEvents() error {
	a.nodes = node.New()
	a.links = link.New(a.watchPeers)
	table := a.members.Table()
	systemd := unit.NewSystemd(unit.Options{})
	producers := []producer.Producer{
		process.New().WithUnits(units{systemd}), file.New(), filesystem.New(), pressure.New(), sysctl.New(),
		timer.New(), adapter.New(), disk.New(), unit.New(systemd), a.nodes, a.links, user.New(), a.resources,
	}
	if a.storage != nil {
		a.licenses = newLicenses(a)
		producers = append(producers, a.licenses.producer)
	} else {
		producers = append(producers, noLicenses(a.id.node.Name))
	}
	var names []string
	for _, p := range producers {
		names = append(names, p.Name())
	}
	a.notices = node.NewNotices(table.Name, a.id.node.Name, table.nodeNames(), names)
	if a.storage != nil {
		a.notices.WithRepository(a.storage.held().Repository.String())
	}
	producers = append(producers, a.notices)
	var classes []belfry.ClassInfo
	for _, p := range producers {
		classes = append(classes, p.Classes()...)
	}
	a.events = newEventLoop(event.Config{
		Node:        a.id.node.ID,
		Name:        a.id.node.Name,
		Incarnation: a.id.incarnation,
		Classes:     classes,
		Compile:     filterCompiler(classes),
		LooksAtData: looksAtData,

		CheckSubject: subjectChecker(producers),
		Former:       a.journal.former(),
	}, a.log.With("component", "events"))
	a.events.sources = sourcesOf(producers)
	a.connectProducers(producers, a.log.With("component", "producer"))
	a.events.peer = func(to belfry.NodeID, f event.Frame) {
		if err := a.streams.SendFrame(to, f); err != nil {
			a.log.Debug("frame not sent", "peer", to, "err", err) // the machine sends it again with the next stream
		}
	}
	a.onStop("producers", func(context.Context) error { a.runner.Stop(); return nil })
	return nil
}

// connectProducers makes the runner of the producers, between which and the
// event loop stands what knows whose the events are.
func (a *Agent) connectProducers(producers []producer.Producer, log *slog.Logger) {
	a.runner = producer.NewRunner(producer.RunnerOptions{Producers: producers, Send: a.produced, Failed: a.producerFailed, Logger: log})
	a.events.watch = func(watches []event.Watch) {
		a.identified.watch(watches)
		for _, w := range a.runner.Watch(watches) { // the machine knows no other classes
			log.Error("no producer serves this class", "class", w.Class)
		}
	}
	a.events.unwatch = func(unwatches []event.Unwatch) {
		a.runner.Unwatch(unwatches)
		a.identified.unwatch(unwatches)
	}
}

// producerFailed tells of a producer that is started again.
func (a *Agent) producerFailed(name, reason string, restarts uint64) {
	a.notices.Tell(node.ProducerFailed, name, time.Now(), belfry.EdgeFailing,
		&belfryv1.ProducerFailed{Producer: name, Reason: reason, Restarts: uint32(min(restarts, math.MaxUint32))})
}

// subjectChecker asks the producer of a class whether a subject has its form.
func subjectChecker(producers []producer.Producer) func(belfry.Class, string) error {
	checkers := map[belfry.Class]producer.SubjectChecker{}
	for _, p := range producers {
		if c, ok := p.(producer.SubjectChecker); ok {
			for _, info := range p.Classes() {
				checkers[info.Class] = c
			}
		}
	}
	return func(class belfry.Class, subject string) error {
		if c := checkers[class]; c != nil {
			return c.CheckSubject(class, subject)
		}
		return nil
	}
}

// newCluster makes the loop that owns the cluster machine.
func (a *Agent) newCluster() error {
	cfg := cluster.Default()
	cfg.Self, cfg.Number, cfg.Name = a.id.node.ID, a.id.node.Number, a.id.node.Name
	table := a.members.Table()
	cfg.Incarnation, cfg.Cluster = a.id.incarnation, table.Cluster
	settings, err := tunablesOf(table.Tunables)
	if err != nil {
		return fmt.Errorf("member table: %w", err)
	}
	cfg.Tunables = settings
	a.pauses = readPauses(a.opts.Config.State, a.log)
	cfg.Pauses = a.pauses.list()
	a.cluster = newClusterLoop(cfg)
	a.cluster.send = func(s cluster.Send) {
		if err := a.udp.Send(s.To, s.Link, bodyToWire(s.Body)); err != nil {
			a.log.Debug("datagram not sent", "peer", s.To, "err", err)
		}
	}
	a.cluster.dial = a.probe
	a.cluster.changed = a.clusterChanged
	a.cluster.moved = a.linkNews.ring
	a.cluster.keep = a.pauses.keep
	a.cluster.alive = a.opts.Alive
	a.cluster.slept = a.lookAtClocks
	return nil
}

// startLoops starts both loops, now that all that they call is there, and says
// who is a member. What has arrived by then waits in their inputs.
func (a *Agent) startLoops() error {
	a.group.Go(func() error { return a.events.run(a.ended) })
	heartbeats, silence := context.WithCancel(a.ended)
	a.group.Go(func() error { return a.cluster.run(heartbeats) })
	// Before the goodbye: a node that still answers would refute it.
	a.onStop("heartbeats", func(context.Context) error {
		silence()
		<-a.cluster.stopped
		return nil
	})
	a.startStorage()
	if a.licenses != nil {
		a.group.Go(func() error { return a.licenses.run(a.ended) })
	}
	a.group.Go(func() error { return a.changes.run(a.ended, a.passChanges) })
	a.group.Go(func() error { return a.pauses.run(a.ended) })
	a.group.Go(func() error { return a.runDuties(a.ended) })
	a.group.Go(func() error { return a.runAnnounces(a.ended) })
	a.group.Go(func() error { return a.watchMembership(a.ended) })

	a.config.mu.Lock() // nobody changes the table until it is in force
	defer a.config.mu.Unlock()
	table := a.members.Table()
	a.cluster.receive(memberTable(table))
	a.cluster.call(a.updateProducers)
	if err := a.udp.SetPeers(datagramPeers(table, a.id.node)); err != nil {
		return err
	}
	a.streams.SetPeers(streamPeers(table, a.id.node))
	a.group.Go(func() error { return a.watchInterfaces(a.ended) })
	if _, ok := a.keys.secret(table.Epoch, table.Secret); !ok {
		a.group.Go(func() error { a.fetchSecret(a.ended, table); return nil })
	}
	return nil
}

// clusterChanged is called by the cluster loop: what may wait goes through
// the mailbox.
func (a *Agent) clusterChanged(changes []cluster.Change) {
	for _, c := range changes {
		a.witnessChanged(c)
		switch c := c.(type) {
		case cluster.NodeChange:
			a.nodes.Changed(a.nodeChange(c))
		case cluster.LinkChange:
			a.links.LinkChanged(a.linkState(c), c.From)
		case cluster.ContactChange:
			a.links.ContactChanged(contactState(c), contactWord(!c.First, !c.Up))
		}
	}
	a.changes.put(changes...)
}

// passChanges tells the rest of the agent what the cluster machine found out.
func (a *Agent) passChanges(ctx context.Context, changes []cluster.Change) error {
	for _, c := range changes {
		switch c := c.(type) {
		case cluster.NodeChange:
			stopped := c.Cause == belfry.CauseStopped // its agent runs, and has to hear of its start
			a.cluster.call(a.updateLinks)             // who is watched follows from the verdicts
			a.log.Info("verdict", "peer", c.Name, "from", c.From, "verdict", c.To, "cause", c.Cause, "observers", c.Observers, "incarnation", c.Incarnation)
			if c.To == belfry.VerdictDown || c.To == belfry.VerdictLeft && !stopped {
				if err := a.events.send(ctx, event.PeerGone{Node: c.Node}); err != nil && ctx.Err() == nil {
					return err
				}
				// A stream may outlive a cut, since nothing is sent on it. A new one
				// brings PeerUp, and with it all interests, when the node is back.
				// That of a process that ended is reset by its kernel, and the reset
				// is evidence of this node's own.
				if c.Cause != belfry.CauseProcess {
					a.streams.Disconnect(c.Node)
				}
			}
		case cluster.LinkChange:
			a.log.Info("link", "peer", a.nameOf(c.Peer), "network", c.Network, "from", c.From, "state", c.To, "reason", c.Reason)
			a.reroute(c.Peer)
		case cluster.LinkFailed:
			a.reroute(c.Peer)
		case cluster.ContactChange:
			a.log.Info("contact", "peer", c.Name, "up", c.Up, "reason", c.Reason, "links_up", c.LinksUp, "links_total", c.LinksTotal)
			if c.Up {
				a.streams.Wake(c.Peer) // its stream may not have outlived the cut
			}
		case cluster.Restarted:
			a.duplicates.forget(c.Node)
			a.log.Info("node restarted", "peer", c.Name, "incarnation", c.Incarnation)
			a.streams.Wake(c.Node) // do not wait out the back-off of the old one's end
		}
		a.tell(c)
	}
	return nil
}

func (a *Agent) nameOf(id belfry.NodeID) string {
	if n, ok := a.members.Table().Node(id); ok {
		return n.Name
	}
	return id.String()
}

func newBoot() belfry.Boot {
	for {
		if b := belfry.Boot(rand.Uint32()); b != 0 {
			return b
		}
	}
}
