package agent

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

var documentTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func documentNode(i byte, name string) Node {
	return Node{
		ID: belfry.NodeID{0xa0, i}, Number: belfry.NodeNumber(i), Name: name, Key: bytes.Repeat([]byte{i}, 32), Sealing: bytes.Repeat([]byte{i, 1}, 16),
		Networks: []Network{
			{Name: "net1", Heartbeat: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, i}), 7431), Bits: 24},
			{Name: "net2", Heartbeat: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 2, i}), 7431), Bits: 24},
		},
		Streams: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, i}), 7432), Web: netip.MustParseAddrPort("127.0.0.1:7433"),
		Certificate: Certificate{0x30, i},
	}
}

// documentTable has something in every field.
func documentTable() *Table {
	ca := Certificate("authority one")
	stopped := documentNode(2, "b")
	stopped.Stopped = true
	return &Table{
		Cluster: belfry.ClusterID{0xc0}, Name: "prod", Generation: 1, Origin: belfry.NodeID{0xa0, 1}, Epoch: 3, Secret: Digest{0xb4}, Since: documentTime, LastNumber: 2,
		Nodes:   []Node{documentNode(1, "a"), stopped},
		Clients: []ClientRole{{Name: "web", Role: "operator", TokenRole: "reader", Keys: []ClientKey{{Key: Digest{0xb2}, Serial: "5e", Expires: documentTime, Joined: documentTime, Token: "00000000000000ff"}}}},
		Roles:   []security.Grant{{Subjects: []string{"uid:1000"}, Role: "operator", Allow: []string{"observe:process.*"}}},
		Tokens: []JoinToken{{
			ID: "0123456789abcdef", Hash: Digest{0xb0}, Expires: documentTime.Add(time.Hour), Role: "node", Name: "e", Creator: "uid 0", Wrong: 2,
			Announce: netip.MustParseAddrPort("10.0.1.9:7431"),
		}},
		CA: []Certificate{ca, Certificate("two")}, CANext: true, Exposed: true,
		CAKeys:   []SealedKey{{CA: ca.Digest(), Holder: belfry.NodeID{0xa0, 1}, Sealed: []byte("sealed")}},
		Tunables: map[string]string{"node_timeout": "3s"},
	}
}

// sameAddresses compares addresses, whose fields are nobody's.
var sameAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// documentOf is what init writes for a table.
func documentOf(t *testing.T, table *Table) repository.Document {
	t.Helper()
	d := repository.Document{
		Schema: repository.Schema, Cluster: repository.Cluster{UUID: table.Cluster, Created: documentTime},
		Repository: repository.Storage{
			Kind: repository.KindFile, UUID: repository.UUID{0xd0}, Epoch: 1,
			Areas: &repository.Areas{Hosts: 3, SlotSize: 256 << 10, RecordOffset: 4096, PayloadOffset: 1 << 20, Disks: []repository.UUID{{0xd1}}},
		},
	}
	d = table.written(d, documentTime)
	d.History = []repository.Entry{{Generation: 1, Time: documentTime, Author: "uid 0 on a", Node: table.Origin}}
	check(t, nil, d)
	return d
}

func check(t *testing.T, from *repository.Document, d repository.Document) {
	t.Helper()
	if err := d.Validate(judgeTunables); err != nil {
		t.Error(err)
	}
	if from != nil {
		if err := repository.Next(*from, d); err != nil {
			t.Error(err)
		}
	}
}

func TestTheTableIsAViewOfTheDocument(t *testing.T) {
	t.Parallel()
	want := documentTable()
	d := documentOf(t, want)
	data, err := repository.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	again, err := repository.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, tableOf(&again), sameAddresses); diff != "" {
		t.Errorf("table of its document (-want +got):\n%s", diff)
	}
}

