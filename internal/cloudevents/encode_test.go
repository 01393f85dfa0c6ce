package cloudevents

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

var update = flag.Bool("update", false, "write the golden files; read the difference before you commit it")

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// golden are notifications of every kind, by the name of their file.
func golden(t *testing.T) map[string]belfry.Notification {
	t.Helper()
	at := time.Date(2026, 3, 1, 12, 0, 5, 120_000_000, time.FixedZone("CET", 3600))
	id, err := belfry.ParseNodeID("6ba7b810-9dad-41d1-80b4-00c04fd430c8")
	if err != nil {
		t.Fatal(err)
	}
	base := belfry.Notification{Registration: 1, Node: id, NodeName: "b", Incarnation: 3, Entry: 12, Time: at, FirstTime: at}
	with := func(change func(*belfry.Notification)) belfry.Notification {
		n := base
		change(&n)
		return n
	}
	code := int32(0)
	user, err := structpb.NewStruct(map[string]any{"version": "1.2", "ok": true, "parts": []any{1, "two", nil}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]belfry.Notification{
		"occurrence": with(func(n *belfry.Notification) {
			n.Event = belfry.EventID{Class: "process.exit", Subject: "exe=/usr/sbin/nginx", Instance: "4711@8812345"}
			n.First, n.Last, n.Count, n.Code, n.Edge = 17, 17, 1, 9, belfry.EdgeFailing
			n.Data = marshal(t, &belfryv1.ProcessExit{Pid: 4711, Signal: "KILL", Exe: "/usr/sbin/nginx", Cmdline: "nginx: master", StatusSource: "pidfd"})
		}),
		"exit_code_zero": with(func(n *belfry.Notification) {
			n.Event = belfry.EventID{Class: "process.exit", Subject: "pid=1"}
			n.First, n.Last, n.Count = 1, 1, 1
			n.Data = marshal(t, &belfryv1.ProcessExit{Pid: 1, ExitCode: &code})
		}),
		"merged": with(func(n *belfry.Notification) {
			n.Event = belfry.EventID{Class: "file.modify", Subject: "/etc/a \"b\"\x01\xff ü"}
			n.First, n.Last, n.Count, n.Skipped, n.LowerBound = 2, 1<<63, 40, 5, true
			n.FirstTime = at.Add(-time.Minute)
			n.Data = marshal(t, &belfryv1.FileModify{What: "write", Path: "/etc/a", SizeBytes: 1 << 60})
		}),
		"already": with(func(n *belfry.Notification) {
			n.Kind, n.Value, n.Edge = belfry.KindAlready, 91.25, belfry.EdgeFailing
			n.Event = belfry.EventID{Class: "filesystem.usage", Subject: "/"}
			n.Data = marshal(t, &belfryv1.FilesystemUsage{MountPoint: "/", TotalBytes: 1 << 40})
		}),
		"state": with(func(n *belfry.Notification) {
			n.Kind, n.First, n.Last = belfry.KindState, 4, 4
			n.Event = belfry.EventID{Class: "node.state", Subject: "c"}
			n.Data = marshal(t, &belfryv1.NodeState{Node: "c", From: "up", To: "down", Cause: "process", Evidence: []string{"stream reset", "dial refused"}})
		}),
		"user": with(func(n *belfry.Notification) {
			n.Event = belfry.EventID{Class: "user.build", Subject: "web"}
			n.First, n.Last, n.Count = 1, 1, 1
			n.Data = marshal(t, user)
		}),
		"user_without_data": with(func(n *belfry.Notification) {
			n.Event = belfry.EventID{Class: "user.build"}
			n.First, n.Last, n.Count, n.NodeName = 1, 1, 1, ""
		}),
		"cut_data": with(func(n *belfry.Notification) {
			n.Event = belfry.EventID{Class: "node.state", Subject: "c"}
			n.First, n.Last, n.Count = 1, 1, 1
			n.Data = marshal(t, &belfryv1.NodeState{Node: "a long name"})[:5]
		}),
		"gap_of_one_event": with(func(n *belfry.Notification) {
			n.Kind, n.First, n.Last = belfry.KindGap, 5, 9
			n.Event = belfry.EventID{Class: "user.job", Subject: "1"}
			n.Gap = &belfry.Gap{Total: 5, Known: true, Resync: true, Reason: belfry.GapSlow, From: at.Add(-time.Second), To: at}
		}),
		"gap_of_several": {
			Kind: belfry.KindGap, Registration: 1, Time: at,
			Gap: &belfry.Gap{Reason: belfry.GapLink, From: at.Add(-time.Second), To: at},
		},
		"coverage": with(func(n *belfry.Notification) { n.Kind, n.Entry = belfry.KindCoverage, 0 }),
		"ended": with(func(n *belfry.Notification) {
			n.Kind, n.Event = belfry.KindEnded, belfry.EventID{Class: "process.exit", Subject: "pid=1"}
		}),
	}
}

func TestEventsAreWrittenAsTheGoldenFilesShow(t *testing.T) {
	t.Parallel()
	for name, n := range golden(t) {
		line := Append(nil, "dev/1", &n)
		if !json.Valid(line) {
			t.Errorf("%s: not JSON: %s", name, line)
			continue
		}
		var event map[string]any
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatal(err)
		}
		checkAttributes(t, name, event)
		got, err := json.MarshalIndent(json.RawMessage(line), "", "  ") // keeps order and text
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		path := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

// checkAttributes holds an event against the rules of CloudEvents 1.0 3.1:
// names of lower-case letters and digits, the required ones present and not
// empty, extensions of its few types.
func checkAttributes(t *testing.T, name string, event map[string]any) {
	t.Helper()
	for _, required := range []string{"id", "source", "specversion", "type"} {
		if s, _ := event[required].(string); s == "" {
			t.Errorf("%s: %s is missing", name, required)
		}
	}
	for attribute, value := range event {
		if strings.Trim(attribute, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			t.Errorf("%s: attribute %q; only a-z and 0-9", name, attribute)
		}
		switch v := value.(type) {
		case string, bool:
		case float64:
			if v != float64(int32(v)) {
				t.Errorf("%s: %s is %v; integers have 32 bits", name, attribute, v)
			}
		default:
			if attribute != "data" {
				t.Errorf("%s: %s is a %T", name, attribute, v)
			}
		}
	}
}

func TestFieldsAreNamedAndPlain(t *testing.T) {
	t.Parallel()
	n := golden(t)
	tests := []struct {
		name string
		want map[string]any
	}{
		{"occurrence", map[string]any{ // no exit_code: it was a signal
			"pid": 4711, "signal": "KILL", "core_dumped": false, "exe": "/usr/sbin/nginx",
			"cmdline": "nginx: master", "uid": 0, "status_source": "pidfd",
		}},
		{"exit_code_zero", map[string]any{
			"pid": 1, "exit_code": 0, "signal": "", "core_dumped": false, "exe": "", "cmdline": "", "uid": 0, "status_source": "",
		}},
		{"state", map[string]any{
			"node": "c", "node_id": "", "from": "up", "to": "down", "cause": "process", "incarnation": 0, "observers": 0,
			"silent_since": 0, "turn": 0, "view": 0, "evidence": []any{"stream reset", "dial refused"},
		}},
		{"user", map[string]any{"version": "1.2", "ok": true, "parts": []any{1.0, "two", nil}}},
		{"user_without_data", map[string]any{}},
		{"gap_of_several", map[string]any{}},
	}
	for _, tt := range tests {
		got, err := Fields(n[tt.name].Event.Class, n[tt.name].Data)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, diff)
		}
	}
	if got, err := Fields("node.state", []byte{0xff}); belfry.Code(err) != "UNSUPPORTED" {
		t.Errorf("broken data: %v, %v; want ErrUnsupported", got, err)
	}
}

