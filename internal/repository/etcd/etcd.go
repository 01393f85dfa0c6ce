// Package etcd keeps the repository in an etcd cluster: one key, whose value is
// the record and the document of one generation. What disks need claims for is
// one transaction here, which compares the revision of the key.
//
// No lock and no lease of etcd takes part: its key-value operations are strictly
// serializable, its locks are not safe (repository.md, etcd backend).
package etcd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Deadline is how long one operation may take, with all its attempts.
const Deadline = 2 * time.Second

// MaxDocument is the greatest size of a document, in bytes. etcd takes requests
// of up to 1.5 MiB unless it is told otherwise (--max-request-bytes).
const MaxDocument = 1 << 20

// attempts is how many times a deadline is enough for: a member of etcd that
// hangs must not keep an operation from the others.
const attempts = 4

// Config is what one node must know.
type Config struct {
	Endpoints  []string         // of etcd: HOST:PORT, or unix:///PATH; at least one
	Prefix     string           // of the key; may be empty
	Cluster    belfry.ClusterID // whose configuration it is
	UUID       repository.UUID  // of the repository
	Epoch      uint64           // of the repository; zero: 1
	TLS        *tls.Config      // see [Files]; nil: endpoints are on this machine
	Username   string           // empty: none, or that of the certificate
	Password   string
	Deadline   time.Duration     // of one operation; zero: [Deadline]
	Repository repository.Config // of the node; Host, Own, Slots, Local and Settled are of disks
}

// Backend is the [repository.Backend] of one node on etcd. It is safe for
// concurrent use; operations wait for each other.
type Backend struct {
	cfg      Config
	key      string
	name     string // for errors: endpoints and key
	client   *clientv3.Client
	hints    chan repository.Version
	stop     context.CancelFunc
	watching sync.WaitGroup

	turn sync.Mutex // held by an operation; before mu

	mu    sync.Mutex // also held while Admit or Sign is called
	last  judged     // value that was read last
	floor repository.Version
}

var _ repository.Backend = (*Backend)(nil)

// A stored value is what etcd has under the key.
type stored struct {
	cluster  uint64 // etcd's id of itself
	now      int64  // revision of the whole store at which this was read
	revision int64  // at which the key was written; zero: there is none
	value    []byte
}

// judged is a stored value that counts.
type judged struct {
	stored
	repository.Snapshot
}

// Open does not wait for etcd, unless it has to log in there: a node starts
// without its repository as well. Etcd's own log is not written.
func Open(cfg Config) (*Backend, error) {
	b, err := connect(cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.watching.Go(func() { b.watch(ctx) })
	return b, nil
}

// Create writes the first generation. The same call again, with the same op, is
// no error. ErrExist: a repository is there already; ErrUnknown: call again.
func Create(cfg Config, doc []byte, op repository.OpID) (repository.Version, error) {
	b, err := connect(cfg)
	if err != nil {
		return repository.Version{}, err
	}
	v, err := b.create(doc, op)
	return v, errors.Join(err, b.Close())
}

func (b *Backend) create(doc []byte, op repository.OpID) (repository.Version, error) {
	for _, m := range b.Members() {
		if m.Err == nil && release(m.Version).before(oldest) {
			return repository.Version{}, b.fail("create", fmt.Errorf("%w: etcd %s at %s; use %s or newer", belfry.ErrUnsupported, m.Version, m.Endpoint, oldest))
		}
	}
	v, err := b.update("create", repository.Version{Repository: b.cfg.UUID}, doc, op)
	if errors.Is(err, belfry.ErrConflict) {
		err = b.fail("create", fmt.Errorf("%w: a repository is there, at generation %d; name another prefix", belfry.ErrExist, v.Generation))
	}
	return v, err
}

func connect(cfg Config) (*Backend, error) {
	cfg.Deadline, cfg.Epoch = cmp.Or(cfg.Deadline, Deadline), cmp.Or(cfg.Epoch, 1)
	endpoints, err := cfg.urls()
	if err != nil {
		return nil, &belfry.Error{Op: "repository.etcd.open", Subject: strings.Join(cfg.Endpoints, ","), Err: err}
	}
	b := &Backend{cfg: cfg, key: cfg.key(), hints: make(chan repository.Version, 1), floor: cfg.Repository.Held, stop: func() {}}
	b.name = "etcd://" + strings.Join(cfg.Endpoints, ",") + b.key
	// A connection is tried again after a second at most, for etcd may be back at
	// any time; grpc's own limit is two minutes. Pings are as frequent as servers
	// allow.
	connection := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: cfg.Deadline,
	}
	b.client, err = clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password,
		DialTimeout: cfg.Deadline, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: cfg.Deadline,
		// One attempt, and one more when the login has expired: attempts are ours to count.
		MaxUnaryRetries: 2, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(connection), grpc.WithChainUnaryInterceptor(observe)},
	})
	if err != nil {
		if known := refusal(err); known != nil {
			err = known
		} else {
			err = unanswered(err)
		}
		return nil, b.fail("open", err)
	}
	return b, nil
}

