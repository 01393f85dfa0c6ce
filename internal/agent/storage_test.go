package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

// waitMode returns when the machine's agent stands to the repository like that.
func (m *machine) waitMode(t *testing.T, want repository.Mode) {
	t.Helper()
	for end := time.Now().Add(testTimeout); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // of several agents, whose states are asked
		state := m.agent.storage.state.Load()
		if state.mode == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is %s (%v); want %s", m.Name, state.mode, state.why, want)
		}
	}
}

// waitGeneration returns when the machine's agent holds it.
func (m *machine) waitGeneration(t *testing.T, want uint64) {
	t.Helper()
	for end := time.Now().Add(testTimeout); m.agent.members.Table().Generation < want; time.Sleep(time.Millisecond) { //nolint:forbidigo // of several agents, whose states are asked
		if time.Now().After(end) {
			t.Fatalf("%s holds generation %d; want %d", m.Name, m.agent.members.Table().Generation, want)
		}
	}
}

func TestAClusterKeepsItsConfigurationOnAFile(t *testing.T) { // C5, C6
	t.Parallel()
	m := machines(t, 4)
	formedOnFile(t, m[:3])
	for _, one := range m[:3] {
		one.waitMode(t, repository.Ready)
		if _, err := os.Stat(filepath.Join(one.State, memberFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s has a member file beside the repository: %v", one.Name, err)
		}
	}
	// A change at any member is in force at all when the command ends.
	c := m[2].dial(t)
	answer, err := c.SetConfig(t.Context(), "tunables.node_timeout", "7s", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range m[:3] {
		table := one.agent.members.Table()
		if table.Generation != answer.GetGeneration() || table.Tunables["node_timeout"] != "7s" {
			t.Errorf("%s has generation %d, node_timeout %s; want %d, 7s", one.Name, table.Generation, table.Tunables["node_timeout"], answer.GetGeneration())
		}
	}
	e := lastEntry(&m[1].agent.storage.held().Document)
	if e.Author == "" || e.Text != "tunable node_timeout default -> 7s" || e.Node != m[0].agent.id.node.ID {
		t.Errorf("the generation is by %q: %q, committed by %s", e.Author, e.Text, e.Node)
	}
	// Who is removed leaves; who was removed joins again, as another node.
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n3", false); err != nil {
		t.Fatal(err)
	}
	m[2].waitEnded(t)
	m[2].stop(t)
	again, err := New(Options{Config: m[2].settings()})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(t.Context()); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("its agent starts again: %v", err)
	}
	m[2].mustJoin(t, m[1])
	m[3].mustJoin(t, m[0])
	for _, one := range m {
		one.waitHolds(t, "n1", "n2", "n3", "n4")
	}
	// The leader does not commit its own removal: it asks another one.
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	m[0].waitEnded(t)
	m[1].waitHolds(t, "n2", "n3", "n4")
}

// TestOnAFile plays tests of members who keep the configuration among themselves
// with a repository: what they promise holds there too.
func TestOnAFile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T){
		"AMachineThatHasLeftSaysSo":           TestAMachineThatHasLeftSaysSo,
		"AMachineWaitsToBeTold":               TestAMachineWaitsToBeTold,
		"AReplacedAuthorityRemovesNoClient":   TestAReplacedAuthorityRemovesNoClient,
		"AReplacedAuthorityWaitsForWhoIsDown": TestAReplacedAuthorityWaitsForWhoIsDown,
		"ARemovedClientIsRefusedEverywhere":   TestARemovedClientIsRefusedEverywhere,
		"ARemovedNodeIsRefusedEverywhere":     TestARemovedNodeIsRefusedEverywhere,
		"ATokenIsUsedOnce":                    TestATokenIsUsedOnce,
		"ATokenOfTheOtherKindIsNotUsedUp":     TestATokenOfTheOtherKindIsNotUsedUp,
		"AllWhoHeldTheAuthoritysKeyAreGone":   TestAllWhoHeldTheAuthoritysKeyAreGone,
		"AnyNodeCanLeaveAlsoTheOneThatLeads":  TestAnyNodeCanLeaveAlsoTheOneThatLeads,
		"AuthorityIsReplacedWhileAllRun":      TestAuthorityIsReplacedWhileAllRun,
		"MachinesFormACluster":                TestMachinesFormACluster,
		"RolesOfTheTableAreInForceAtOnce":     TestRolesOfTheTableAreInForceAtOnce,
		"TenFailuresUseATokenUp":              TestTenFailuresUseATokenUp,
		"WhoIsRefusedIsToldWhyOnlyWithAToken": TestWhoIsRefusedIsToldWhyOnlyWithAToken,
		"WhoSleptThroughEpochsIsHeardAgain":   TestWhoSleptThroughEpochsIsHeardAgain,
	} {
		t.Run(name, test)
	}
}

