package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

func TestStatusSaysHowOldItsFactsAre(t *testing.T) {
	t.Parallel()
	got, err := startAgent(t, reader).dial(t).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &belfryv1.GetStatusResponse{
		ClusterId: belfry.ClusterID{0xc}.String(), ClusterName: "dev", NodeId: nodeA.String(), NodeName: "a",
		NodesUp: 1, NodesTotal: 2, LinksUp: 1, LinksTotal: 2, OldestFact: durationpb.New(3 * time.Second),
		Time: timestamppb.New(now), Generation: 7,
		Nodes: []*belfryv1.Node{
			{
				Id: nodeA.String(), Name: "a", Number: 1, Incarnation: 2, Verdict: "up", Cause: "-", Since: timestamppb.New(now.Add(-time.Minute)),
				Self: true, Note: "this node", Addresses: []string{"127.0.0.1:7431"}, Pid: 11, Version: "0.1", Started: timestamppb.New(now.Add(-time.Hour)),
			},
			{
				Id: nodeB.String(), Name: "b", Number: 2, Incarnation: 5, Verdict: "down", Cause: "process", Since: timestamppb.New(now.Add(-time.Second)),
				LastHeard: timestamppb.New(now.Add(-3 * time.Second)), Observers: 2, LinksTotal: 1, Age: durationpb.New(3 * time.Second), Stream: &belfryv1.PeerStream{},
			},
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestANodeComesWithItsEvidence(t *testing.T) {
	t.Parallel()
	c := startAgent(t, reader).dial(t)
	for _, name := range []string{"b", nodeB.String(), strings.ToUpper(nodeB.String())} {
		got, err := c.Node(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		want := []*belfryv1.Evidence{
			{Time: timestamppb.New(now), By: "a", Link: "net1", Text: "stream reset"},
			{Time: timestamppb.New(now), By: "b", Text: "claim"},
		}
		if diff := cmp.Diff(want, got.GetEvidence(), protocmp.Transform()); diff != "" || got.GetNode().GetName() != "b" {
			t.Errorf("node %q, -want +got:\n%s", got.GetNode().GetName(), diff)
		}
	}
	_, err := c.Node(t.Context(), "x")
	if want := `GetNode: x: not found: no node "x"; the members are a b`; !errors.Is(err, belfry.ErrNotFound) || err.Error() != want {
		t.Errorf("error %v; want %s", err, want)
	}
}

func TestLinksAreOfOnePeerOrAll(t *testing.T) {
	t.Parallel()
	c := startAgent(t, reader).dial(t)
	for peer, want := range map[string]int{"": 2, "b": 2, "a": 0} {
		got, err := c.Links(t.Context(), peer)
		if err != nil || len(got.GetLinks()) != want {
			t.Errorf("peer %q: %d links (%v); want %d", peer, len(got.GetLinks()), err, want)
		}
	}
	all, err := c.Links(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	first, second := all.GetLinks()[0], all.GetLinks()[1]
	if first.GetNetwork() != "net1" || first.GetLossRatio() != 0.2 || first.GetPeerState() != "" || first.GetPeerAge() != nil {
		t.Errorf("got %v; want net1 with a loss of 0.2 and nothing of the peer", first)
	}
	if second.GetPeerState() != "one-way-in" || second.GetPeerAge().AsDuration() != time.Second {
		t.Errorf("got %v; want the peer's view", second)
	}
}

func TestPagesMissNothing(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	a.cluster.extra = 1200
	c := a.dial(t)
	nodes, err := c.Nodes(t.Context())
	if err != nil || len(nodes) != 1202 {
		t.Fatalf("%d nodes (%v); want 1202", len(nodes), err)
	}
	for i := 1; i < len(nodes); i++ {
		if nodes[i-1].GetName() >= nodes[i].GetName() {
			t.Fatalf("%s stands before %s", nodes[i-1].GetName(), nodes[i].GetName())
		}
	}
	for i := range 1100 {
		a.events.status.Entries = append(a.events.status.Entries, event.EntryStatus{Entry: event.EntryID(i + 1), Class: "user.x", Subject: fmt.Sprint(i)})
	}
	a.events.status.Interests = []event.InterestStatus{{Node: nodeB, Name: "b", Interests: 2, Live: true}, {Name: "c"}}
	list, err := c.Registrations(t.Context(), "")
	if err != nil || len(list.GetEntries()) != 1100 || len(list.GetInterests()) != 2 {
		t.Errorf("%d entries, %d interests (%v); want 1100 and 2", len(list.GetEntries()), len(list.GetInterests()), err)
	}
	if live, parked := list.GetInterests()[0].GetState(), list.GetInterests()[1].GetState(); live != "live" || parked != "parked" {
		t.Errorf("states %s, %s; want live, parked", live, parked)
	}
}

func TestAPageTokenIsTheLastKey(t *testing.T) {
	t.Parallel()
	rows := []string{"a", "b", "c", "d"}
	key := func(s *string) string { return *s }
	first, token, err := page(rows, 2, "", key)
	if err != nil || strings.Join(first, "") != "ab" {
		t.Fatalf("first page %v (%v)", first, err)
	}
	second, end, err := page([]string{"a", "aa", "c", "d"}, 2, token, key) // b went, aa came
	if err != nil || strings.Join(second, "") != "cd" || end != "" {
		t.Errorf("second page %v, token %q (%v); want c d and no token", second, end, err)
	}
	if _, _, err := page(rows, 2, "?", key); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("bad token: %v; want ErrUsage", err)
	}
}

func TestAnotherNodesListingIsAskedOfThatNode(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	for node, want := range map[string]string{"": "a", "a": "a", "b": "b"} {
		got, err := a.dial(t).Registrations(t.Context(), node)
		if err != nil || got.GetNodeName() != want {
			t.Errorf("node %q: listing of %q (%v); want %q", node, got.GetNodeName(), err, want)
		}
	}
	_, err := a.raw(t).ListEntries(t.Context(), &belfryv1.ListEntriesRequest{Node: "b", PageSize: 1})
	if asClient(err) != belfry.ErrNotMember { //nolint:errorlint // the sentinel itself
		t.Errorf("error %v; want that of the node", err)
	}
}

func TestTheCatalogueNamesTheFieldsOfData(t *testing.T) {
	t.Parallel()
	c := startAgent(t, reader).dial(t)
	all, err := c.Classes(t.Context(), "")
	if err != nil || len(all) != 2 || all[0].GetClass() != "node.state" {
		t.Fatalf("classes %v (%v); want two by name", all, err)
	}
	one, err := c.Classes(t.Context(), "process.exit")
	want := []string{"pid", "exit_code", "signal", "core_dumped", "exe", "cmdline", "uid", "status_source"}
	if diff := cmp.Diff(want, one[0].GetFields()); diff != "" || err != nil {
		t.Errorf("fields (%v), -want +got:\n%s", err, diff)
	}
	if _, err := c.Classes(t.Context(), "x"); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("unknown class: %v; want ErrNotFound", err)
	}
}

func TestSendPostsOnce(t *testing.T) {
	t.Parallel()
	a := startAgent(t, operator)
	c := a.dial(t)
	got, err := c.Send(t.Context(), "user.build", "web", []byte(`{"ok": true}`), 9999)
	if err != nil || got.GetPosted() != 9999 || got.GetMatched() != 3 || got.GetNodeName() != "a" {
		t.Errorf("answer %v (%v)", got, err)
	}
	sent := a.events.sent[0]
	var data structpb.Struct
	if err := proto.Unmarshal(sent.Data, &data); err != nil || !data.GetFields()["ok"].GetBoolValue() {
		t.Errorf("data %v (%v)", &data, err)
	}
	if sent.Class != "user.build" || sent.Subject != "web" || sent.Repeat != 9999 || sent.Time.IsZero() {
		t.Errorf("sent %+v", sent)
	}
	tests := []struct {
		class, subject, data string
		want                 error
		text                 string
	}{
		{"node.state", "", "", belfry.ErrUsage, `SendEvent: node.state: "node.state" is not for users to send; choose user.NAME`},
		{"user.x", "", `[1]`, belfry.ErrUsage, `SendEvent: user.x: data is not a JSON object; write {"key": value}`},
		{"user.x", "", `{"a":`, belfry.ErrUsage, "SendEvent: user.x: data is not JSON: byte 5: unexpected end of JSON input"},
		{"user.x", "", `{"a":"` + strings.Repeat("x", maxData) + `"}`, belfry.ErrLimit, "SendEvent: user.x: limit reached: the data has 4108 bytes; at most 4096"},
		{"user.x", "often", "", belfry.ErrLimit, "SendEvent: user.x:often: limit reached: repeat 1000000001; at most 1,000,000,000"},
		{"user.x", "hang", "", context.DeadlineExceeded, "context deadline exceeded"},
	}
	for _, tt := range tests {
		var data []byte
		if tt.data != "" {
			data = []byte(tt.data)
		}
		repeat := uint64(0)
		if tt.subject == "often" {
			repeat = maxRepeat + 1
		}
		_, err := c.Send(t.Context(), tt.class, tt.subject, data, repeat)
		if !errors.Is(err, tt.want) || err.Error() != tt.text {
			t.Errorf("error %v\nwant  %s", err, tt.text)
		}
	}
	if len(a.events.sent) != 1 {
		t.Errorf("%d sent; want 1", len(a.events.sent))
	}
	if _, err := c.Send(t.Context(), "user.x", "", nil, maxRepeat); err != nil {
		t.Errorf("as often as is allowed: %v", err)
	}
}

func TestSendingManyKeepsToTheSameLimits(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	stream, err := a.raw(t).SendEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events := []*belfryv1.SendEventRequest{{Class: "user.x", Repeat: maxRepeat}, {Class: "user.x", Repeat: maxRepeat + 1}}
	if err := stream.Send(&belfryv1.SendEventsRequest{Events: events}); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if r := got.GetResults(); len(r) != 2 || r[0].GetRefusal() != nil || r[1].GetRefusal().GetCode() != "LIMIT" {
		t.Errorf("results %v; want the second refused for its repeat", r)
	}
	for len(events) <= maxEvents {
		events = append(events, events[0])
	}
	if err := stream.Send(&belfryv1.SendEventsRequest{Events: events}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(asClient(err), belfry.ErrLimit) {
		t.Errorf("%d events in one request: %v; want ErrLimit", len(events), err)
	}
	if n := len(a.events.sent); n != 1 {
		t.Errorf("%d sent; want 1", n)
	}
}

func TestARegistrationIsReadOrRefused(t *testing.T) {
	t.Parallel()
	s := New(Options{Decide: byRole, Cluster: &fakeCluster{}})
	hi := 90.0
	got, err := s.registration(&belfryv1.Registration{
		Class: "filesystem.usage", Subject: "/", Scope: belfryv1.Scope_SCOPE_CLUSTER, Nodes: []string{"b", nodeA.String()},
		OnlyWhereMonitored: true, Wait: true, NoFollow: true, Snapshot: true, Hi: &hi, Hysteresis: 2,
		Edge: belfryv1.EdgeFilter_EDGE_FILTER_FAILING, Filter: "true", CoalesceNever: true, Limit: 5,
	})
	want := belfry.Registration{
		Class: "filesystem.usage", Subject: "/", Scope: belfry.ScopeCluster, Nodes: []belfry.NodeID{nodeB, nodeA},
		OnlyWhereMonitored: true, Wait: true, NoFollow: true, Snapshot: true, Threshold: belfry.Threshold{Hi: 90, HasHi: true, Hysteresis: 2},
		Edge: belfry.EdgeOnlyFailing, Filter: "true", Coalesce: belfry.CoalesceNever, Limit: 5,
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	for text, p := range map[string]*belfryv1.Registration{
		"no class":                          nil,
		"unknown scope 9; local or cluster": {Class: "a", Scope: 9},
		"unknown edge filter 7; both, failing or recovered": {Class: "a", Edge: 7},
		"nodes are given but the scope is local":            {Class: "a", Nodes: []string{"b"}},
		`no node "x"; the members are a b`:                  {Class: "a", Scope: belfryv1.Scope_SCOPE_CLUSTER, Nodes: []string{"x"}},
	} {
		if _, err := s.registration(p); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v; want %q", err, text)
		}
	}
}

func TestEverySentinelSurvivesTheWire(t *testing.T) {
	t.Parallel()
	for _, row := range grpcCodes {
		err := statusOf(&belfry.Error{Op: "op", Node: nodeB, Subject: "s", Err: fmt.Errorf("%w: text", row.sentinel)})
		if got := asClient(err); got != row.sentinel { //nolint:errorlint // the sentinel itself
			t.Errorf("%v came back as %v", row.sentinel, got)
		}
	}
}

func TestASenderKeepsOrderAndTellsTheFirstRefusal(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Sender(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 10_000
	for i := range n {
		if err := s.Post(t.Context(), "user.x", fmt.Sprint(i), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	matched, err := s.Flush(t.Context())
	if err != nil || matched != 3*n || len(a.events.sent) != n {
		t.Fatalf("matched %d of %d sent (%v); want %d of %d", matched, len(a.events.sent), err, 3*n, n)
	}
	for i, sent := range a.events.sent {
		if sent.Subject != fmt.Sprint(i) {
			t.Fatalf("event %d has subject %s", i, sent.Subject)
		}
	}
	if err := s.Post(t.Context(), "node.state", "", nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Flush(t.Context()); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("flush: %v; want the refusal", err)
	}
	if err := s.Post(t.Context(), "user.x", "", nil, 0); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("post after a refusal: %v; want the refusal", err)
	}
}

func TestASenderEndsWithItsAgent(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Sender(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Post(t.Context(), "user.x", "", nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop(t, a.Server)
	for err == nil {
		err = s.Post(t.Context(), "user.x", "", nil, 0)
	}
	if _, flushed := s.Flush(t.Context()); !errors.Is(flushed, belfry.ErrNoAgent) || !errors.Is(err, belfry.ErrNoAgent) {
		t.Errorf("post: %v, flush: %v; want that there is no agent", err, flushed)
	}
	s.Close()
}

func TestAPageHoldsNoMoreConsumersThanFit(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	for i, n := range []int{6000, 6000, 3 * maxConsumersListed, 1} {
		e := event.EntryStatus{Entry: event.EntryID(i + 1), Class: "user.x", Subject: fmt.Sprint(i)}
		for range n {
			e.Consumers = append(e.Consumers, event.ConsumerStatus{Kind: "stream", Name: strings.Repeat("n", maxName)})
		}
		a.events.status.Entries = append(a.events.status.Entries, e)
	}
	list, err := a.dial(t).Registrations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list.GetEntries() {
		got = append(got, fmt.Sprintf("%s: %d of %d", e.GetSubject(), len(e.GetConsumers()), e.GetConsumersTotal()))
	}
	want := []string{"0: 6000 of 6000", "1: 6000 of 6000", "2: 10000 of 30000", "3: 1 of 1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
