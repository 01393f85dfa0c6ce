package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/security"
)

var (
	nodeA = belfry.NodeID{0xa}
	nodeB = belfry.NodeID{0xb}
	now   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// fakeEvents keeps consumers that tests fill by hand.
type fakeEvents struct {
	mu        sync.Mutex
	consumers []*fakeConsumer
	sent      []event.Named
	status    event.Status
	opened    chan *fakeConsumer
}

func newFakeEvents() *fakeEvents { return &fakeEvents{opened: make(chan *fakeConsumer, 64)} }

func (f *fakeEvents) Open(_ event.ConsumerKind, name string, limits event.Limits) Consumer {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &fakeConsumer{name: name, limits: limits, changed: make(chan struct{}, 1), calls: make(chan string, 256)}
	f.consumers = append(f.consumers, c)
	f.opened <- c
	return c
}

func (f *fakeEvents) open() Consumer { return f.Open(event.ConsumerStream, "", event.Limits{}) }

func (f *fakeEvents) Send(_ context.Context, events []event.Named, _ []event.Sent) (sent []event.Sent, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		if e.Subject == "hang" {
			return nil, context.DeadlineExceeded
		}
		f.sent = append(f.sent, e)
		sent = append(sent, event.Sent{Matched: 3})
	}
	return sent, nil
}

func (f *fakeEvents) Status(context.Context) (event.Status, error) { return f.status, nil }

func (f *fakeEvents) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{
		{Class: "process.exit", Kind: belfry.Happening, Summary: "a process ended", Data: "belfry.v1.ProcessExit"},
		{Class: "node.state", Kind: belfry.State, Summary: "the verdict of a node", Data: "belfry.v1.NodeState"},
	}
}

// fakeConsumer behaves as a consumer of the machine does: it numbers batches,
// keeps what is unacknowledged and sends it again after Resume.
type fakeConsumer struct {
	name   string
	limits event.Limits
	calls  chan string // register 1, ack 2, lost, resume 1, close …

	mu      sync.Mutex
	queue   []event.Batch // unsent
	unacked []event.Batch
	number  uint64
	numbers []uint32 // registered
	ended   bool
	err     error // of the next Next
	changed chan struct{}
}

func (c *fakeConsumer) say(format string, args ...any) {
	select {
	case c.calls <- fmt.Sprintf(format, args...):
	default:
	}
}

// post queues one batch.
func (c *fakeConsumer) post(ns ...belfry.Notification) {
	c.mu.Lock()
	c.number++
	c.queue = append(c.queue, event.Batch{Number: c.number, Notifications: ns})
	c.mu.Unlock()
	c.signal()
}

func (c *fakeConsumer) signal() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *fakeConsumer) finish() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.signal()
}

// stopping makes one call of Next fail as it does when the agent stops.
func (c *fakeConsumer) stopping() {
	c.mu.Lock()
	c.err = fmt.Errorf("%w: the agent is stopping", belfry.ErrNoAgent)
	c.mu.Unlock()
	c.signal()
}

func (c *fakeConsumer) Register(ctx context.Context, number uint32, r belfry.Registration) (event.Answer, error) {
	c.say("register %d %s", number, selector(r))
	switch r.Subject {
	case "none":
		err := fmt.Errorf("%w: no process none; --wait waits for one", belfry.ErrNoEvent)
		return event.Answer{}, &belfry.Error{Op: "register", Subject: selector(r), Err: err}
	case "hang":
		<-ctx.Done()
		return event.Answer{}, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.numbers, number) {
		return event.Answer{}, belfry.ErrExist
	}
	c.numbers = append(c.numbers, number)
	a := event.Answer{}
	if r.Scope == belfry.ScopeCluster {
		a.Coverage = []event.Coverage{
			{Node: nodeA, State: event.CoverageInstalled},
			{Node: nodeB, State: event.CoverageRefused, Err: belfry.ErrUnsupported},
		}
	}
	return a, nil
}

func (c *fakeConsumer) Unregister(number uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.numbers = slices.DeleteFunc(c.numbers, func(n uint32) bool { return n == number })
	c.say("unregister %d", number)
}

func (c *fakeConsumer) Next(ctx context.Context) (event.Batch, error) {
	for {
		c.mu.Lock()
		window := c.limits.Window
		if window == 0 {
			window = 4
		}
		if len(c.queue) > 0 && len(c.unacked) < window {
			b := c.queue[0]
			c.queue = c.queue[1:]
			c.unacked = append(c.unacked, b)
			c.mu.Unlock()
			return b, nil
		}
		ended, err := c.ended && len(c.queue) == 0, c.err
		c.err = nil
		c.mu.Unlock()
		if err != nil {
			return event.Batch{}, err
		}
		if ended {
			return event.Batch{}, io.EOF
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			return event.Batch{}, ctx.Err()
		}
	}
}