// notices tells what became of notices at a machine's agent.
func (m *machine) notices(o repository.Outcome) uint64 {
	return m.agent.storage.state.Load().outcomes[o-1]
}

func (m *machine) waitNotices(t *testing.T, o repository.Outcome, want uint64) {
	t.Helper()
	for end := time.Now().Add(testTimeout); m.notices(o) < want; time.Sleep(time.Millisecond) { //nolint:forbidigo // of several agents, whose states are asked
		if time.Now().After(end) {
			t.Fatalf("%s: %d notices are %s; want %d", m.Name, m.notices(o), o, want)
		}
	}
}

// TestAForgedNoticeChangesNothing: a member that lies, or an old one, costs the
// others one read at most.
func TestAForgedNoticeChangesNothing(t *testing.T) { // C3, C6
	t.Parallel()
	m := machines(t, 2)
	formedOnFile(t, m)
	held := m[1].agent.storage.held()
	notice := repository.Notice{
		Kind: repository.NoticeConfiguration, Cluster: held.Document.Cluster.UUID, Repository: held.Repository, Epoch: held.Epoch, Generation: held.Generation,
	}
	send := func(edit func(*repository.Notice)) {
		n := notice
		edit(&n)
		m[0].agent.sendNotice(repository.Send{To: m[1].agent.id.node.ID, Notice: n})
	}
	links := uint64(len(m[0].agent.id.node.Networks)) // it comes on each of them
	for _, tt := range []struct {
		outcome repository.Outcome
		edit    func(*repository.Notice)
	}{
		{repository.OutcomeUnconfirmed, func(n *repository.Notice) { n.Generation = 4711 }},
		{repository.OutcomeOld, func(*repository.Notice) {}},
		{repository.OutcomeOld, func(n *repository.Notice) { n.Generation = 1 }},
		{repository.OutcomeForeign, func(n *repository.Notice) { n.Cluster[0]++ }},
		{repository.OutcomeNotFound, func(n *repository.Notice) { n.Repository[0]++; n.Generation = 4711 }},
		{repository.OutcomeHeld, func(n *repository.Notice) { n.Kind = repository.NoticeHeld; n.Generation = 4711 }},
	} {
		before := m[1].notices(tt.outcome)
		send(tt.edit)
		m[1].waitNotices(t, tt.outcome, before+links)
	}
	if now := m[1].agent.storage.held(); now != held {
		t.Errorf("generation %d is in force, was %d", now.Generation, held.Generation)
	}
	m[1].waitMode(t, repository.Ready)
}

// TestAStoppedNodeIsStartedByItself: the leader knows nothing of its new start,
// for it sends nothing, and so does not reach it; what it asked for is in force
// there when the command ends.
func TestAStoppedNodeIsStartedByItself(t *testing.T) { // C6
	t.Parallel()
	m := machines(t, 2)
	formedOnFile(t, m)
	stopped, err := m[0].dial(t).StopNode(t.Context(), "n2", false)
	if err != nil {
		t.Fatal(err)
	}
	m[1].waitGeneration(t, stopped.GetGeneration())
	m[1].stop(t)
	m[1].start(t)
	m[1].waitMode(t, repository.Ready)
	for end := time.Now().Add(testTimeout); !m[1].agent.streams.Connected(m[0].agent.id.node.ID); time.Sleep(time.Millisecond) { //nolint:forbidigo // of several agents, whose states are asked
		if time.Now().After(end) {
			t.Fatal("n2 has no stream to n1")
		}
	}
	started, err := m[1].dial(t).StartNode(t.Context(), "n2", false)
	if err != nil {
		t.Fatal(err)
	}
	if got := m[1].agent.members.Table().Generation; got < started.GetGeneration() {
		t.Errorf("n2 has generation %d; want %d", got, started.GetGeneration())
	}
	m[0].waitHolds(t, "n1", "n2")
}

