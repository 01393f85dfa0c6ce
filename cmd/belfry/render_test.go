package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cloudevents"
)

// noon is now in these tests.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// set fills a time or a duration of an API message, whose types belong to a
// module that this folder does not use. A duration is one since the epoch.
func set[T any](field **T, at time.Time) {
	*field = new(T)
	v := reflect.ValueOf(*field).Elem()
	v.FieldByName("Seconds").SetInt(at.Unix())
	v.FieldByName("Nanos").SetInt(int64(at.Nanosecond()))
}

func lasting(d time.Duration) time.Time { return time.Unix(0, int64(d)) }

// encoded is a message as protobuf writes it: field numbers and their values,
// in turn.
func encoded(fields ...any) (b []byte) {
	for i := 0; i < len(fields); i += 2 {
		number := uint64(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			b = binary.AppendUvarint(binary.AppendUvarint(b, number<<3), uint64(v))
		case bool:
			b = append(binary.AppendUvarint(b, number<<3), 1)
		case string:
			b = append(binary.AppendUvarint(binary.AppendUvarint(b, number<<3|2), uint64(len(v))), v...)
		}
	}
	return b
}

func testNodes() []*belfryv1.Node {
	a := &belfryv1.Node{
		Id: "aaaaaaaa-0000-4000-8000-000000000001", Name: "a", Number: 1, Incarnation: 3, Verdict: "up", Cause: "direct", Self: true,
		Pid: 4711, Version: "v0.1.0", Addresses: []string{"127.0.11.1:7431"},
	}
	b := &belfryv1.Node{
		Id: "bbbbbbbb-0000-4000-8000-000000000002", Name: "b", Number: 2, Incarnation: 1, Verdict: "up", Cause: "direct",
		LinksUp: 2, LinksTotal: 2, Observers: 2,
	}
	c := &belfryv1.Node{
		Id: "cccccccc-0000-4000-8000-000000000003", Name: "c\x1b[31m", Number: 3, Incarnation: 12, Verdict: "down", Cause: "process",
		LinksTotal: 2, Observers: 2, Note: "restarted twice",
	}
	set(&a.Since, noon.Add(-12*time.Second))
	set(&b.Since, noon.Add(-3*time.Minute))
	set(&b.LastHeard, noon.Add(-300*time.Millisecond))
	set(&b.Age, lasting(300*time.Millisecond))
	set(&b.Interval, lasting(500*time.Millisecond))
	set(&b.MaxWait, lasting(612*time.Millisecond))
	set(&c.Since, noon.Add(-900*time.Millisecond))
	return []*belfryv1.Node{a, b, c}
}

// TestTablesLookAsExpected shows each table once, with what is odd in it.
func TestTablesLookAsExpected(t *testing.T) {
	t.Parallel()
	o := &output{}
	title := func(s string) { fmt.Fprintf(o, "\n== %s\n", s) }
	nodes := testNodes()
	status := &belfryv1.GetStatusResponse{ClusterName: "dev", NodesUp: 2, NodesTotal: 3, LinksUp: 2, LinksTotal: 4, Nodes: nodes}
	set(&status.OldestFact, lasting(900*time.Millisecond))
	title("status")
	statusLine(o, status)
	nodeTable(nodes, noon, false, "NODE VERDICT FOR LINKS INTERVAL MAXWAIT NOTE").write(o)
	title("node list -o wide")
	nodeTable(nodes, noon, true, "NODE VERDICT CAUSE FOR INCARNATION LINKS INTERVAL MAXWAIT NOTE").write(o)
	title("node list in colour")
	o.colored = true
	nodeTable(nodes, noon, false, "NODE VERDICT NOTE").write(o)
	o.colored = false
	title("node show")
	nodeSheet(nodeShowView{nodeView: viewOfNode(nodes[1], noon)}, noon, nodes[1]).write(o)
	title("node why")
	whyTable(o, testEvidence(nodes[2]), noon)
	title("link list")
	linkTable(o, testLinks(), noon, false)
	title("link list -o wide")
	linkTable(o, testLinks(), noon, true)
	title("link show")
	linkSheets(o, testLinks(), noon, false)
	title("registration list")
	registrationTable(o, testEntries(), noon, false)
	title("registration list -o wide")
	registrationTable(o, testEntries(), noon, true)
	golden(t, filepath.Join("testdata", "tables.txt"), o.buffer.String())
}

func testEvidence(n *belfryv1.Node) *belfryv1.GetNodeResponse {
	answer := &belfryv1.GetNodeResponse{Node: n}
	for i, e := range []*belfryv1.Evidence{
		{By: "a", Text: "stream reset"},
		{By: "b", Link: "net1", Text: "dial refused"},
		{By: "a", Link: "net1", Text: "probes unanswered: 8"},
	} {
		set(&e.Time, noon.Add(time.Duration(i)*1234*time.Microsecond))
		answer.Evidence = append(answer.Evidence, e)
	}
	return answer
}

