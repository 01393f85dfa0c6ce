package journal

import (
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// golden is a segment as version 1 writes it: whatever this version becomes,
// it reads what that one wrote.
var golden = filepath.Join("testdata", "v1.seg")

func TestTheFormatIsRead(t *testing.T) {
	t.Parallel()
	if *update {
		r := newRig(t, Options{})
		gap := r.on("y", 2, 4)
		gap.Kind, gap.Count, gap.Gap = belfry.KindGap, 0, &belfry.Gap{Total: 3, Known: true, Reason: belfry.GapOverflow, From: begin, To: begin}
		r.append(r.on("x", 1, 1), r.on("y", 1, 1), gap)
		r.append(r.on("x", 2, 7))
		if err := r.Close(true); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, r.fs.files["00000000000000000001.seg"].data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, fs: withFile(data), clock: &clock{begin.Add(time.Minute)}, options: Options{Incarnation: 1}}
	r.again(r.fs)
	r.expect(Query{}, `2 a/1 x 1-1
		3 a/1 y 1-1
		4 a/1 y gap overflow 2-4 total 3
		5 a/1 x 2-7
		7 boundary 12:00:00 to 12:01:00 complete true`)
}

func withFile(data []byte) *faultFS {
	fs := newFaultFS()
	fs.files["00000000000000000001.seg"] = &faultFile{fs: fs, data: data, durable: len(data), named: true}
	return fs
}

// FuzzSegment opens, reads and goes on with whatever is in the newest file,
// with a sound header or without. Memory stays near what the file takes.
func FuzzSegment(f *testing.F) {
	data, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, true)
	f.Add(data[headerSize:], false)
	f.Add(data[:len(data)/2], true)
	f.Add(append(append([]byte(nil), data[:150]...), data[170:]...), true)
	f.Fuzz(func(t *testing.T, data []byte, whole bool) {
		if !whole {
			h := header{magic: magicSegment, base: 1, node: nodeA, incarnation: 1, made: begin.UnixNano()}
			data = append(h.append(nil), data...)
		}
		r := &rig{t: t, fs: withFile(append([]byte(nil), data...)), clock: &clock{begin}, options: Options{Incarnation: 1}}
		r.again(r.fs)
		before := r.read(Query{})
		at := r.Durable()
		r.append(r.on("new", 1, 1))
		if got := r.read(Query{From: at}); got == "" {
			t.Error("what was appended is not read")
		}
		r.again(r.fs.crash(true))
		if after := r.read(Query{Until: at}); after != before {
			t.Errorf("another start reads something else:\n%s\n%s", before, after)
		}
	})
}

// FuzzRecord decodes a body. What is a notification is written as it was read.
func FuzzRecord(f *testing.F) {
	data, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	for at := headerSize; at < len(data); {
		n := int(binary.LittleEndian.Uint32(data[at:]))
		f.Add(data[at+frameSize : at+frameSize+n])
		_ = proto.Unmarshal(data[at+frameSize:at+frameSize+n], &belfryv1.JournalRecord{}) // what the library makes once
		at += frameSize + n
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var before, after runtime.MemStats
		d := &decoder{known: map[uint32]*introduction{}, match: func(*introduction) bool { return true }}
		runtime.ReadMemStats(&before)
		r, err := d.decode(frame{1, body})
		runtime.ReadMemStats(&after)
		// An empty message takes 2 bytes here and up to 120 in memory.
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 300*uint64(len(body))+1<<16 {
			t.Errorf("%d bytes allocated for %d", grown, len(body))
		}
		if err != nil || r.notification == nil {
			return
		}
		n, err := r.notificationOf()
		if err != nil || r.about == nil {
			return
		}
		n = normal(n)
		r, err = d.decode(frame{1, appendNotification(nil, &n, 1, true, true)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.notificationOf()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n, got); diff != "" {
			t.Errorf("(-written +read):\n%s", diff)
		}
	})
}

// normal leaves out what another writer can say in two ways.
func normal(n belfry.Notification) belfry.Notification {
	if n.Value != n.Value { // not a number, of which there are many
		n.Value = 0
	}
	if len(n.Data) == 0 {
		n.Data = nil
	}
	if n.Time.IsZero() {
		n.FirstTime = n.Time
	}
	return n
}

func TestALargeRecordGoesWithoutItsData(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	n := r.on("x", 1, 1)
	n.Data = make([]byte, maxBody+1)
	n.Event.Instance = "not \xff UTF-8"
	r.append(n, r.on("y", 1, 1))
	r.expect(Query{}, "2 a/1 x 1-1 not \uFFFD UTF-8\n3 a/1 y 1-1")
}

func TestRecordsOfAnotherVersionArePassedOver(t *testing.T) {
	t.Parallel()
	d := &decoder{known: map[uint32]*introduction{}, match: func(*introduction) bool { return true }}
	for name, r := range map[string]*belfryv1.JournalRecord{
		"nothing":         {},
		"not introduced":  {Kind: &belfryv1.JournalRecord_Notification{Notification: &belfryv1.Notification{Entry: 4}}},
		"a short node id": {Events: []*belfryv1.Entry{{Id: 1, NodeId: []byte{1}}}, Kind: &belfryv1.JournalRecord_Notification{Notification: &belfryv1.Notification{Entry: 1}}},
		"a short head":    {Kind: &belfryv1.JournalRecord_Head{Head: &belfryv1.JournalHead{Last: []uint64{1}}}},
		"a short index":   {Kind: &belfryv1.JournalRecord_Index{Index: &belfryv1.JournalIndex{Event: []uint32{1}}}},
	} {
		body, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.decode(frame{1, body}); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	h := header{magic: magicSegment, base: 1}
	text := h.append(nil)
	text[4] = 2
	if _, err := parseHeader(text, magicSegment); !errors.Is(err, errHeader) {
		t.Errorf("a changed header: %v", err)
	}
	if _, err := (&frames{file: &faultFile{fs: newFaultFS()}}).next(); !errors.Is(err, io.EOF) {
		t.Errorf("an empty file: %v", err)
	}
}