// TestATableFromAMemberIsRefused: where the document lies on storage no message
// brings it.
func TestATableFromAMemberIsRefused(t *testing.T) { // C1
	t.Parallel()
	m := machines(t, 2)
	formedOnFile(t, m)
	held := m[1].agent.storage.held()
	next := held.table.clone()
	next.Generation, next.Origin, next.Tunables = held.Generation+1, m[0].agent.id.node.ID, map[string]string{"node_timeout": "9s"}
	document, err := next.encode()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	err = m[0].agent.ask(ctx, m[1].agent.id.node.ID, belfryv1.MemberPeerService_TakeTable_FullMethodName, &belfryv1.TakeTableRequest{Document: document}, new(belfryv1.TakeTableResponse))
	if !errors.Is(err, belfry.ErrUnsupported) {
		t.Errorf("asked to take a table: %v; want ErrUnsupported", err)
	}
	if err := m[0].agent.streams.SendConfiguration(m[1].agent.id.node.ID, next.Generation, document); err != nil {
		t.Fatal(err)
	}
	// What comes behind it on the stream has been served: so has it.
	if err := m[0].agent.ask(ctx, m[1].agent.id.node.ID, belfryv1.MemberPeerService_GetMember_FullMethodName, &belfryv1.GetMemberRequest{}, new(belfryv1.GetMemberResponse)); err != nil {
		t.Fatal(err)
	}
	if now := m[1].agent.storage.held(); now != held {
		t.Errorf("generation %d is in force, was %d", now.Generation, held.Generation)
	}
}

// TestWhatIsMovedAwayIsNotWritten: who has a file open could go on to write it
// under no name, and lose what it has acknowledged.
func TestWhatIsMovedAwayIsNotWritten(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	path := formedOnFile(t, m)
	before := m[0].agent.members.Table().Generation
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	_, err := m[0].dial(t).SetConfig(t.Context(), "tunables.node_timeout", "7s", false)
	if !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("changed: %v; want ErrRestricted", err)
	}
	if err := os.Rename(path+".away", filepath.Join(filepath.Dir(path), "again.belfry")); err != nil {
		t.Fatal(err)
	}
	m[0].waitMode(t, repository.Ready)
	for end := time.Now().Add(testTimeout); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // of several agents, whose states are asked
		if _, err = m[0].dial(t).SetConfig(t.Context(), "tunables.node_timeout", "8s", false); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	m[1].waitGeneration(t, before+1)
	if got := m[1].agent.members.Table(); got.Generation != before+1 || got.Tunables["node_timeout"] != "8s" {
		t.Errorf("n2 has generation %d, node_timeout %s; want %d, 8s", got.Generation, got.Tunables["node_timeout"], before+1)
	}
}