func testLinks() []*belfryv1.Link {
	b := &belfryv1.Link{
		Peer: "b", Network: "net1", Local: "127.0.11.1:7431", Remote: "127.0.11.2:7441", State: "up", LossRatio: 0.004, RttKnown: true,
		MaxDeviation: 8, Deviation: 1, Sent: 100, Received: 99, Lost: 1, PeerState: "up",
	}
	set(&b.Since, noon.Add(-time.Hour))
	set(&b.LastSent, noon.Add(-200*time.Millisecond))
	set(&b.LastReceived, noon.Add(-100*time.Millisecond))
	set(&b.LastEcho, noon.Add(-100*time.Millisecond))
	set(&b.Rtt, lasting(85*time.Microsecond))
	set(&b.RttDeviation, lasting(12*time.Microsecond))
	set(&b.RttLast, lasting(1500*time.Microsecond))
	set(&b.Jitter, lasting(40*time.Microsecond))
	set(&b.Interval, lasting(500*time.Millisecond))
	set(&b.Announced, lasting(500*time.Millisecond))
	set(&b.MaxWait, lasting(612*time.Millisecond))
	set(&b.PeerAge, lasting(400*time.Millisecond))
	return []*belfryv1.Link{b, {Peer: "c", Network: "net1", State: "down", Reason: "silent", MaxDeviation: 8, Deviation: 9}}
}

func testEntries() *belfryv1.ListEntriesResponse {
	nginx := &belfryv1.RegistrationEntry{
		Entry: 1, Class: "process.exit", Subject: "unit=nginx.service", State: "active", Identifier: "4711@8812345", Sequence: 17, HeldBy: "listener",
		Consumers: []*belfryv1.EntryConsumer{{Kind: "remote", Name: "a"}, {Kind: "remote", Name: "c"}},
	}
	pg := &belfryv1.RegistrationEntry{
		Entry: 2, Class: "process.exit", Subject: "unit=pg.service", State: "blocked", Sequence: 2, HeldBy: "local",
		Consumers: []*belfryv1.EntryConsumer{{Kind: "stream", Name: "pid 812 pgwatch", Queued: 3, Gaps: 1}, {Kind: "remote", Name: "a", Observed: true}},
	}
	build := &belfryv1.RegistrationEntry{Entry: 3, Class: "user.build", Subject: "web", State: "active", HeldBy: "local"}
	for _, e := range []*belfryv1.RegistrationEntry{nginx, pg, build} {
		set(&e.Since, noon.Add(-4*time.Second))
	}
	parked := &belfryv1.PeerInterests{NodeName: "c", Version: 3, Interests: 1, State: "parked", Queued: 1}
	set(&parked.Since, noon.Add(-2*time.Second))
	return &belfryv1.ListEntriesResponse{
		NodeName: "b", Entries: []*belfryv1.RegistrationEntry{nginx, pg, build},
		Interests: []*belfryv1.PeerInterests{{NodeName: "a", Version: 14, Interests: 2, State: "live"}, parked},

		ClusterRegistrations: testClusterRegistrations(),
	}
}

func testClusterRegistrations() []*belfryv1.ClusterRegistration {
	at := func(node string, state belfryv1.CoverageState, ago time.Duration, why string) *belfryv1.Coverage {
		c := &belfryv1.Coverage{NodeName: node, State: state}
		if ago > 0 {
			set(&c.Since, noon.Add(-ago))
		}
		if why != "" {
			c.Refusal = &belfryv1.Refusal{Code: "UNSUPPORTED", Message: why}
		}
		return c
	}
	const installed, refused = belfryv1.CoverageState_COVERAGE_STATE_INSTALLED, belfryv1.CoverageState_COVERAGE_STATE_REFUSED
	const pending, unreachable = belfryv1.CoverageState_COVERAGE_STATE_PENDING, belfryv1.CoverageState_COVERAGE_STATE_UNREACHABLE
	const why = "the kernel has no PSI; boot it with psi=1"
	return []*belfryv1.ClusterRegistration{
		{
			Number: 7, Class: "node.*", Consumers: []*belfryv1.EntryConsumer{{Kind: "handler", Name: "page-me"}},
			Coverage: []*belfryv1.Coverage{at("d", installed, time.Minute, ""), at("a", installed, time.Hour, ""), at("e", unreachable, 0, "")},
		},
		{
			Number: 3, Class: "pressure.cpu", Subject: "some", Consumers: []*belfryv1.EntryConsumer{{Kind: "stream", Name: "pid 812 watch"}},
			Coverage: []*belfryv1.Coverage{at("a", refused, 4*time.Second, why), at("c", refused, 4*time.Second+time.Millisecond, why), at("b", refused, 9*time.Second, why), at("d", refused, 4*time.Second, "no\x1b right"), at("e", pending, time.Second, "")},
		},
	}
}