// TestEveryMessageHasItsClass fails for a message of data.proto that no class
// carries, so that a new producer is not forgotten here.
func TestEveryMessageHasItsClass(t *testing.T) {
	t.Parallel()
	carried := map[protoreflect.FullName]bool{}
	for _, m := range messages {
		carried[m.Descriptor().FullName()] = true
	}
	all := belfryv1.File_belfry_v1_data_proto.Messages()
	for i := range all.Len() {
		if !carried[all.Get(i).FullName()] {
			t.Errorf("%s is the data of no class; add it to messages", all.Get(i).FullName())
		}
	}
}

// FuzzAppend holds that what leaves is one line of JSON, whatever a file is
// called and a user sends.
func FuzzAppend(f *testing.F) {
	f.Add("user.x", "a\"b\\c\n\xff", "i", []byte{1, 2}, uint64(3), 1.5)
	f.Add("process.exit", "", "", []byte{8, 1}, uint64(0), 0.0)
	f.Fuzz(func(t *testing.T, class, subject, instance string, data []byte, last uint64, value float64) {
		for _, r := range class { // classes are checked before they get here
			if (r < 'a' || r > 'z') && r != '.' && r != '-' {
				return
			}
		}
		n := belfry.Notification{Event: belfry.EventID{Class: belfry.Class(class), Subject: subject, Instance: instance}, Data: data, First: 1, Last: last, Entry: 1, Value: value, NodeName: subject}
		line := Append(nil, subject, &n)
		if !json.Valid(line) || strings.ContainsAny(string(line), "\n\r") {
			t.Errorf("not one line of JSON: %q", line)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	n := belfry.Notification{Event: belfry.EventID{Class: "user.x", Subject: "s"}, First: 1, Last: 1, Count: 1, Entry: 1, NodeName: "a", Time: time.Unix(1, 0)}
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = Append(line[:0], "dev", &n)
	}
}
