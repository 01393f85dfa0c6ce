package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// The classes of Notices. The subject of cluster.nontransitive and config.* is the
// name of the cluster, that of repository.* the UUID of the repository,
// that of producer.failed a producer, that of witness.moved whatever resource
// clients have; that of all others is a node.
const (
	Restarted     belfry.Class = "node.restarted"
	WasDown       belfry.Class = "node.was-down"
	Isolated      belfry.Class = "node.isolated"
	Duplicate     belfry.Class = "node.duplicate"
	Nontransitive belfry.Class = "cluster.nontransitive"
	Added         belfry.Class = "node.added"
	Removed       belfry.Class = "node.removed"
	Certificate   belfry.Class = "security.certificate"
	ConfigRefused belfry.Class = "agent.config-refused"
	JournalState  belfry.Class = "journal.state"
	ConfigChanged belfry.Class = "config.changed"

	RepositoryState   belfry.Class = "repository.state"
	RepositoryClone   belfry.Class = "repository.clone"
	RepositoryVersion belfry.Class = "repository.version"
	ConfigUnsupported belfry.Class = "config.unsupported"
	ConfigLost        belfry.Class = "config.lost"

	WitnessState belfry.Class = "witness.state"
	WitnessMoved belfry.Class = "witness.moved"

	ProducerFailed belfry.Class = "producer.failed"
)

// awaitFor is how long an added node's notice waits for those who asked for
// all nodes: the event machine makes an entry for the new one first.
const awaitFor = 5 * time.Second

// Notices serves what the cluster machine says beside verdicts: things that
// happen once and have no state. Like Producer it watches nothing itself.
type Notices struct {
	fixed map[belfry.Class][]string // subjects of the classes that have the same ones for ever

	mu      sync.Mutex
	nodes   []string // sorted
	running bool
	queue   []notice

	overflowed bool // notices of the queue were lost
	wake       chan struct{}

	states map[belfry.Class]*belfry.Occurrence // of the classes that have one, once it was told
}

// A notice is something to tell. With nodes set it also begins or ends the
// subject: these are the nodes from then on.
type notice struct {
	class      belfry.Class
	subject    string
	occurrence belfry.Occurrence
	nodes      []string
}

// NewNotices makes a producer for a cluster with these nodes, of which self is
// this one, and an agent with these other producers. Names are the subjects
// there are.
func NewNotices(cluster, self string, nodes, producers []string) *Notices {
	own := []string{self}
	return &Notices{
		fixed: map[belfry.Class][]string{
			WasDown: own, Isolated: own, JournalState: own, WitnessState: own, Nontransitive: {cluster}, ConfigChanged: {cluster}, ConfigUnsupported: {cluster}, ConfigLost: {cluster},
			RepositoryState: {}, RepositoryClone: {}, RepositoryVersion: {},
			ProducerFailed: slices.Sorted(slices.Values(producers)),
		},
		nodes: slices.Sorted(slices.Values(nodes)), wake: make(chan struct{}, 1), states: map[belfry.Class]*belfry.Occurrence{},
	}
}

// WithRepository makes a repository the subject of repository.*. It is to be
// called before Run.
func (p *Notices) WithRepository(id string) *Notices {
	for _, class := range []belfry.Class{RepositoryState, RepositoryClone, RepositoryVersion} {
		p.fixed[class] = []string{id}
	}
	return p
}

// Name is for listings.
func (*Notices) Name() string { return "node-notices" }