// edited is a document after an edit of its table, as the leader makes it.
func edited(t *testing.T, from repository.Document, now time.Time, edit func(*Table)) repository.Document {
	t.Helper()
	table := tableOf(&from)
	edit(table)
	to, err := repository.Follow(from, table.written(from, now), repository.Entry{Time: now, Author: "uid 0 on a", Node: belfry.NodeID{0xa0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, &from, to)
	return to
}

func TestWhatTheTableDoesNotKnowStaysInTheDocument(t *testing.T) {
	t.Parallel()
	d := documentOf(t, documentTable())
	d.Nodes[0].Zone, d.Nodes[0].Capacity = "hall", repository.Capacity{Cores: 8}
	d.Networks[0].Priority = 7
	d.Resources = []repository.Resource{{Name: "service/db", Holders: []string{"a"}}}
	d.Handlers = []repository.Handler{{Name: "page", On: []string{"node.state"}}}
	want := d
	to := edited(t, d, documentTime, func(t *Table) { t.Tunables = map[string]string{"node_timeout": "4s"} })
	want.Tunables, want.History = to.Tunables, to.History
	if diff := cmp.Diff(want, to, sameAddresses); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := whatChanged(d, to); got != "tunable node_timeout 3s -> 4s" {
		t.Errorf("it is told as %q", got)
	}
}

func TestSlotsAreGivenOnceFirst(t *testing.T) {
	t.Parallel()
	at := func(h int) time.Time { return documentTime.Add(time.Duration(h) * time.Hour) }
	d := documentOf(t, documentTable()) // three host slots
	slots := func(d repository.Document) (all []int) {
		for _, n := range d.Nodes {
			all = append(all, slotIn(&d, n.ID))
		}
		return all
	}
	join := func(i byte, name string) func(*Table) {
		return func(t *Table) { t.add(documentNode(i, name)) }
	}
	d = edited(t, d, at(1), join(3, "c"))
	d = edited(t, d, at(2), func(t *Table) { t.remove(belfry.NodeID{0xa0, 2}) })
	d = edited(t, d, at(3), join(4, "d"))
	if diff := cmp.Diff([]int{0, 2, -1}, slots(d)); diff != "" { // that of b rests
		t.Errorf("slots of a, c, d an hour after b went (-want +got):\n%s", diff)
	}
	d = edited(t, d, at(27), join(5, "e"))
	if diff := cmp.Diff([]int{0, 2, -1, 1}, slots(d)); diff != "" {
		t.Errorf("slots of a, c, d, e a day later (-want +got):\n%s", diff)
	}
}

func TestALocalCopyIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	d := documentOf(t, documentTable())
	var want repository.Held
	for i := range copiesKept + 3 {
		if i > 0 {
			d = edited(t, d, documentTime, func(t *Table) { t.LastNumber++ })
		}
		data, err := repository.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		want = repository.Held{
			Version:  repository.Version{Repository: repository.UUID{0xd0}, Epoch: 1, Ballot: 7 << 16, Generation: d.Generation(), Digest: repository.Digest(Certificate(data).Digest())},
			Document: d,
		}
		if err := writeCopy(state, want.Version, data); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readCopy(copyOf(state))
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != want.Version || got.Document.Generation() != copiesKept+3 {
		t.Errorf("read %+v, want %+v", got.Version, want.Version)
	}
	bytesOf, err := os.ReadFile(copyOf(state))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{10, 60, len(bytesOf) / 2, len(bytesOf) - 2} {
		damaged := bytes.Clone(bytesOf)
		damaged[at] ^= 1
		path := filepath.Join(t.TempDir(), "damaged")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if held, err := readCopy(path); err == nil && held.Version == want.Version {
			t.Errorf("byte %d is another one, and the copy is taken for the same", at)
		}
	}
	if _, err := readCopy(state + "/config/3"); err == nil {
		t.Error("generation 3 is still there, after 100 later ones")
	}
	if got, err := readCopy(state + "/config/4"); err != nil || got.Generation != 4 {
		t.Errorf("generation 4: %d, %v", got.Generation, err)
	}
}
