package api

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
)

// Events is the event loop as the API sees it. It is safe for concurrent use.
type Events interface {
	// Open makes a consumer. It does not wait.
	Open(kind event.ConsumerKind, name string, limits event.Limits) Consumer
	// Send posts events of classes below user, in order, and tells of each what
	// became of it, in room if that is large enough. The errors wrap a sentinel; one
	// of the whole says that it is not known, and that events and room are still in use.
	Send(ctx context.Context, events []event.Named, room []event.Sent) ([]event.Sent, error)
	// Status lists the entries of this node.
	Status(ctx context.Context) (event.Status, error)
	// Classes is the catalogue; the result is shared, nobody writes to it.
	Classes() []belfry.ClassInfo
}

// A Consumer has one reader of Next and any number of callers of the rest.
type Consumer interface {
	// Register waits for the answer. The error wraps a sentinel.
	Register(ctx context.Context, number uint32, r belfry.Registration) (event.Answer, error)
	// Unregister ends one registration; an unknown number is ignored.
	Unregister(number uint32)
	// Next says once that it is ready and waits for the batch. io.EOF: all
	// registrations have ended, and what was queued has been taken.
	Next(ctx context.Context) (event.Batch, error)
	// Ack acknowledges all batches up to and with this number.
	Ack(batch uint64)
	// Lost says that the stream broke; queues go on within their limits.
	Lost()
	// Resume says that the client is back and has all batches up to this one.
	// What it has not comes again from Next, under the old numbers.
	Resume(batch uint64)
	// Close ends the consumer and all its registrations.
	Close()
}

// Cluster answers from memory and never waits for another node, but for
// PeerEntries and PeerLinks. It is safe for concurrent use.
type Cluster interface {
	// View is what this node holds of the cluster now. Its slices and maps are
	// the caller's to read.
	View() ClusterView
	// LinksSince is what changed in the link database after a version, and a
	// channel that is closed when more has. Version 0: all rows.
	LinksSince(version uint64) (cluster.LinkDelta, <-chan struct{})
	// Why is the evidence of a node's verdict, in the order it came.
	Why(node belfry.NodeID) []belfry.Evidence
	// PeerEntries is the listing of another node: it waits, as long as ctx
	// allows.
	PeerEntries(ctx context.Context, node belfry.NodeID, req *belfryv1.ListEntriesRequest) (*belfryv1.ListEntriesResponse, error)
	// PeerLinks is the link database of another node; it waits likewise.
	PeerLinks(ctx context.Context, node belfry.NodeID, req *belfryv1.ListLinksRequest) (*belfryv1.ListLinksResponse, error)
}

// A ClusterView is what one node holds of the cluster.
type ClusterView struct {
	ID          belfry.ClusterID
	Name        string
	Self        belfry.NodeID
	Incarnation belfry.Incarnation // of Self
	Generation  uint64             // of the member table
	Time        time.Time          // of this view
	Nodes       []cluster.NodeStatus
	Links       []cluster.LinkStatus

	LinksVersion uint64 // of the link database
	Agents       map[belfry.NodeID]AgentInfo
	Reports      map[belfry.NodeID]MemberReport // of those that answered the last poll
	Streams      map[belfry.NodeID]StreamInfo   // to the others
	Duplicates   map[belfry.NodeID]time.Time    // when a second agent with this identity was noticed last; of those that run still, as far as is known
}

// An AgentInfo is what an agent says of itself when its stream opens. Zero
// fields are unknown.
type AgentInfo struct {
	PID       uint32
	Version   string
	Started   time.Time
	Addresses []string // heartbeat addresses
}

// A StreamInfo is the state of the node-to-node stream to a peer.
type StreamInfo struct {
	Up        bool
	Since     time.Time // there is none; zero: there is one
	Error     string    // why the last attempt failed, as far as this node knows
	PeerDials bool      // the peer opens it

	// ClockOffset is its clock ahead of this node's, as it said when it was asked
	// because there is no stream; nil: unknown.
	ClockOffset *time.Duration
}

// A MemberReport is what a member said of itself when this node asked it last.
type MemberReport struct {
	Asked           time.Time
	ClockOffset     time.Duration     // its clock ahead of this node's, half the round trip left out
	Generation      uint64            // of the member table that it held; 0: unknown
	AskerGeneration uint64            // that this node held then
	Authority       [sha256.Size]byte // digest of the authority that its certificate is under
	CertificateEnd  time.Time
}

// Configuration is what all nodes share, as far as this node keeps it. It is
// safe for concurrent use. Changes are made on the node that leads; when a
// method returns it is durable on all nodes that are up.
type Configuration interface {
	// Settings are those at or below a path, in the order of the manual, with
	// the generation that holds them. The error wraps a sentinel.
	Settings(path string) ([]Setting, uint64, error)
	// SetSetting writes one value. With dryRun it is only checked.
	SetSetting(ctx context.Context, path, value string, dryRun bool) (before, after Setting, c Changed, err error)
	// SetStopped holds a node left until it is started, and tells how many
	// members are not held.
	SetStopped(ctx context.Context, node belfry.NodeID, stopped, dryRun bool) (running int, c Changed, err error)
}

// Handlers are the handlers of this node. It is safe for concurrent use; the
// errors wrap sentinels.
type Handlers interface {
	// Handlers lists them, by name.
	Handlers(ctx context.Context) ([]*belfryv1.Handler, error)
	// Runs lists runs of one handler, or of all with an empty name, newest first.
	Runs(handler string, failed bool, limit int) ([]*belfryv1.Run, error)
	// Test runs one for an event that did not happen, and keeps nothing.
	Test(ctx context.Context, req *belfryv1.TestHandlerRequest) (*belfryv1.Run, error)
	// Replay runs one again over the past, up to a time, and calls each with
	// every run.
	Replay(ctx context.Context, handler string, since belfry.Since, until time.Time, each func(*belfryv1.Run) error) error
	// Retry delivers a dead letter once more.
	Retry(ctx context.Context, id uint64) (*belfryv1.Run, error)
}

// A Setting is one value of the configuration.
type Setting struct {
	Path, Value, Default string
	Range                string // what it may be, for people
	Set                  bool   // somebody wrote it
}

// Changed says what a change of the configuration came to.
type Changed struct {
	Changed    bool   // false: it was so already
	Generation uint64 // that holds it; with dryRun the one that is in force
}