// testWatcher is one whose agent is a, with two classes.
func testWatcher(f form) *watcher {
	return &watcher{
		app: &app{out: &output{}, form: f}, flags: &watchFlags{},
		cluster: "dev", node: "a",
		classes: catalogue{{Class: "filesystem.usage", Kind: "value", Unit: "%"}, {Class: "process.exit"}},
	}
}

func testNotifications() []belfry.Notification {
	exit := belfry.Notification{
		Registration: 1, Node: belfry.NodeID{15: 2}, NodeName: "b", Incarnation: 1, Entry: 4,
		Event: belfry.EventID{Class: "process.exit", Subject: "exe=/w/worker", Instance: "4711@88"},
		First: 1, Last: 1, Count: 1, FirstTime: noon, Time: noon.Add(120 * time.Millisecond),
		Data: encoded(1, 4711, 3, "KILL", 5, "/w/worker", 6, "worker 600"),
	}
	status := exit
	status.First, status.Last, status.Count, status.Skipped, status.LowerBound = 2, 5, 3, 1, true
	status.Data = encoded(1, 4712, 2, 0, 4, true)
	usage := belfry.Notification{
		Node: belfry.NodeID{15: 3}, NodeName: "c", Event: belfry.EventID{Class: "filesystem.usage", Subject: "/"},
		First: 7, Last: 7, Count: 1, FirstTime: noon, Time: noon, Code: 1000, Edge: belfry.EdgeFailing, Value: 91.25, Data: encoded(6, 1024),
	}
	already := usage
	already.Kind, already.Count = belfry.KindAlready, 0
	state := belfry.Notification{
		Kind: belfry.KindState, NodeName: "a", Event: belfry.EventID{Class: "node.state", Subject: "c"},
		Last: 2, Time: noon, Edge: belfry.EdgeFailing, Data: encoded(1, "c", 3, "up", 4, "down", 5, "process", 9, "stream reset"),
	}
	gap := belfry.Notification{
		Kind: belfry.KindGap, NodeName: "b", Event: exit.Event, First: 6, Last: 8, Time: noon,
		Gap: &belfry.Gap{Total: 3, Known: true, Reason: belfry.GapOverflow, From: noon, To: noon},
	}
	unknown := belfry.Notification{Kind: belfry.KindGap, Gap: &belfry.Gap{Reason: belfry.GapLink}}
	file := belfry.Notification{
		NodeName: "c", Event: belfry.EventID{Class: "file.modify", Subject: "/tmp/two words\u009b"}, First: 1, Last: 2, Count: 2, Time: noon,
		Data: encoded(1, "write", 2, "/tmp/two words", 3, 12),
	}
	ended := belfry.Notification{Kind: belfry.KindEnded, NodeName: "b", Event: belfry.EventID{Class: "user.x"}, Last: 4, Time: noon}
	broken := belfry.Notification{NodeName: "b", Event: belfry.EventID{Class: "process.exit", Subject: "pid=1"}, First: 1, Last: 1, Count: 1, Time: noon, Data: []byte{0xff}}
	return []belfry.Notification{exit, status, usage, already, state, gap, unknown, file, ended, broken}
}

func TestWatchWritesEachForm(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, f := range []form{formTable, formWide, formJSONL, formYAML, formCloudEvents} {
		w := testWatcher(f)
		fmt.Fprintf(&all, "== %s\n", f)
		for _, n := range testNotifications() {
			n.Time, n.FirstTime = n.Time.In(time.Local), n.FirstTime.In(time.Local)
			if err := w.print(&n); err != nil {
				t.Fatal(err)
			}
		}
		all.Write(w.out.buffer.Bytes())
		if f != formJSONL {
			continue
		}
		for line := range bytes.Lines(w.out.buffer.Bytes()) {
			if err := checkSchema("watch", line); err != nil {
				t.Errorf("%v in %s", err, line)
			}
		}
	}
	golden(t, filepath.Join("testdata", "notifications.txt"), all.String())
}