// Classes are those of this producer.
func (*Notices) Classes() []belfry.ClassInfo {
	class := func(c belfry.Class, summary, subject, data string) belfry.ClassInfo {
		return belfry.ClassInfo{
			Class: c, Kind: belfry.Happening, Summary: summary, Subject: subject, Data: "belfry.v1." + data,
			Globs: true, Remote: true, Optional: true,
		}
	}
	return []belfry.ClassInfo{
		class(Restarted, "a newer incarnation of a node is running", "NODE", "NodeRestarted"),
		class(WasDown, "others held this node to be gone while it ran: it was paused, or cut off", "NODE", "NodeWasDown"),
		class(Isolated, "this node misses most of its peers and reaches nobody else, or no longer", "NODE", "NodeIsolated"),
		class(Duplicate, "two agents run with the identity of a node, or a copy of its state", "NODE", "NodeDuplicate"),
		class(Added, "a node has become a member", "NODE", "NodeMembership"),
		class(Removed, "a node is no member any more", "NODE", "NodeMembership"),
		class(Certificate, "the certificate of a node ends within 7 days and could not be renewed; once a day", "NODE", "SecurityCertificate"),
		class(ConfigRefused, "a settings file was read again and is refused; the old settings stay", "NODE", "AgentConfigRefused"),
		{
			Class: JournalState, Kind: belfry.State, Summary: "the journal of a node takes what happens, or its disk does not", Subject: "NODE",
			Data: "belfry.v1.JournalState", Globs: true, Remote: true, Optional: true,
		},
		class(ConfigChanged, "a generation of the configuration has come into force on a node", "CLUSTER", "ConfigChanged"),
		{
			Class: RepositoryState, Kind: belfry.State, Summary: "a node reads the cluster's repository, or runs from its local copy and refuses changes", Subject: "UUID",
			Data: "belfry.v1.RepositoryState", Globs: true, Remote: true, Optional: true,
		},
		class(RepositoryClone, "a disk of the repository is there more than once, or another agent writes in this node's place", "UUID", "RepositoryClone"),
		class(RepositoryVersion, "the etcd that holds the repository is of a release with a known hole", "UUID", "RepositoryVersion"),
		class(ConfigUnsupported, "a generation of the configuration is not taken over, because this agent is too old for it", "CLUSTER", "ConfigUnsupported"),
		class(ConfigLost, "a committed generation is lost with the disks that it was on: the members have taken the repository over without it", "CLUSTER", "ConfigLost"),
		{
			Class: WitnessState, Kind: belfry.State, Summary: "the witness of a node serves clients, is being drained, or is off", Subject: "NODE",
			Data: "belfry.v1.WitnessState", Globs: true, Remote: true, Optional: true,
		},
		class(WitnessMoved, "clients of a resource were asked to go elsewhere", "KIND/SUBJECT", "WitnessMoved"),
		class(ProducerFailed, "what watches the operating system for some classes does not work, and is started again", "PRODUCER", "ProducerFailed"),
		class(Nontransitive, "nodes that are up do not reach each other, or do so again", "CLUSTER", "ClusterNontransitive"),
	}
}

// Tell posts one notice; it never waits and is safe for concurrent use.
func (p *Notices) Tell(class belfry.Class, subject string, at time.Time, edge belfry.Edge, data proto.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := notice{class: class, subject: subject, occurrence: occurrenceOf(at, edge, data)}
	if slices.Contains([]belfry.Class{JournalState, RepositoryState, WitnessState}, class) {
		first := p.states[class] == nil
		p.states[class] = &n.occurrence
		if first { // it has become known, and did not change
			return
		}
	}
	p.put(n)
}

// TellMembership posts node.added or node.removed; nodes are the members from
// then on. It never waits and is safe for concurrent use.
func (p *Notices) TellMembership(class belfry.Class, node string, nodes []string, at time.Time, data *belfryv1.NodeMembership) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes = slices.Sorted(slices.Values(nodes))
	p.put(notice{class: class, subject: node, occurrence: occurrenceOf(at, belfry.EdgeNone, data), nodes: p.nodes})
}

func occurrenceOf(at time.Time, edge belfry.Edge, data proto.Message) belfry.Occurrence {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil { // text that is not UTF-8: a broken name
		b = nil
	}
	return belfry.Occurrence{Time: at, Edge: edge, Data: b}
}

// put is called with the lock held.
func (p *Notices) put(n notice) {
	if !p.running {
		return // nobody registered
	}
	if len(p.queue) >= queueLimit { // the oldest goes; what is left no longer says how many there were
		p.queue = p.queue[1:]
		p.overflowed = true
	}
	p.queue = append(p.queue, n)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run serves watches until ctx ends.
func (p *Notices) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	p.mu.Lock()
	p.running, p.queue, p.overflowed = true, nil, false
	s := &noticeSession{producer: p, send: send, nodes: p.nodes, watches: map[event.WatchID]event.Watch{}}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running, p.queue = false, nil
	}()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			if r.Watch == nil {
				delete(s.watches, r.Unwatch)
			} else if _, known := s.watches[r.Watch.ID]; !known {
				s.watches[r.Watch.ID] = *r.Watch
				err = s.begin(*r.Watch)
			}
		case <-p.wake:
			err = s.post()
		}
		if err != nil {
			return nil // ctx has ended
		}
	}
}

// A noticeSession is one call of Run. Its nodes are those of the last notice
// that it has posted.
type noticeSession struct {
	producer *Notices
	send     producer.Send
	nodes    []string
	watches  map[event.WatchID]event.Watch

	// awaited are the notices of nodes that were just added, for the entries
	// that the event machine makes of it.
	awaited []awaited

	// resources are the subjects of witness.moved that were heard of, oldest first:
	// patterns find what is moved when it is.
	resources []string
}

// maxMoved bounds the resources that patterns find.
const maxMoved = 4096

type awaited struct {
	notice
	until time.Time
}

