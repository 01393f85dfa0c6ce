package repository

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// following is the generation after from, with an edit.
func following(t testing.TB, from Document, edit func(*Document)) Document {
	t.Helper()
	to := copyOf(t, from)
	edit(&to)
	to, err := Follow(from, to, Entry{Time: at(8 + 30), Author: "uid 0 on a", Node: belfry.NodeID{0xa0, 1}, Text: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// remove lets a node go as `belfry node remove` does.
func remove(d *Document, i int, generation uint64, when time.Time) {
	n := d.Nodes[i]
	d.Nodes = append(append([]Node(nil), d.Nodes[:i]...), d.Nodes[i+1:]...)
	d.Former = append(d.Former, FormerNode{ID: n.ID, Number: n.Number, Slot: n.Slot, Key: n.Key, Removed: Moment{Generation: generation, Time: when}})
}

// newcomer is a node that joins with generation 9 and a slot.
func newcomer(slot *int) Node {
	n := testNode(5, "e")
	n.Slot, n.Joined = slot, Moment{Generation: 9, Time: at(8 + 30)}
	return n
}

// What a generation may never do to the one before it.
func TestNextNamesWhatMayNeverBe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		edit func(*Document) // of the next generation, 9
		want []string
	}{
		{func(*Document) {}, nil},
		{func(d *Document) { d.Cluster.Name = "new"; d.Tunables = nil; d.Handlers = nil; d.Roles = nil }, nil},
		{func(d *Document) { d.Schema = 0 }, []string{"schema: 0 after 1; it never falls"}},
		{func(d *Document) { d.Cluster.UUID = belfry.ClusterID{1} }, []string{
			"cluster.uuid: 01000000-0000-0000-0000-000000000000 after c0000000-0000-0000-0000-000000000000; want the same cluster",
		}},
		{func(d *Document) { d.Cluster.Created = at(1) }, []string{"cluster.created: is another one; it never changes"}},
		{func(d *Document) { d.Cluster.LastNumber = 3 }, []string{"cluster.last_number: 3 after 4; it never falls"}},
		{func(d *Document) { d.Licenses.Mark = at(6) }, []string{"licenses.mark: is earlier; it never goes back"}},
		{func(d *Document) { d.Licenses.Mark = at(9) }, nil},
		{func(d *Document) { d.Ops[0].Generation = 7 }, []string{"ops[0].generation: 7 after 8; it never falls"}},

		{func(d *Document) { d.Former = nil }, []string{"former: 0 nodes after 1; it never shrinks"}},
		{func(d *Document) { d.Former[0].Number = 7 }, []string{"former[0]: is another one; who was a member stays listed"}},
		{func(d *Document) { d.Former[0].Slot = nil }, []string{"former[0]: is another one; who was a member stays listed"}},
		{func(d *Document) { d.Former[0].Removed.Time = at(0) }, []string{"former[0]: is another one; who was a member stays listed"}},
		{func(d *Document) { remove(d, 1, 9, at(38)) }, nil},
		{func(d *Document) { d.Nodes = d.Nodes[:2] }, []string{"former: node d is gone and not listed; want it there"}},
		{func(d *Document) { remove(d, 1, 8, at(38)) }, []string{"former[1].removed.generation: 8; want 9"}},
		{func(d *Document) { remove(d, 1, 9, at(14)) }, []string{
			"former[1].removed.time: 2026-03-01T14:00:00Z; want that of the generation, 2026-03-02T14:00:00Z: the slot rests from then on",
		}},
		{func(d *Document) { remove(d, 1, 9, at(38)); d.Former[1].Number = 9 }, []string{"former[1]: is not what node b was; want its number, slot and key"}},
		{func(d *Document) { remove(d, 1, 9, at(38)); d.Former[1].Slot = nil }, []string{"former[1]: is not what node b was; want its number, slot and key"}},
		{func(d *Document) { remove(d, 1, 9, at(38)); d.Former[1].Key = []byte{1} }, []string{"former[1]: is not what node b was; want its number, slot and key"}},
		{func(d *Document) {
			d.Former = append(d.Former, FormerNode{ID: belfry.NodeID{9}, Key: d.Nodes[0].Key})
		}, []string{"former[1].id: 09000000-0000-0000-0000-000000000000 was no member; want only those that go"}},

		{func(d *Document) { d.Nodes[1].Number = 9 }, []string{"nodes[1].number: 9 after 2; a node keeps it until it is removed"}},
		{func(d *Document) { d.Nodes[1].Slot = new(5) }, []string{"nodes[1].slot: 5 after 1; a node keeps it until it is removed"}},
		{func(d *Document) { d.Nodes[1].Slot = nil }, []string{"nodes[1].slot: -1 after 1; a node keeps it until it is removed"}},
		{func(d *Document) { d.Nodes[1].Key = bytes.Repeat([]byte{9}, 32) }, []string{"nodes[1].key: is another one; a node keeps it until it is removed"}},
		{func(d *Document) { d.Nodes[1].Joined.Time = at(3) }, []string{"nodes[1].joined: is another moment; it never changes"}},
		{func(d *Document) { d.Nodes[1].Name, d.Nodes[1].Zone, d.Nodes[1].Intent = "bb", "", IntentStopped }, nil},
		{func(d *Document) { d.Nodes = append(d.Nodes, newcomer(new(4))) }, nil},
		{func(d *Document) { d.Nodes = append(d.Nodes, newcomer(nil)) }, nil},
		{func(d *Document) { d.Nodes = append(d.Nodes, newcomer(new(4))); d.Nodes[3].Joined.Generation = 8 }, []string{"nodes[3].joined.generation: 8; node e joins with 9"}},
		{func(d *Document) { d.Nodes = append(d.Nodes, newcomer(new(2))) }, []string{"nodes[3].slot: 2 was that of a node that is gone, and 4 were never used; want one of those"}},

		{func(d *Document) { d.Security.Datagram.Epoch = 8 }, []string{"security.datagram.epoch: 8 after 9; it never falls"}},
		{func(d *Document) { d.Security.Datagram.Secret = Digest{1} }, []string{"security.datagram.secret_hash: is another one in epoch 9; a new secret begins a new epoch"}},
		{func(d *Document) { d.Security.Datagram = Datagram{Epoch: 10, Secret: Digest{1}} }, nil},

		{func(d *Document) { d.Repository.Epoch = 1 }, []string{"repository.epoch: 1 after 2; it never falls"}},
		{func(d *Document) { d.Repository.Epoch = 3 }, nil}, // the same disks, elsewhere on them
		{func(d *Document) {
			d.Repository.Epoch = 3
			d.Repository.Areas.Disks[2] = UUID{0xd9}
			d.Repository.Spares = nil
		}, nil},
		{func(d *Document) { d.Repository.Epoch = 3; d.Tunables = nil }, []string{"repository.epoch: 3 after 2 with other changes; an epoch begins with the same configuration"}},
		{func(d *Document) { d.Repository.Areas.Disks = d.Repository.Areas.Disks[:1] }, []string{"repository.areas: are others in epoch 2; disks change by `belfry repository move`"}},
		{func(d *Document) { d.Repository.Areas.Hosts = 9 }, []string{"repository.areas: are others in epoch 2; disks change by `belfry repository move`"}},
		{func(d *Document) { d.Repository.UUID = UUID{1} }, []string{
			"repository: disk 01000000-0000-0000-0000-000000000000 after disk d0000000-0000-0000-0000-000000000000; a repository stays the same until all its members have left it",
		}},
		{func(d *Document) { d.Repository = Storage{Kind: KindMembers} }, []string{
			"repository: members 00000000-0000-0000-0000-000000000000 after disk d0000000-0000-0000-0000-000000000000; a repository stays the same until all its members have left it",
		}},
		{func(d *Document) { d.Repository = storageInEtcd() }, []string{"repository.kind: etcd after disk in epoch 2; it changes by `belfry repository move`", "repository.areas: are others in epoch 2; disks change by `belfry repository move`"}},
		{func(d *Document) { d.Moving = testDocument().Moving }, nil},
	} {
		from := settled()
		err := Next(from, following(t, from, c.edit))
		var got []string
		for _, p := range problemsOf(err) {
			got = append(got, strings.Replace(p, "wrong use: ", "", 1))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err != nil && !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%v does not wrap ErrUsage", err)
		}
	}
}

// One entry is appended, and it carries the hash of what it follows.
func TestHistoryIsAppended(t *testing.T) {
	t.Parallel()
	from := settled()
	good := following(t, from, func(*Document) {})
	last := good.History[2]
	if want := sha256.Sum256(encodeDocument(t, from)); last.Generation != 9 || last.Hash != want {
		t.Errorf("the entry is %+v, want generation 9 and hash %x", last, want)
	}
	for name, c := range map[string]struct {
		edit func(*Document)
		want string
	}{
		"nothing appended":    {func(d *Document) { d.History = d.History[:2] }, "history: wrong use: what was written is changed or gone; want one more entry behind it"},
		"two appended":        {func(d *Document) { d.History = append(d.History, Entry{Generation: 10}) }, "history: wrong use: what was written is changed or gone; want one more entry behind it"},
		"the oldest left out": {func(d *Document) { d.History = d.History[1:] }, "history: wrong use: what was written is changed or gone; want one more entry behind it"},
		"all left out":        {func(d *Document) { d.History = nil }, "history: wrong use: 0 entries after 2; want one more"},
		"author changed":      {func(d *Document) { d.History[0].Author = "nobody" }, "history: wrong use: what was written is changed or gone; want one more entry behind it"},
		"time changed":        {func(d *Document) { d.History[0].Time = at(0) }, "history: wrong use: what was written is changed or gone; want one more entry behind it"},
		"generation left out": {func(d *Document) { d.History[2].Generation = 10 }, "history[2].generation: wrong use: 10; want 9"},
		"generation again":    {func(d *Document) { d.History[2].Generation = 8 }, "history[2].generation: wrong use: 8; want 9"},
		"hash of another":     {func(d *Document) { d.History[2].Hash = Digest{1} }, "history[2].hash: wrong use: is not that of generation 8; want it from there"},
	} {
		to := copyOf(t, good)
		c.edit(&to)
		if diff := cmp.Diff([]string{c.want}, problemsOf(Next(from, to))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	broken := settled()
	broken.Nodes[0].Key = nil
	if _, err := Follow(broken, from, Entry{}); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("following what can not be written: %v", err)
	}
	full := settled()
	full.History = manyEntries(64, 8)
	to := following(t, full, func(*Document) {})
	if err := Next(full, to); err != nil || len(to.History) != 64 || to.History[0] != full.History[1] || to.History[63].Generation != 9 {
		t.Errorf("a full history: %v, %d entries from %d to %d", err, len(to.History), to.History[0].Generation, to.Generation())
	}
	if len(full.History) != 64 || full.History[63].Generation != 8 {
		t.Error("Follow has written into the document that it follows")
	}
}

// A slot goes to another node only when none is left that nobody had, and a day
// after its owner went: what the owner wrote last must not land there.
func TestSlotsOfThoseWhoWentRest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hosts int
		when  time.Time // that the owner of slot 2 went
		want  string
	}{
		{8, at(5), "nodes[3].slot: wrong use: 2 was that of a node that is gone, and 4 were never used; want one of those"},
		{5, at(5), "nodes[3].slot: wrong use: 2 was that of a node that is gone, and 1 were never used; want one of those"},
		{4, at(38 - 23), "nodes[3].slot: wrong use: 2 was that of a node that went 23h0m0s ago; want one that was free for 24h0m0s, or none"},
		{4, at(38 - 24), ""},
	} {
		from := settled()
		from.Repository.Areas.Hosts = c.hosts
		from.Former[0].Removed.Time = c.when
		to := following(t, from, func(d *Document) { d.Nodes = append(d.Nodes, newcomer(new(2))) })
		var want []string
		if c.want != "" {
			want = []string{c.want}
		}
		if diff := cmp.Diff(want, problemsOf(Next(from, to))); diff != "" {
			t.Errorf("%d host slots, went at %s (-want +got):\n%s", c.hosts, c.when, diff)
		}
	}
	// The owner that counts is the last one.
	from := settled()
	from.Repository.Areas.Hosts = 4
	from.Former[0].Removed.Time = at(0)
	again := from.Former[0]
	again.ID, again.Removed.Time = belfry.NodeID{0xa0, 9}, at(38)
	from.Former = append(from.Former, again)
	to := following(t, from, func(d *Document) { d.Nodes = append(d.Nodes, newcomer(new(2))) })
	if got := problemsOf(Next(from, to)); len(got) != 1 || !strings.Contains(got[0], "went 0s ago") {
		t.Errorf("a slot whose last owner has just gone: %q", got)
	}
	// A member without one may be given one later.
	from.Nodes[2].Slot = nil
	if got := problemsOf(Next(from, following(t, from, func(d *Document) { d.Nodes[2].Slot = new(3) }))); got != nil {
		t.Errorf("a slot for a member that had none: %q", got)
	}
}