func TestExecSeesTheEventInItsEnvironment(t *testing.T) {
	t.Parallel()
	notifications := testNotifications()
	want := []string{
		"BELFRY_CLASS=filesystem.usage", "BELFRY_SUBJECT=/", "BELFRY_NODE=c", "BELFRY_KIND=occurrence", "BELFRY_CODE=1000", "BELFRY_EDGE=failing",
		"BELFRY_VALUE=91.25", "BELFRY_SEQUENCE=7", "BELFRY_FIRST_SEQUENCE=7", "BELFRY_COUNT=1", "BELFRY_TIME=2026-11-23T12:00:00Z",
	}
	if diff := cmp.Diff(want, cloudevents.Environment(&notifications[2])); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	want = []string{
		"BELFRY_CLASS=", "BELFRY_SUBJECT=", "BELFRY_NODE=", "BELFRY_KIND=gap", "BELFRY_CODE=0", "BELFRY_EDGE=",
		"BELFRY_VALUE=", "BELFRY_SEQUENCE=0", "BELFRY_FIRST_SEQUENCE=0", "BELFRY_COUNT=0", "BELFRY_TIME=",
	}
	if got := cloudevents.Environment(&notifications[5]); got[9] != "BELFRY_COUNT=3" {
		t.Errorf("a gap of 3 occurrences has %s", got[9])
	}
	if diff := cmp.Diff(want, cloudevents.Environment(&notifications[6])); diff != "" {
		t.Errorf("environment of a gap (-want +got):\n%s", diff)
	}
}

func TestErrorsHaveTheirExitStatus(t *testing.T) {
	t.Parallel()
	agent := func(sentinel error, text string) error {
		return &belfry.Error{Op: "event.register", Subject: "node.state", Err: fmt.Errorf("%w: %s", sentinel, text)}
	}
	for _, test := range []struct {
		err     error
		status  int
		code    string
		message string
	}{
		{usagef("bad flag; good flag"), 2, "USAGE", "bad flag; good flag"},
		{failf(belfry.ErrNoThreshold, "no threshold; add one"), 2, "NO_THRESHOLD", "no threshold; add one"},
		{agent(belfry.ErrUsage, "column 3: odd"), 2, "USAGE", "node.state: column 3: odd"},
		{agent(belfry.ErrPermission, "not yours"), 1, "PERMISSION", "node.state: permission denied: not yours"},
		{fmt.Errorf("%w at ./x: gone; start one", belfry.ErrNoAgent), 3, "NO_AGENT", "no agent at ./x: gone; start one"},
		{agent(belfry.ErrNotMember, "x"), 4, "NOT_MEMBER", "node.state: not a member: x"},
		{fmt.Errorf("lost: %w", belfry.ErrUnknown), 4, "UNKNOWN", "lost: outcome unknown"},
		{fmt.Errorf("ask: %w", context.DeadlineExceeded), 5, "TIMEOUT", "time ran out; --timeout gives more"},
		{status{exitGap, "GAP", "a gap"}, 6, "GAP", "a gap"},
		{errors.New("disk on fire"), 1, "FAILED", "disk on fire"},
	} {
		a := &app{command: "watch"}
		code, object := a.describe(test.err)
		if code != test.status || object.Code != test.code || object.Message != test.message {
			t.Errorf("%v\n got %d %s %q\nwant %d %s %q", test.err, code, object.Code, object.Message, test.status, test.code, test.message)
		}
	}
}

func TestSignalsAndBrokenPipesEndQuietly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		cause error
		err   error
		want  int
	}{
		{"SIGINT", signalled(syscall.SIGINT), context.Canceled, 130},
		{"SIGTERM", signalled(syscall.SIGTERM), context.Canceled, 143},
		{"SIGTERM, and nothing went wrong", signalled(syscall.SIGTERM), nil, 0},
		{"EPIPE", nil, writeError(syscall.EPIPE), 141},
	} {
		var said bytes.Buffer
		ctx, stop := context.WithCancelCause(context.Background())
		stop(test.cause)
		a := &app{errOut: &said, command: "status"}
		if got := a.finish(ctx, test.err); got != test.want || said.Len() > 0 {
			t.Errorf("%s: exit status %d, said %q; want %d and nothing", test.name, got, said.String(), test.want)
		}
	}
}

func TestFullDiskIsAnError(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	a := &app{errOut: &said, command: "status", form: formJSON}
	if got := a.finish(context.Background(), writeError(syscall.ENOSPC)); got != 1 {
		t.Errorf("exit status %d, want 1", got)
	}
	want := `{"code":"FAILED","message":"no space left on device; send standard output where there is room","op":"status","node":"","subject":""}` + "\n"
	if diff := cmp.Diff(want, said.String()); diff != "" {
		t.Errorf("standard error (-want +got):\n%s", diff)
	}
	if err := checkSchema("error", said.Bytes()); err != nil {
		t.Error(err)
	}
}
