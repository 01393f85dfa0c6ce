package agent

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/repository"
)

// dutyEvery is how often an agent looks whether something is due: an epoch, a
// certificate, a token that has ended. It varies by a tenth, so that the nodes
// of a cluster do not all ask at once.
const dutyEvery = time.Minute

// dutySoon is how long they gather that are due because something happened.
const dutySoon = 500 * time.Millisecond

// pollAll is up to how many members each asks all others what they hold; beyond
// it only the leader does.
const pollAll = 64

// runDuties does what is due until ctx ends.
func (a *Agent) runDuties(ctx context.Context) error {
	for {
		a.doDuties(ctx)
		wait := dutyEvery + time.Duration(rand.Int64N(int64(dutyEvery/10)))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		case <-a.due:
			select { // more may come together: as when the cluster starts
			case <-ctx.Done():
			case <-time.After(dutySoon):
			}
		}
	}
}

// dutyDue has the duties done soon.
func (a *Agent) dutyDue() {
	select {
	case a.due <- struct{}{}:
	default:
	}
}

// doDuties leaves what fails to the next time.
func (a *Agent) doDuties(ctx context.Context) {
	if len(a.members.Table().Nodes) <= pollAll || a.leads() {
		a.polled.set(a.pollMembers(ctx))
		if a.storage != nil {
			a.storage.tell(repository.Clock{Ahead: time.Until(a.clusterTime())})
		}
		a.bringUpToDate()
	}
	if err := a.renewIfDue(ctx); err != nil {
		a.log.Warn("certificate not renewed; it is tried again", "ends", a.keys.now().Certificate.Leaf.NotAfter, "err", err)
		a.tellCertificate(time.Now(), err)
	}
	if !a.leads() {
		return
	}
	if err := a.leadDuties(ctx); err != nil {
		a.log.Warn("what was due is not done; it is tried again", "err", err)
	}
}

// behindRetry is between two attempts to give the table to a member that is up
// and could not take it.
const behindRetry = 5 * time.Second

// bringUpToDate gives the table to members that hold an older one: a disk may
// have been full, a message lost.
func (a *Agent) bringUpToDate() {
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	behind := false
	for id, state := range a.polled.get() {
		if a.storage != nil && id != a.id.node.ID {
			a.storage.tell(repository.Greeted{Node: id, Generation: state.generation})
			continue
		}
		if state.generation != 0 && state.generation < a.members.Table().Generation {
			behind = true
			a.sendTable(id)
		}
	}
	if behind {
		time.AfterFunc(behindRetry, a.dutyDue)
	}
}

// leadDuties are those of the leader.
func (a *Agent) leadDuties(ctx context.Context) error {
	if a.majority() != nil {
		return nil // the other half may be doing it
	}
	table, now := a.members.Table(), time.Now()
	if slices.ContainsFunc(table.Tokens, func(t JoinToken) bool { return !now.Before(t.Expires) }) {
		if _, _, err := a.commit(ctx, func(t *Table) error { t.dropTokens(now); return nil }); err != nil {
			return err
		}
	}
	if err := a.listCertificates(ctx); err != nil { // before the authority of the listed ones goes
		return err
	}
	if err := a.listCapacities(ctx); err != nil {
		return err
	}
	if err := a.raiseMark(ctx); err != nil {
		return err
	}
	if err := a.carryOnRotation(ctx); err != nil {
		return err
	}
	if err := a.careForCA(ctx); err != nil {
		return err
	}
	if now.Sub(table.Since) < epochLife {
		return nil
	}
	_, _, err := a.rotate(ctx, a.commit, belfry.NodeID{}, func(*Table) error { return nil })
	return err
}

// dropTokens forgets those that have ended.
func (t *Table) dropTokens(now time.Time) {
	t.Tokens = slices.DeleteFunc(t.Tokens, func(k JoinToken) bool { return !now.Before(k.Expires) })
}

// A memberState is what a member said of itself when it was last asked.
type memberState struct {
	asked      time.Time
	offset     time.Duration // of its clock from this node's
	generation uint64        // of the member table that it held; 0: it does not say
	ours       uint64        // that this node held before it asked
	ca         Digest        // of the authority that its certificate is under
	knows      []Digest      // the authorities that count for it
	ends       time.Time     // its certificate
	own        Certificate   // the same; nil: it does not say
	size       Capacity      // of its machine; zero: it does not say
}