// After a document that moves comes the same one in the next epoch, whoever
// makes it, and nothing else.
func TestNothingButCompletionFollowsAMove(t *testing.T) {
	t.Parallel()
	from := testDocument()
	done, err := Completed(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := Next(from, done); err != nil {
		t.Errorf("the completion: %v", err)
	}
	if err := done.Validate(nil); err != nil {
		t.Errorf("the completion: %v", err)
	}
	again, err := Completed(copyOf(t, from))
	if err != nil || !bytes.Equal(encodeDocument(t, done), encodeDocument(t, again)) {
		t.Errorf("two members write different documents: %v", err)
	}
	toEtcd := testDocument()
	toEtcd.Moving.Kind, toEtcd.Moving.Areas, toEtcd.Moving.Etcd = KindEtcd, nil, storageInEtcd().Etcd
	there, err := Completed(toEtcd)
	if err := errors.Join(err, Next(toEtcd, there), there.Validate(nil)); err != nil || there.Repository.Kind != KindEtcd || there.Repository.Areas != nil {
		t.Errorf("the completion in etcd: %v, %+v", err, there.Repository)
	}
	if done.Repository.Epoch != 3 || done.Repository.Areas.Hosts != 16 || done.Moving != nil || done.Generation() != 9 {
		t.Errorf("completed: %+v, generation %d", done.Repository, done.Generation())
	}
	for name, c := range map[string]struct {
		edit func(*Document)
		want []string
	}{
		"other change":    {func(d *Document) { d.Tunables = nil }, []string{"repository.epoch: wrong use: 2; the repository moves to 3, want nothing else before that", "moving: wrong use: is completed with other changes; want the same document without it"}},
		"taken back":      {func(d *Document) { d.Moving = nil }, []string{"repository.epoch: wrong use: 2; the repository moves to 3, want nothing else before that", "moving: wrong use: is completed with other changes; want the same document without it"}},
		"other disks":     {func(d *Document) { d.Moving, d.Repository.Epoch = nil, 3 }, []string{"moving: wrong use: is completed with other changes; want the same document without it"}},
		"with a change":   {func(d *Document) { *d = copyOf(t, done); d.History = from.History; d.Cluster.Name = "x" }, []string{"moving: wrong use: is completed with other changes; want the same document without it"}},
		"the epoch after": {func(d *Document) { *d = copyOf(t, done); d.History = from.History; d.Repository.Epoch = 4 }, []string{"repository.epoch: wrong use: 4; the repository moves to 3, want nothing else before that"}},
	} {
		if diff := cmp.Diff(c.want, problemsOf(Next(from, following(t, from, c.edit)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := Completed(settled()); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("completing nothing: %v", err)
	}
	members := settled()
	members.Repository = Storage{Kind: KindMembers}
	if err := Next(members, following(t, members, func(d *Document) { d.Repository = settled().Repository })); err != nil {
		t.Errorf("a cluster gets its repository: %v", err)
	}
}

// A backend reads the records of all slots that were ever given, of one who
// went too; more if it can not know.
func TestSlotsGiven(t *testing.T) {
	t.Parallel()
	former, readers := settled(), settled()
	former.Former[0].Slot = new(6)
	for i := range readers.Nodes {
		readers.Nodes[i].Slot = nil
	}
	readers.Former = nil
	for name, c := range map[string]struct {
		doc  []byte
		want int
	}{
		"members":        {encodeDocument(t, settled()), 4},
		"former members": {encodeDocument(t, former), 7},
		"readers only":   {encodeDocument(t, readers), 0},
		"no document":    {nil, MaxHosts},
		"no schema":      {[]byte(`{}`), MaxHosts},
		"newer schema":   {[]byte(`{"schema":2}`), MaxHosts},
		"large slot":     {[]byte(`{"schema":1,"nodes":[{"slot":4000000}]}`), MaxHosts},
		"not a number":   {[]byte(`{"schema":1,"nodes":[{"slot":"1"}]}`), MaxHosts},
	} {
		if got := SlotsGiven(c.doc); got != c.want {
			t.Errorf("%s: %d slots, want %d", name, got, c.want)
		}
	}
}

// The other questions of a backend.
func TestWhatABackendAsksOfADocument(t *testing.T) {
	t.Parallel()
	doc := encodeDocument(t, testDocument())
	if !HoldsOp(doc, OpID{0x0a, 0x0b}) || HoldsOp(doc, OpID{0x0c}) || HoldsOp(nil, OpID{0x0a, 0x0b}) {
		t.Error("the operation 0a0b, and no other, is in the document")
	}
	if !Moves(doc) || Moves(encodeDocument(t, settled())) || !Moves([]byte("?")) {
		t.Error("the document moves, the settled one does not, and nothing follows what can not be read")
	}
	d := testDocument()
	if !bytes.Equal(d.Key(belfry.NodeID{0xa0, 2}), bytes.Repeat([]byte{2}, 32)) || d.Key(belfry.NodeID{0xa0, 3}) != nil {
		t.Error("b is listed with its key, and the former node is not")
	}
}