// Load is as in [repository.Backend].
func (b *Backend) Load() (repository.Snapshot, error) { return b.read("load") }

// Poll is as in [repository.Backend]. It is linearizable as well: a member of
// etcd that has lost the others answers nothing, instead of what it last knew.
func (b *Backend) Poll() (repository.Snapshot, error) { return b.read("poll") }

func (b *Backend) read(op string) (repository.Snapshot, error) {
	ctx, done := b.begin()
	defer done()
	at, err := b.get(ctx)
	if err != nil {
		return repository.Snapshot{}, b.fail(op, err)
	}
	found, err := b.judge(at)
	if err != nil {
		return repository.Snapshot{}, b.fail(op, err)
	}
	return found.clone(), nil
}

// CAS is as in [repository.Backend].
func (b *Backend) CAS(base repository.Version, doc []byte, op repository.OpID) (repository.Version, error) {
	if base.Generation == 0 {
		return repository.Version{}, b.fail("commit", fmt.Errorf("%w: a base of generation 0; load one", belfry.ErrUsage))
	}
	return b.update("commit", base, doc, op)
}

// Hints has the newest version that etcd has told of, if nobody has taken it
// yet; older ones are dropped. A version of generation zero is a value that does
// not count. The channel is never closed.
func (b *Backend) Hints() <-chan repository.Version { return b.hints }

// Forget is for a change of who counts: what was judged before is judged again.
func (b *Backend) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = judged{}
}

// Close ends the watch and the connections. No operation may be under way.
func (b *Backend) Close() error {
	b.stop()
	b.watching.Wait()
	if err := b.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return b.fail("close", err)
	}
	return nil
}

// begin starts an operation, when those before it have ended.
func (b *Backend) begin() (context.Context, func()) {
	b.turn.Lock()
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Deadline)
	return ctx, func() { cancel(); b.turn.Unlock() }
}

func (b *Backend) fail(op string, err error) error {
	return &belfry.Error{Op: "repository.etcd." + op, Subject: b.name, Err: err}
}

// diskOf names an etcd cluster in the records that it holds.
func diskOf(cluster uint64) (disk repository.UUID) {
	copy(disk[:], "etcd")
	for i := range 8 {
		disk[15-i] = byte(cluster >> (8 * i))
	}
	return disk
}

func (b *Backend) place(cluster uint64) repository.ValuePlace {
	return repository.ValuePlace{Repository: b.cfg.UUID, Epoch: b.cfg.Epoch, Disk: diskOf(cluster), Limit: MaxDocument}
}

// judge tells whether what etcd has is a value, and not less than this node has
// seen: then etcd was restored from a backup, or somebody wrote an old value
// again. ErrNotFound: there never was one.
func (b *Backend) judge(at stored) (judged, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at.revision == 0 {
		if b.seen() {
			return judged{}, fmt.Errorf("the key is gone, and held generation %d: %w", b.floor.Generation, repository.Regressed)
		}
		return judged{}, fmt.Errorf("%w: no repository is there; name the place that `belfry init` was given", belfry.ErrNotFound)
	}
	if at.cluster != b.last.cluster || at.revision != b.last.revision || string(at.value) != string(b.last.value) {
		found, err := repository.DecodeValue(b.place(at.cluster), at.value, b.cfg.Repository.Admit)
		if errors.Is(err, belfry.ErrNotFound) && b.seen() {
			err = fmt.Errorf("a value of an earlier epoch is there, after generation %d: %w", b.floor.Generation, repository.Regressed)
		}
		if err != nil {
			return judged{}, err
		}
		found.Ballot = max(found.Ballot, repository.Ballot(at.revision))
		b.last = judged{at, found}
	}
	found, floor := b.last.Version, b.floor
	if found.Before(floor) || found.Generation < floor.Generation || found.Generation == floor.Generation && found.Digest != floor.Digest {
		return judged{}, fmt.Errorf("generation %d of ballot %d is there, after %d of ballot %d: %w",
			found.Generation, found.Ballot, floor.Generation, floor.Ballot, repository.Regressed)
	}
	b.floor = found
	return b.last, nil
}