// A poll is what all members said, by node. Safe for concurrent use.
type poll struct {
	mu    sync.Mutex
	state map[belfry.NodeID]memberState
}

func (p *poll) set(state map[belfry.NodeID]memberState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
}

func (p *poll) get() map[belfry.NodeID]memberState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// reports are what all members said, as the API shows it.
func (p *poll) reports() map[belfry.NodeID]api.MemberReport {
	reports := map[belfry.NodeID]api.MemberReport{}
	for id, s := range p.get() { // the order can not be seen
		reports[id] = api.MemberReport{
			Asked:           s.asked,
			ClockOffset:     s.offset,
			Generation:      s.generation,
			AskerGeneration: s.ours,
			Authority:       s.ca,
			CertificateEnd:  s.ends,
		}
	}
	return reports
}

// pollMembers asks all members that can be reached, and this node itself.
func (a *Agent) pollMembers(ctx context.Context) map[belfry.NodeID]memberState {
	ctx, cancel := context.WithTimeout(ctx, replicateTimeout)
	defer cancel()
	var mu sync.Mutex
	table := a.members.Table()
	states := map[belfry.NodeID]memberState{a.id.node.ID: stateFrom(a.ownState(), 0, table.Generation)}
	a.askAll(ctx, table, func(id belfry.NodeID) error {
		resp, begin := new(belfryv1.GetMemberResponse), time.Now()
		if err := a.ask(ctx, id, belfryv1.MemberPeerService_GetMember_FullMethodName, &belfryv1.GetMemberRequest{}, resp); err != nil {
			return err
		}
		offset := time.Unix(0, resp.GetNow()).Sub(begin.Add(time.Since(begin) / 2))
		mu.Lock()
		defer mu.Unlock()
		states[id] = stateFrom(resp, offset, table.Generation)
		return nil
	})
	return states
}

// stateFrom reads what a member says of itself to a node that held the
// generation ours when it asked.
func stateFrom(m *belfryv1.GetMemberResponse, offset time.Duration, ours uint64) memberState {
	s := memberState{asked: time.Now(), offset: offset, generation: m.GetGeneration(), ours: ours, ends: time.Unix(0, m.GetCertificateEnd())}
	copy(s.ca[:], m.GetCa())
	s.own, s.size = m.GetCertificate(), Capacity{min(m.GetCores(), maxCapacity), min(m.GetMemoryBytes(), maxCapacity)}
	for _, known := range m.GetAuthorities() {
		var d Digest
		copy(d[:], known)
		s.knows = append(s.knows, d)
	}
	return s
}

// ownState is what this node says of itself.
func (a *Agent) ownState() *belfryv1.GetMemberResponse {
	keys := a.keys.now()
	resp := &belfryv1.GetMemberResponse{
		Now:            time.Now().UnixNano(),
		CertificateEnd: keys.Certificate.Leaf.NotAfter.UnixNano(),
		Generation:     a.members.Table().Generation,
		Certificate:    keys.Certificate.Leaf.Raw,
	}
	size := machineCapacity()
	resp.Cores, resp.MemoryBytes = size.Cores, size.MemoryBytes
	for _, ca := range keys.CA {
		digest := sha256.Sum256(ca.Raw)
		resp.Authorities = append(resp.Authorities, digest[:])
		if keys.Certificate.Leaf.CheckSignatureFrom(ca) == nil {
			resp.Ca = digest[:]
		}
	}
	return resp
}

func (a *Agent) getMember(context.Context, *belfryv1.GetMemberRequest) (*belfryv1.GetMemberResponse, error) {
	return a.ownState(), nil
}

// clusterTime is the time by the median of the members' clocks, as of the last
// poll: a token must not live longer because one clock is slow.
func (a *Agent) clusterTime() time.Time {
	var offsets []time.Duration
	for _, s := range a.polled.get() { // the order can not be seen
		offsets = append(offsets, s.offset)
	}
	if len(offsets) == 0 {
		return time.Now()
	}
	slices.Sort(offsets)
	return time.Now().Add(offsets[len(offsets)/2])
}