// subjects are those that a class has now.
func (s *noticeSession) subjects(class belfry.Class) []string {
	if class == WitnessMoved {
		return s.resources
	}
	if fixed, ok := s.producer.fixed[class]; ok {
		return fixed
	}
	return s.nodes
}

// begin answers a new watch.
func (s *noticeSession) begin(w event.Watch) error {
	known := s.subjects(w.Class)
	if w.Entry == 0 {
		for _, subject := range known {
			if producer.Match(w.Subject, subject) {
				if err := s.send(event.Found{Watch: w.ID, Subject: subject}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	switch {
	case w.Class == WitnessMoved, slices.Contains(known, w.Subject):
		return s.associate(w)
	case w.Wait:
		return nil
	}
	return s.send(event.End{Entry: w.Entry, Err: fmt.Errorf("%w: %s of %q; there is %s", belfry.ErrNoEvent, w.Class, w.Subject, strings.Join(known, ", "))})
}

// stateOf is the present state of a class that has one.
func (p *Notices) stateOf(w event.Watch) *belfry.Occurrence {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.states[w.Class]
	if known == nil {
		return nil
	}
	state := *known
	return &state
}

// associate gives an entry its subject, and what it was made for.
func (s *noticeSession) associate(w event.Watch) error {
	if err := s.send(event.Associate{Entry: w.Entry, State: s.producer.stateOf(w)}); err != nil {
		return err
	}
	now := time.Now()
	s.awaited = slices.DeleteFunc(s.awaited, func(n awaited) bool { return now.After(n.until) })
	for _, n := range s.awaited {
		if n.class == w.Class && n.subject == w.Subject {
			if err := s.send(event.Post{Entry: w.Entry, Occurrence: n.occurrence}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *noticeSession) post() error {
	p := s.producer
	p.mu.Lock()
	queue, overflowed := p.queue, p.overflowed
	p.queue, p.overflowed = nil, false
	p.mu.Unlock()
	for _, n := range queue {
		n.occurrence.LowerBound = overflowed
		if n.class == Added {
			s.awaited = append(s.awaited, awaited{n, time.Now().Add(awaitFor)})
		} else if err := s.tell(n); err != nil {
			return err
		}
		if n.class == WitnessMoved {
			if err := s.find(n); err != nil {
				return err
			}
		}
		if n.nodes != nil {
			if err := s.follow(n.nodes); err != nil {
				return err
			}
		}
	}
	return nil
}

// find names a resource to the patterns that fit it, when clients were moved for
// the first time; the entry that is made of it gets what was its cause.
func (s *noticeSession) find(n notice) error {
	if slices.Contains(s.resources, n.subject) || len(s.resources) >= maxMoved {
		return nil
	}
	s.resources = append(s.resources, n.subject)
	found := false
	for _, id := range slices.Sorted(maps.Keys(s.watches)) {
		w := s.watches[id]
		if w.Entry != 0 || w.Class != n.class || !producer.Match(w.Subject, n.subject) {
			continue
		}
		found = true
		if err := s.send(event.Found{Watch: w.ID, Subject: n.subject}); err != nil {
			return err
		}
	}
	if found {
		s.awaited = append(s.awaited, awaited{n, time.Now().Add(awaitFor)})
	}
	return nil
}

// tell posts a notice to the entries of its subject.
func (s *noticeSession) tell(n notice) error {
	for _, id := range slices.Sorted(maps.Keys(s.watches)) {
		if w := s.watches[id]; w.Entry != 0 && w.Class == n.class && w.Subject == n.subject {
			if err := s.send(event.Post{Entry: w.Entry, Occurrence: n.occurrence}); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow takes the members as they are now: who came is found, who went is a
// subject no longer.
func (s *noticeSession) follow(nodes []string) error {
	old := s.nodes
	s.nodes = nodes
	for _, id := range slices.Sorted(maps.Keys(s.watches)) {
		w := s.watches[id]
		if _, fixed := s.producer.fixed[w.Class]; fixed || w.Class == WitnessMoved {
			continue
		}
		if err := s.refresh(w, old); err != nil {
			return err
		}
	}
	return nil
}

func (s *noticeSession) refresh(w event.Watch, old []string) error {
	if w.Entry == 0 {
		for _, name := range s.nodes {
			if !slices.Contains(old, name) && producer.Match(w.Subject, name) {
				if err := s.send(event.Found{Watch: w.ID, Subject: name}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	is, was := slices.Contains(s.nodes, w.Subject), slices.Contains(old, w.Subject)
	switch {
	case is && !was:
		return s.associate(w)
	case was && !is:
		return s.send(event.Invalidate{Entry: w.Entry})
	}
	return nil
}
