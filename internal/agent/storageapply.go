package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

// startStorage begins to look for the repository. The agent runs from its local
// copy until it is found, and for as long as it is away.
func (a *Agent) startStorage() {
	if a.storage == nil {
		return
	}
	a.tellRepository("", repository.Searching.String(), belfry.EdgeNone, "")
	ctx, cancel := context.WithCancel(a.ended)
	a.group.Go(func() error { return a.storage.run(ctx) })
	a.group.Go(func() error { return a.storage.next.run(ctx) })
	a.onStop("repository", func(stop context.Context) error {
		cancel()
		select {
		case <-a.storage.ended:
			return nil
		case <-stop.Done():
			return stop.Err()
		}
	})
}

// assimilate brings a generation into force that is on this node's disk. All
// parts are told as they are of a table of the members (US8788465 claim 7).
func (a *Agent) assimilate(as *repository.Assimilation) {
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	old := a.documents.held.Load()
	h := newHeldTable(as.Held)
	a.documents.held.Store(h)
	if !sameNodes(old.table, h.table) || !slices.Equal(old.Document.Security.Revoked, as.Document.Security.Revoked) {
		a.storage.forget.Store(true)
	}
	if as.Unkept != nil {
		a.log.Error("that this node was removed could not be kept", "generation", as.Generation, "err", as.Unkept)
	}
	a.tableChanged(old.table)
	if !reflect.DeepEqual(old.Document.Handlers, as.Document.Handlers) {
		a.group.Go(func() error { a.followHandlers(nil, false); return nil }) // one that ends may take its time
	}
	a.licenses.follow()
	a.configChanged(as)
	a.tellLosses(as)
}

// sendNotice tells one member, on each of the links to it: one of them may be cut,
// and whoever is told twice counts it.
func (a *Agent) sendNotice(s repository.Send) {
	n, ok := a.members.Table().Node(s.To)
	if !ok {
		return
	}
	data := s.Notice.Append(nil)
	for _, l := range linksTo(a.id.node, n) {
		if err := a.udp.Send(s.To, l.Index, &wire.Notice{Link: l.Index, Data: data}); err != nil {
			a.log.Debug("notice not sent", "peer", n.Name, "err", err)
		}
	}
}

// takeNotice is called by the loop that sends heartbeats. Only what is bound to
// this node's present boot is taken: all else may be a recording.
func (a *Agent) takeNotice(r transport.Received, n *wire.Notice) {
	if a.storage == nil || !r.Proven {
		return
	}
	notice, err := repository.DecodeNotice(n.Data)
	if err != nil { // of a newer agent
		return
	}
	a.storage.tell(repository.Noticed{From: r.From, Notice: notice})
}

// storageLeader is the member that makes changes where the document lies on
// shared storage: of those that are up, that can write it as far as is known
// here, the one with the lowest host slot, with etcd the lowest number. It is no promise: the storage decides
// between any two. A node that is stopped leads only where nobody else is up.
func (a *Agent) storageLeader() Node {
	held, up, now := a.storage.held(), a.up(), time.Now()
	best := -1
	lead := a.id.node
	for _, n := range held.table.Nodes {
		rank := rankIn(&held.Document, n.ID)
		able := rank >= 0 && !a.unfit.is(n.ID, now)
		if n.ID == a.id.node.ID {
			able = a.storage.fit() == nil
		}
		if up[n.ID] && !n.Stopped && able && (best < 0 || rank < best) {
			best, lead = rank, n
		}
	}
	return lead
}

// otherLeader is who can commit what this node must not: its own removal.
func (a *Agent) otherLeader() (Node, bool) {
	held, up, now := a.storage.held(), a.up(), time.Now()
	best, other := -1, Node{}
	for _, n := range held.table.Nodes {
		rank := rankIn(&held.Document, n.ID)
		if n.ID != a.id.node.ID && rank >= 0 && up[n.ID] && !a.unfit.is(n.ID, now) && (best < 0 || rank < best) {
			best, other = rank, n
		}
	}
	return other, best >= 0
}

// unfitFor is how long a member is not asked to lead after it has said that it
// can not write the repository.
const unfitFor = 5 * time.Second

// unfit remembers who can not lead. The zero value is ready, and safe for
// concurrent use.
type unfit struct {
	mu    sync.Mutex
	since map[belfry.NodeID]time.Time
}

func (u *unfit) note(id belfry.NodeID, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.since == nil {
		u.since = map[belfry.NodeID]time.Time{}
	}
	u.since[id] = now
}

func (u *unfit) is(id belfry.NodeID, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	at, ok := u.since[id]
	return ok && now.Sub(at) < unfitFor
}