// seen tells whether this node has seen a value of this epoch. The mutex is held.
func (b *Backend) seen() bool { return b.floor.Generation > 0 && b.floor.Epoch == b.cfg.Epoch }

func (j judged) clone() repository.Snapshot {
	found := j.Snapshot
	found.Document = append([]byte(nil), found.Document...)
	return found
}

// known is what was read last, if that is base; else what is there now.
func (b *Backend) known(ctx context.Context, base repository.Version, again bool) (judged, error) {
	b.mu.Lock()
	last := b.last
	b.mu.Unlock()
	if !again && last.Generation > 0 && last.Same(base) {
		return b.judge(last.stored)
	}
	at, err := b.get(ctx)
	if err != nil {
		return judged{}, err
	}
	if at.revision == 0 && base.Generation == 0 {
		return judged{at, repository.Snapshot{Version: repository.Version{Repository: b.cfg.UUID}}}, nil
	}
	return b.judge(at)
}

// update puts doc in the place of base; of generation zero: of nothing. An
// attempt that got no answer may still happen, but the next one excludes it, as
// both compare the same revision: so a retry is exactly-once, and what another
// value is in the way of never happens.
func (b *Backend) update(op string, base repository.Version, doc []byte, id repository.OpID) (repository.Version, error) {
	if err := b.writable(doc); err != nil {
		return repository.Version{}, b.fail(op, err)
	}
	ctx, done := b.begin()
	defer done()
	var open error // of an attempt that got no answer
	for again := false; ; again = true {
		found, err := b.known(ctx, base, again)
		if err != nil {
			return repository.Version{}, b.fail(op, outcome(open, err))
		}
		switch {
		case found.Generation > 0 && (found.Op == id || b.cfg.Repository.Holds(found.Document, id)):
			return found.Version, nil
		case !found.Same(base):
			return found.Version, b.fail(op, fmt.Errorf("%w: generation %d is there, not %d of the base; read it and try again",
				belfry.ErrConflict, found.Generation, base.Generation))
		case found.Generation > 0 && b.cfg.Repository.Moving != nil && b.cfg.Repository.Moving(found.Document):
			return repository.Version{}, b.fail(op, outcome(open, repository.Moved))
		}
		next := repository.Record{Generation: found.Generation + 1, Previous: found.Digest, Op: id, Accepted: found.Ballot + 1}
		v, err := b.replace(ctx, found.stored, next, doc)
		switch {
		case err == nil && v.Generation > 0:
			return v, nil
		case err == nil: // another value is there
		case refusal(err) != nil:
			return repository.Version{}, b.fail(op, outcome(open, refusal(err)))
		default:
			open = unanswered(err)
		}
	}
}

// writable refuses before anything is asked.
func (b *Backend) writable(doc []byte) error {
	if len(doc) == 0 || len(doc) > MaxDocument {
		return fmt.Errorf("%w: a document of %d bytes; 1 to %d", belfry.ErrLimit, len(doc), MaxDocument)
	}
	if b.cfg.Repository.Sign == nil {
		return fmt.Errorf("%w: this node may only read; ask another member", belfry.ErrRestricted)
	}
	return nil
}

// outcome is what an update ends with that did not get through. Once an attempt
// has got no answer, only a value says what happened.
func outcome(open, err error) error {
	if open == nil {
		return err
	}
	return fmt.Errorf("%w: the same update again tells whether it happened: %w; then: %w", belfry.ErrUnknown, open, err)
}

// replace writes a generation where at is still there. A version of generation
// zero: it is not. Any error but a [refusal]: it may happen, or have happened.
func (b *Backend) replace(ctx context.Context, at stored, r repository.Record, doc []byte) (repository.Version, error) {
	c := b.cfg.Repository
	r.Promised, r.Sequence = r.Accepted, r.Generation
	r.Writer, r.Incarnation, r.Boot = c.Node, c.Incarnation, c.Boot
	b.mu.Lock()
	value, err := repository.EncodeValue(b.place(at.cluster), r, doc, c.Sign)
	b.mu.Unlock()
	if err != nil {
		return repository.Version{}, err
	}
	revision, err := b.put(ctx, at.revision, value)
	if err != nil || revision == 0 {
		return repository.Version{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v := repository.Version{
		Repository: b.cfg.UUID, Epoch: b.cfg.Epoch, Ballot: max(r.Accepted, repository.Ballot(revision)),
		Generation: r.Generation, Digest: sha256.Sum256(doc),
	}
	written := repository.Snapshot{Version: v, Document: value[repository.BlockSize:], Previous: r.Previous, Op: r.Op, Writer: r.Writer}
	b.last, b.floor = judged{stored{at.cluster, revision, revision, value}, written}, v
	return v, nil
}