// TestAnUnconfirmedChangeIsRolledBack as the document says, by the leader.
func TestAnUnconfirmedChangeIsRolledBack(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	formedOnFile(t, m)
	if _, err := m[0].dial(t).SetConfig(t.Context(), "tunables.node_timeout", "7s", false); err != nil {
		t.Fatal(err)
	}
	a := m[0].agent
	held := a.storage.held()
	to, op := held.Document, newOp()
	to.Tunables = map[string]string{"node_timeout": "9s"}
	to.Confirm = &repository.Confirmation{Base: held.Generation, Deadline: time.Now().UTC().Add(time.Second).Truncate(time.Millisecond)}
	document, err := a.next(held, op, to, repository.Entry{Time: time.Now().UTC().Truncate(time.Millisecond), Author: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.storage.propose(t.Context(), held.Version, op, document, repository.NoticeConfiguration); err != nil {
		t.Fatal(err)
	}
	for _, one := range m {
		one.waitGeneration(t, held.Generation+2)
		if got := one.agent.members.Table().Tunables["node_timeout"]; got != "7s" {
			t.Errorf("%s: node_timeout is %s; want 7s again", one.Name, got)
		}
	}
	if e := lastEntry(&m[1].agent.storage.held().Document); e.Author != "node n1, for want of a confirmation" {
		t.Errorf("rolled back by %q", e.Author)
	}
}

// TestTheDocumentSaysWhatIsHandledAndTheNodeWhatRuns: a handler in the document
// has no command, and a node without an entry of its name runs nothing for it.
func TestTheDocumentSaysWhatIsHandledAndTheNodeWhatRuns(t *testing.T) {
	t.Parallel()
	own := config.Handler{
		Name: "page", On: []string{"node.state"}, Scope: "local", Edge: "both", RunOn: config.RunOnEvery, Gaps: true,
		Exec: []string{"/bin/page"}, Timeout: 30 * time.Second, Attempts: 5,
	}
	other := own
	other.Name = "other"
	shared := []repository.Handler{
		{Name: "page", On: []string{"link.state"}, Scope: "cluster", Edge: "failing", Hold: "10s", NoGaps: true, RunOn: "one", Attempts: 2},
		{Name: "nobody", On: []string{"node.state"}},
	}
	want := own
	want.On, want.Scope, want.Edge, want.Hold, want.Gaps, want.RunOn, want.Attempts = []string{"link.state"}, "cluster", "failing", 10*time.Second, false, "one", 2
	if diff := cmp.Diff([]config.Handler{want, other}, sharedHandlers([]config.Handler{own, other}, shared)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestAHandlerOfTheDocumentComesIntoForce with the generation.
func TestAHandlerOfTheDocumentComesIntoForce(t *testing.T) { // C6
	t.Parallel()
	m := machines(t, 1)
	m[0].handlers = []config.Handler{{
		Name: "page", On: []string{"user.never"}, Scope: "local", Edge: "both", RunOn: config.RunOnEvery,
		Exec: []string{"/bin/true"}, Timeout: 30 * time.Second, Attempts: 5,
	}}
	formedOnFile(t, m)
	a := m[0].agent
	a.storage.lookedFor(t.Context())
	held := a.storage.held()
	to, op := held.Document, newOp()
	to.Handlers = []repository.Handler{{Name: "page", On: []string{"user.test"}}}
	document, err := a.next(held, op, to, repository.Entry{Time: time.Now().UTC().Truncate(time.Millisecond), Author: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.storage.propose(t.Context(), held.Version, op, document, repository.NoticeConfiguration); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(testTimeout); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // it is registered by a goroutine of its own
		a.handlers.mu.Lock()
		on := a.handlers.running["page"].spec.On
		a.handlers.mu.Unlock()
		if slices.Equal(on, []string{"user.test"}) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it handles %v; want user.test", on)
		}
	}
}

// TestWhoseSignatureCounts on the storage: a member's, and of who is not known
// here yet only one under the authorities that count here.
func TestWhoseSignatureCounts(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formedOnFile(t, m[:2])
	a := m[0].agent
	held := a.storage.held()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stranger := belfry.NewNodeID()
	ca, err := a.signer()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.IssueNode(time.Now(), stranger, public)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := security.NewCA(held.Document.Cluster.UUID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	forged, err := foreign.IssueNode(time.Now(), stranger, public)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		t.Fatal(err)
	}
	candidate := func(certificate []byte, revoked ...string) []byte {
		table := held.table.clone()
		row := documentNode(77, "z")
		row.ID, row.Key, row.Certificate, row.Networks = stranger, PublicKey(public), certificate, []Network{{Name: "net1", Heartbeat: netip.MustParseAddrPort("10.0.9.9:7431")}}
		table.add(row)
		now := time.Now().UTC().Truncate(time.Millisecond)
		to := table.written(held.Document, now)
		to.Security.Revoked = revoked
		document, err := a.next(held, newOp(), to, repository.Entry{Time: now, Author: "a test"})
		if err != nil {
			t.Fatal(err)
		}
		return document
	}
	message := []byte("a record")
	signature := ed25519.Sign(private, message)
	for _, tt := range []struct {
		name      string
		candidate []byte
		counts    bool
	}{
		{"no document lists it", nil, false},
		{"the document that is held does not list it", held.encoded(t), false},
		{"listed, under the authority", candidate(certificate), true},
		{"listed, without a certificate", candidate(nil), false},
		{"listed, under another authority", candidate(forged), false},
		{"listed, and revoked", candidate(certificate, parsed.SerialNumber.Text(16)), false},
	} {
		verify, err := a.storage.admit(stranger, tt.candidate)
		if counts := err == nil && verify(message, signature); counts != tt.counts {
			t.Errorf("%s: counts %t (%v); want %t", tt.name, counts, err, tt.counts)
		}
	}
	if _, err := a.storage.admit(m[1].agent.id.node.ID, nil); err != nil {
		t.Errorf("a member: %v", err)
	}
	// Who was removed is nobody, whatever lists it.
	gone := m[1].agent.id.node.ID
	row := held.encoded(t)
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n2", false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.storage.admit(gone, row); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("a node that was removed: %v; want ErrNotMember", err)
	}
}

func (h *heldTable) encoded(t *testing.T) []byte {
	t.Helper()
	data, err := repository.Encode(h.Document)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestTwoMembersCommitAtOnce: the storage decides who comes first, and the other
// one makes its change on what came before. None is lost.
func TestTwoMembersCommitAtOnce(t *testing.T) {
	t.Parallel()
	const each = 10
	m := machines(t, 2)
	formedOnFile(t, m)
	before := m[0].agent.members.Table().Generation
	var group sync.WaitGroup
	for i, one := range m {
		one.waitMode(t, repository.Ready)
		group.Go(func() {
			for n := range each {
				grant := security.Grant{Subjects: []string{fmt.Sprintf("uid:%d", 1000*(i+1)+n)}, Role: "reader"}
				if _, _, err := one.agent.commit(t.Context(), func(t *Table) error { t.Roles = append(t.Roles, grant); return nil }); err != nil {
					t.Errorf("%s: change %d: %v", one.Name, n, err)
				}
			}
		})
	}
	group.Wait()
	for _, one := range m {
		one.waitGeneration(t, before+1)
	}
	for end := time.Now().Add(testTimeout); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // of several agents, whose states are asked
		a, b := m[0].agent.members.Table(), m[1].agent.members.Table()
		if len(a.Roles) == 2*each && len(b.Roles) == 2*each && a.Generation == b.Generation {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d and %d changes are in force, generations %d and %d; want %d each", len(a.Roles), len(b.Roles), a.Generation, b.Generation, 2*each)
		}
	}
}

// TestAMemberWithoutASlotOnlyReads: the file has eight host slots, and the ninth
// member has its changes made by others. It can not do without them.
func TestAMemberWithoutASlotOnlyReads(t *testing.T) {
	t.Parallel()
	m := machines(t, fileHosts+1)
	formedOnFile(t, m)
	ninth := m[fileHosts]
	ninth.waitMode(t, repository.Ready)
	if err := ninth.agent.storage.fit(); !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("it can commit: %v; want ErrRestricted", err)
	}
	answer, err := ninth.dial(t).SetConfig(t.Context(), "tunables.node_timeout", "7s", false)
	if err != nil {
		t.Fatal(err)
	}
	if table := ninth.agent.members.Table(); table.Generation != answer.GetGeneration() || table.Tunables["node_timeout"] != "7s" {
		t.Errorf("generation %d, node_timeout %s; want %d, 7s", table.Generation, table.Tunables["node_timeout"], answer.GetGeneration())
	}
	if by := ninth.agent.members.Table().Origin; by != m[0].agent.id.node.ID {
		t.Errorf("committed by %s; want n1", by)
	}
}

// TestWhyARepositoryIsNotFoundIsTold: a copy beside it, which would become
// another repository, or a file that can not be read.
func TestWhyARepositoryIsNotFoundIsTold(t *testing.T) {
	t.Parallel()
	m := machines(t, 1)
	path := formedOnFile(t, m)
	m[0].waitMode(t, repository.Ready)
	m[0].stop(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(filepath.Dir(path), "copy.belfry")
	if err := os.WriteFile(other, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m[0].start(t)
	m[0].waitMode(t, repository.Restricted)
	if why := m[0].agent.storage.state.Load().why.Error(); !strings.Contains(why, "is there more than once, "+other+" and "+path) {
		t.Errorf("with a copy: %s", why)
	}
	m[0].stop(t)
	if err := errors.Join(os.Remove(other), os.Truncate(path, int64(len(data)/2))); err != nil {
		t.Fatal(err)
	}
	m[0].start(t)
	m[0].waitMode(t, repository.Restricted)
	if why := m[0].agent.storage.state.Load().why.Error(); !strings.Contains(why, "no device has repository") || !strings.Contains(why, path) {
		t.Errorf("cut in half: %s", why)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	m[0].waitMode(t, repository.Ready) // what was saved is as good as it was
}