// repositoryState tells that the repository came or went.
func (a *Agent) repositoryState(c repository.ModeChange) {
	edge, reason := belfry.EdgeRecovered, ""
	if c.Why != nil || c.To != repository.Ready {
		edge = belfry.EdgeFailing
	}
	if c.Why != nil {
		reason = c.Why.Error()
	}
	a.tellRepository(c.From.Word(c.Was), c.To.Word(c.Why), edge, reason)
	held := a.storage.held()
	switch {
	case errors.Is(c.Why, repository.Cloned):
		a.notices.Tell(node.RepositoryClone, held.Repository.String(), time.Now(), belfry.EdgeNone, &belfryv1.RepositoryClone{
			Node: a.id.node.Name, Repository: held.Repository.String(), Reason: reason,
		})
	case errors.Is(c.Why, belfry.ErrUnsupported):
		a.notices.Tell(node.ConfigUnsupported, held.Document.Cluster.Name, time.Now(), belfry.EdgeNone, &belfryv1.ConfigUnsupported{
			Node: a.id.node.Name, Generation: held.Generation, Reason: reason,
		})
	}
	a.licenses.follow()
	switch {
	case c.To == repository.Ready && c.Why != nil:
		a.log.Warn("repository; all goes on with the disks that answer", "state", c.To.Word(c.Why), "was", c.From.Word(c.Was), "err", c.Why)
	case c.To == repository.Ready:
		a.log.Info("repository", "state", c.To.String(), "was", c.From.Word(c.Was))
	case errors.Is(c.Why, repository.Cloned):
		a.log.Error("another agent writes the repository in this node's place; stop it, then start this one again", "err", c.Why)
	default:
		a.log.Warn("repository; changes are refused, all else goes on", "state", c.To.String(), "was", c.From.String(), "err", c.Why)
	}
}

// tellRepository posts repository.state. The first time it only becomes known.
func (a *Agent) tellRepository(from, to string, edge belfry.Edge, reason string) {
	held := a.storage.held()
	id := held.Repository.String()
	a.notices.Tell(node.RepositoryState, id, time.Now(), edge, &belfryv1.RepositoryState{
		Node: a.id.node.Name, Repository: id, From: from, To: to, Reason: reason, Generation: held.Generation,
	})
}

// repositoryStatus is for listings.
func (a *Agent) repositoryStatus() *belfryv1.RepositoryStatus {
	if a.storage == nil {
		return nil
	}
	held, state := a.storage.held(), a.storage.state.Load()
	s := &belfryv1.RepositoryStatus{
		Id: held.Repository.String(), Kind: held.Document.Repository.Kind, State: state.mode.Word(state.why), Generation: held.Generation,
		Read: timestamppb.New(state.good), ReadTook: durationpb.New(state.read), Slot: int32(slotIn(&held.Document, a.id.node.ID)),
	}
	s.Warnings = a.storage.etcdWarnings()
	if state.why != nil {
		s.Reason = state.why.Error()
	}
	if more := a.storage.next.reason(); more != "" && state.mode != repository.Ready {
		s.Reason += "; " + more
	}
	return s
}

// configChanged tells what came into force.
func (a *Agent) configChanged(as *repository.Assimilation) {
	e := lastEntry(&as.Document)
	a.notices.Tell(node.ConfigChanged, as.Document.Cluster.Name, time.Now(), belfry.EdgeNone, &belfryv1.ConfigChanged{
		Node: a.id.node.Name, Generation: as.Generation, Author: e.Author, Change: e.Text, Writer: a.nameOf(as.Writer), Digest: as.Digest.String(),
	})
	a.log.Info("configuration taken over", "generation", as.Generation, "author", cmp.Or(e.Author, "unknown"), "change", e.Text)
}

// removeElsewhere has another member commit this node's own removal: records of
// who is no member count no more, so that its own last one would not.
func (a *Agent) removeElsewhere(ctx context.Context, force bool) (*belfryv1.RemoveNodeResponse, error) {
	other, ok := a.otherLeader()
	if !ok {
		return nil, fmt.Errorf("%w: a node does not commit its own removal, and no other member is up that can; start one, or remove this node from there", belfry.ErrRestricted)
	}
	resp := new(belfryv1.RemoveNodeResponse)
	req := &belfryv1.RemoveNodeRequest{Node: a.id.node.ID.String(), Force: force}
	return resp, a.forward(ctx, other.ID, belfryv1.MemberService_RemoveNode_FullMethodName, req, resp)
}

// listCertificates has the document list the certificates that members have, once
// they are under another authority than the listed ones: by them a node that was
// away knows whose records count. This node leads, and has asked the members.
func (a *Agent) listCertificates(ctx context.Context) error {
	if a.storage == nil {
		return nil
	}
	keys, states := a.keys.now(), a.polled.get()
	next := map[belfry.NodeID]Certificate{}
	for _, n := range a.members.Table().Nodes {
		has := states[n.ID].own
		if len(has) > 0 && !underFirst(keys, n, n.Certificate) && underFirst(keys, n, has) {
			next[n.ID] = has
		}
	}
	if len(next) == 0 {
		return nil
	}
	_, _, err := a.commit(ctx, func(t *Table) error {
		for i := range t.Nodes {
			if has, ok := next[t.Nodes[i].ID]; ok {
				t.Nodes[i].Certificate = has
			}
		}
		return nil
	})
	return err
}

// underFirst tells whether a certificate is a node's, under the authority that
// signs now.
func underFirst(keys *security.Keys, n Node, certificate []byte) bool {
	return len(keys.CA) > 0 && security.CheckListed(keys.Cluster, keys.CA[:1], n.ID, n.Key.ed25519(), certificate, nil) == nil
}