func (c *fakeConsumer) Ack(batch uint64) {
	c.mu.Lock()
	c.unacked = slices.DeleteFunc(c.unacked, func(b event.Batch) bool { return b.Number <= batch })
	c.mu.Unlock()
	c.say("ack %d", batch)
	c.signal()
}

func (c *fakeConsumer) Lost() { c.say("lost") }

func (c *fakeConsumer) Resume(batch uint64) {
	c.mu.Lock()
	c.unacked = slices.DeleteFunc(c.unacked, func(b event.Batch) bool { return b.Number <= batch })
	c.queue, c.unacked = append(c.unacked, c.queue...), nil
	c.mu.Unlock()
	c.say("resume %d", batch)
	c.signal()
}

func (c *fakeConsumer) Close() { c.say("close") }

// expect waits for the calls in this order; others in between fail.
func (c *fakeConsumer) expect(t *testing.T, calls ...string) {
	t.Helper()
	for _, want := range calls {
		select {
		case got := <-c.calls:
			if got != want {
				t.Fatalf("consumer was told %q; want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("consumer was not told %q", want)
		}
	}
}

// fakeCluster is a, and b which is down.
type fakeCluster struct {
	mu      sync.Mutex
	version uint64        // of the link database
	news    chan struct{} // closed when version grows
	loss    uint8         // of the link that it has

	extra int  // nodes beside a and b
	deaf  bool // the second of them does not answer
}

func (f *fakeCluster) View() ClusterView {
	v := ClusterView{
		ID: belfry.ClusterID{0xc}, Name: "dev", Self: nodeA, Incarnation: 2, Generation: 7, Time: now,
		Nodes: []cluster.NodeStatus{
			{ID: nodeA, Name: "a", Number: 1, Incarnation: 2, Verdict: belfry.VerdictUp, Since: now.Add(-time.Minute), LastHeard: now},
			{ID: nodeB, Name: "b", Number: 2, Incarnation: 5, Verdict: belfry.VerdictDown, Cause: belfry.CauseProcess, Since: now.Add(-time.Second), LastHeard: now.Add(-3 * time.Second), Observers: 2, LinksTotal: 1},
		},
		Links: []cluster.LinkStatus{
			{Peer: nodeB, PeerName: "b", State: belfry.LinkDown, Reason: "reset", RecentLoss: 51, MRT: time.Millisecond, PeerAge: -1},
			{Peer: nodeB, PeerName: "b", State: belfry.LinkUp, Works: true, TwoWay: true, PeerState: belfry.LinkOneWayIn, PeerAge: time.Second},
		},
		Agents: map[belfry.NodeID]AgentInfo{nodeA: {PID: 11, Version: "0.1", Started: now.Add(-time.Hour), Addresses: []string{"127.0.0.1:7431"}}},
	}
	v.Links[0].Network, v.Links[1].Network, v.Links[1].Index = "net1", "net2", 1
	for i := range f.extra {
		v.Nodes = append(v.Nodes, cluster.NodeStatus{ID: belfry.NodeID{0xff, byte(i >> 8), byte(i)}, Name: fmt.Sprintf("n%04d", i)})
	}
	return v
}

func (f *fakeCluster) Why(node belfry.NodeID) []belfry.Evidence {
	if node != nodeB {
		return nil
	}
	return []belfry.Evidence{{Time: now, Link: "net1", Text: "stream reset"}, {Time: now, By: nodeB, Text: "claim"}}
}

func (f *fakeCluster) PeerEntries(_ context.Context, node belfry.NodeID, req *belfryv1.ListEntriesRequest) (*belfryv1.ListEntriesResponse, error) {
	if req.GetPageSize() == 1 {
		return nil, &belfry.Error{Op: "ListEntries", Node: node, Err: fmt.Errorf("%w: b is down", belfry.ErrNotMember)}
	}
	return &belfryv1.ListEntriesResponse{NodeId: node.String(), NodeName: "b"}, nil
}

func (f *fakeCluster) PeerLinks(ctx context.Context, node belfry.NodeID, req *belfryv1.ListLinksRequest) (*belfryv1.ListLinksResponse, error) {
	switch {
	case node == nodeB:
		return nil, &belfry.Error{Op: "ListLinks", Node: node, Err: fmt.Errorf("%w: b is down", belfry.ErrNotMember)}
	case node[2] == 1 && f.deaf: // n0001 never answers
		<-ctx.Done()
		return nil, ctx.Err()
	}
	resp := &belfryv1.ListLinksResponse{NodeName: "other", Version: 3}
	for i := range f.extra {
		resp.Links = append(resp.Links, &belfryv1.Link{Peer: fmt.Sprintf("n%04d", i), Network: "net1", State: "up", RttKnown: true, Rtt: durationpb.New(time.Millisecond)})
	}
	if !req.GetBrief() {
		resp.Links = append(resp.Links, &belfryv1.Link{Peer: "a", Network: "net2", State: "degraded"})
	}
	return resp, nil
}

// LinksSince keeps the last four changes: each is one of b on net1, and every
// third also ends a row to c.
func (f *fakeCluster) LinksSince(version uint64) (cluster.LinkDelta, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.news == nil {
		f.news = make(chan struct{})
	}
	d := cluster.LinkDelta{Version: f.version, Whole: version == 0 || version > f.version || f.version-version > 4}
	if d.Whole || version < f.version {
		d.Links = []cluster.LinkStatus{{Peer: nodeB, PeerName: "b", State: belfry.LinkUp, Works: true, Version: f.version, RecentLoss: f.loss, PeerAge: -1}}
	}
	if !d.Whole && version < f.version && f.version%3 == 0 {
		d.Removed = []cluster.RemovedLink{{PeerName: "c", Version: f.version}}
	}
	return d, f.news
}

// change moves the link database n versions on.
func (f *fakeCluster) change(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version += n
	if f.news != nil {
		close(f.news)
		f.news = nil
	}
}

// fakeConfiguration has one setting, and knows that b is stopped.
type fakeConfiguration struct{}

func (*fakeConfiguration) Settings(path string) ([]Setting, uint64, error) {
	if path != "" && path != "tunables" && path != "tunables.x" {
		return nil, 0, fmt.Errorf("%w: unknown section", belfry.ErrUsage)
	}
	return []Setting{{Path: "tunables.x", Value: "2", Default: "1", Range: "1 to 2", Set: true}}, 7, nil
}

func (*fakeConfiguration) SetSetting(_ context.Context, path, value string, _ bool) (before, after Setting, c Changed, err error) {
	if value == "3" {
		return before, after, c, fmt.Errorf("%w: x is 3; want 1 to 2", belfry.ErrUsage)
	}
	return Setting{Path: path, Value: "1"}, Setting{Path: path, Value: value, Set: true}, Changed{Changed: true, Generation: 8}, nil
}

func (*fakeConfiguration) SetStopped(_ context.Context, node belfry.NodeID, stopped, _ bool) (running int, c Changed, err error) {
	return 1, Changed{Changed: stopped != (node == nodeB), Generation: 8}, nil
}

// fakeMembers has one token and lets every node but a be removed.
type fakeMembers struct{}

func (*fakeMembers) CreateToken(_ context.Context, by string, req *belfryv1.CreateTokenRequest) (*belfryv1.CreateTokenResponse, error) {
	if req.GetRole() == "admin" {
		return nil, fmt.Errorf("%w: role admin", belfry.ErrUsage)
	}
	return &belfryv1.CreateTokenResponse{Token: "belfry1.secret", Id: "0a", Addresses: []string{by}, Generation: 9}, nil
}

func (*fakeMembers) Clients() []*belfryv1.ClientInfo {
	return []*belfryv1.ClientInfo{{Name: "web", Role: "reader"}}
}

func (*fakeMembers) RemoveClient(_ context.Context, name string, _, _ bool) (*belfryv1.RemoveClientResponse, error) {
	if name != "web" {
		return nil, fmt.Errorf("%w: no client %q", belfry.ErrNotFound, name)
	}
	return &belfryv1.RemoveClientResponse{Client: &belfryv1.ClientInfo{Name: "web", Role: "reader"}, Generation: 9}, nil
}

func (*fakeMembers) DefaultRole(subject string) belfry.Role {
	return security.DefaultRole(subject, 1)
}

func (*fakeMembers) NothingHere(string) string { return "" }

func (*fakeMembers) Grants() ([]*belfryv1.GrantInfo, uint64) { return nil, 7 }

func (*fakeMembers) SetGrant(context.Context, *belfryv1.SetGrantRequest) (*belfryv1.SetGrantResponse, error) {
	return &belfryv1.SetGrantResponse{Changed: true, Generation: 9}, nil
}

func (*fakeMembers) Tokens() []*belfryv1.TokenInfo {
	return []*belfryv1.TokenInfo{{Id: "0a", Role: "node"}, {Id: "0b", Role: "reader"}, {Id: "0c", Role: "node"}}
}

func (*fakeMembers) RevokeToken(_ context.Context, id string) (uint64, error) {
	if id != "0a" {
		return 0, fmt.Errorf("%w: no token %q", belfry.ErrNotFound, id)
	}
	return 9, nil
}

func (*fakeMembers) RemoveNode(_ context.Context, node belfry.NodeID, dryRun, _ bool) (*belfryv1.RemoveNodeResponse, error) {
	if node == nodeA && !dryRun {
		return nil, fmt.Errorf("%w: a is the last member", belfry.ErrUsage)
	}
	return &belfryv1.RemoveNodeResponse{NodeId: node.String(), NodeName: "x", Generation: 9, Epoch: 2, Members: 1}, nil
}

func (*fakeMembers) Leaving(bool) {}

func (*fakeMembers) Left(context.Context, belfry.NodeID, string) (*belfryv1.RemoveNodeResponse, bool) {
	return nil, false
}

func (*fakeMembers) RotateCA(context.Context) (*belfryv1.RotateCAResponse, error) {
	return &belfryv1.RotateCAResponse{Fingerprint: "ff", Generation: 9}, nil
}

// agent is a Server on a unix socket, whose callers are all the subject.
type agent struct {
	*Server
	events  *fakeEvents
	cluster *fakeCluster
	socket  string
	subject Subject
	leader  Leader
	journal Journal
	config  ConfigDocuments
	witness Witness

	licenses Licenses

	policy atomic.Pointer[security.Policy] // nil: by roles alone
	ours   sync.Map                        // subjects that are everybody's own
}

// decide is the agent's own function, over the policy of the test.
func (a *agent) decide(s Subject, ask Ask) (belfry.Role, bool) {
	if p := a.policy.Load(); p != nil {
		return decideBy(p, s, ask)
	}
	return byRole(s, ask)
}

func (a *agent) owns(_ Subject, _, subject string) bool {
	_, ours := a.ours.Load(subject)
	return ours
}

func byRole(s Subject, ask Ask) (belfry.Role, bool) { return decideBy(&security.Policy{}, s, ask) }

func decideBy(p *security.Policy, s Subject, ask Ask) (belfry.Role, bool) {
	return p.Decide(security.Caller{Client: s.Client, UID: s.UID, Groups: s.Groups, Role: s.Role, Fixed: s.Web}, security.Ask(ask))
}

func startAgent(t *testing.T, subject Subject) *agent {
	t.Helper()
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(t.TempDir(), "s"), subject: subject}
	a.start(t)
	return a
}

// start makes a new Server over the same events.
func (a *agent) start(t *testing.T) {
	t.Helper()
	a.Server = New(Options{
		Events: a.events, Cluster: a.cluster, Config: &fakeConfiguration{}, Members: &fakeMembers{}, Identify: a.identify,
		Leader: a.leader, Journal: a.journal, Witness: a.witness, Documents: a.config, Decide: a.decide, Owns: a.owns,
		Licenses: a.licenses,
	})
	if err := a.ServeUnix(a.socket, ""); err != nil {
		t.Fatal(err)
	}
	server := a.Server
	t.Cleanup(func() { stop(t, server) })
}

func (a *agent) identify(net.Conn) (Subject, error) {
	if a.subject.Client == "stranger" {
		return Subject{}, errors.New("nobody knows this one")
	}
	return a.subject, nil
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second) // also used when the test is over
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func (a *agent) dial(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), a.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

var (
	admin    = Subject{UID: 0, PID: 4711, Role: belfry.RoleAdmin}
	operator = Subject{UID: 1001, PID: 4712, Role: belfry.RoleOperator}
	reader   = Subject{UID: 1000, PID: 4713, Role: belfry.RoleReader}
	nobody   = Subject{UID: 65534, PID: 4714}
)

// exit is an occurrence of process.exit as the machine would give it.
func exit(number uint32, first, last uint64) belfry.Notification {
	return belfry.Notification{
		Registration: number, Node: nodeB, NodeName: "b", Incarnation: 5, Entry: 9,
		Event: belfry.EventID{Class: "process.exit", Subject: "exe=/bin/x", Instance: "4711@8812345"},
		First: first, Last: last, Count: last - first + 1, FirstTime: now, Time: now.Add(time.Duration(last) * time.Second),
		Code: 9, Edge: belfry.EdgeFailing,
	}
}
