package repository

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var updateScripts = flag.Bool("update-machine", false, "rewrite the outputs in testdata/machine")

// TestMachineScripts plays testdata/machine/*.txt: commands, `----`, what the
// nodes did, an empty line. The commands are those of do.
func TestMachineScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/machine/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playMachines(t, string(want))
			if *updateScripts {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// playMachines returns the script with what came out.
func playMachines(t *testing.T, script string) string {
	t.Helper()
	var w *town
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(script), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		out.WriteString(commands + "\n----\n")
		for line := range strings.Lines(commands) {
			args := strings.Fields(line)
			if args[0] == "nodes" {
				w = newTown(t, args[1:])
			} else if args[0] != "#" {
				w.do(args[0], args[1:])
			}
		}
		out.WriteString(w.out.String())
		w.out.Reset()
	}
	return out.String()
}

// A town is nodes on virtual time, the storage that they share, and a network
// that notices take a millisecond on.
type town struct {
	t     *testing.T
	start time.Time
	now   time.Time
	nodes []*townNode
	later []happening // by time, then in the order in which they were put

	values   []Snapshot // that were committed, each after the other
	unchosen bool       // no record says so of the last one
	gone     bool       // no scan finds the disks
	away     []UUID     // disks that do not answer
	fault    error      // of each read and write
	slow     time.Duration
	lose     bool // notices
	found    bool // that another repository is there
	ops      byte

	out strings.Builder
}

type happening struct {
	at time.Time
	do func()
}

type townNode struct {
	name      string
	id        belfry.NodeID
	machine   *Machine
	connected bool   // the disks are open
	epoch     uint64 // of them
	blind     bool   // it does not see disks of a later epoch than it holds
	full      bool   // its own disk
	reads     int
	proposals uint64
}

// newTown has a first generation that lists all nodes but those after `blank`.
func newTown(t *testing.T, names []string) *town {
	t.Helper()
	w := &town{t: t, start: at(0), now: at(0)}
	members := names
	mirrored := slices.Contains(names, "mirrored")
	if mirrored {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "mirrored" })
		members = names
	}
	if i := slices.Index(names, "blank"); i >= 0 {
		members = names[:i]
		names = slices.Delete(slices.Clone(names), i, i+1)
	}
	d := Document{
		Schema: 1, Cluster: Cluster{Name: "town", UUID: belfry.ClusterID{0xc0}},
		Repository: Storage{Kind: KindFile, UUID: UUID{0xd0}, Epoch: 1, Areas: &Areas{
			Hosts: 8, SlotSize: 256 << 10, RecordOffset: BlockSize, PayloadOffset: 1 << 20, Disks: []UUID{{0xd1}},
		}},
		Networks: []Network{{Name: "net1"}, {Name: "net2"}},
		History:  []Entry{{Generation: 1, Time: at(0), Author: "uid 0 on a", Text: "init"}},
	}
	if mirrored {
		d.Repository.Areas.Disks, d.Repository.Spares = []UUID{{0xd1}, {0xd2}, {0xd3}}, []UUID{{0xd8}}
	}
	for i, name := range members {
		n := testNode(i+1, name)
		n.Joined = Moment{Generation: 1, Time: at(0)}
		d.Nodes = append(d.Nodes, n)
	}
	w.commit(d.Nodes[0].ID, d)
	for i, name := range names {
		n := &townNode{name: name, id: testNode(i+1, name).ID}
		w.nodes = append(w.nodes, n)
		w.boot(n, slices.Contains(members, name))
	}
	return w
}

// boot starts a node from the newest generation.
func (w *town) boot(n *townNode, member bool) {
	cfg := MachineConfig{Self: n.id, Cluster: belfry.ClusterID{0xc0}}
	if member {
		v := w.values[len(w.values)-1]
		var err error
		if cfg.Held, err = HeldOf(v.Version, v.Document); err != nil {
			w.t.Fatal(err)
		}
	}
	n.connected = false
	n.machine = New(cfg, w.now, rand.New(rand.NewPCG(1, uint64(n.id[1]))))
}

// commit puts a document on the storage, whoever may.
func (w *town) commit(by belfry.NodeID, d Document) Version {
	w.t.Helper()
	data, err := Encode(d)
	if err != nil {
		w.t.Fatal(err)
	}
	s := Snapshot{
		Version:  Version{Repository: d.Repository.UUID, Epoch: d.Repository.Epoch, Ballot: Ballot(len(w.values)+1) << 16, Generation: d.Generation(), Digest: digestOf(data)},
		Document: data, Writer: by,
	}
	w.values = append(w.values, s)
	return s.Version
}

func (w *town) node(name string) *townNode {
	i := slices.IndexFunc(w.nodes, func(n *townNode) bool { return n.name == name })
	if i < 0 {
		w.t.Fatalf("no node %q", name)
	}
	return w.nodes[i]
}

func (w *town) name(id belfry.NodeID) string {
	for _, n := range w.nodes {
		if n.id == id {
			return n.name
		}
	}
	return "?"
}

func (w *town) printf(format string, args ...any) {
	fmt.Fprintf(&w.out, "%.3fs %s\n", w.now.Sub(w.start).Seconds(), fmt.Sprintf(format, args...))
}

func (w *town) after(d time.Duration, do func()) {
	h := happening{w.now.Add(d), do}
	i, _ := slices.BinarySearchFunc(w.later, h, func(a, b happening) int {
		if a.at.After(b.at) {
			return 1
		}
		return -1
	})
	w.later = slices.Insert(w.later, i, h)
}

// do runs one command:
//
//	run TIME                      time passes
//	set NODE NAME VALUE           proposes a tunable; remove NODE OTHER, add NODE NEW, stop NODE OTHER
//	move NODE                     proposes to move to another disk; blind NODE, sees NODE: it finds no new disk
//	confirm NODE TIME             proposes a tunable that is to be confirmed within that time
//	behind NODE NAME VALUE        somebody at NODE commits, and tells nobody
//	unsealed NODE NAME VALUE      the same, and dies before a record says that it is committed
//	spare NODE DISK               proposes to put the first spare in the place of a disk
//	away DISK, there DISK         of those that "nodes ... mirrored" has
//	lead NODE                     from now on it leads; clock NODE TIME: the cluster's time is ahead
//	notice FROM TO GENERATION [cluster|repository|digest|held]   one that is so, or is of another
//	lose, deliver                 notices, from now on
//	gone, back, found             the disks; another repository is there too
//	fault WORD | mend             of reads and writes; slow TIME: how long they take; strayed: until they are looked for
//	full NODE, room NODE          its own disk
//	restart NODE, greet NODE OTHER GENERATION, uevent NODE
//	fork NAME VALUE, restore GENERATION    the storage has another value
//	count NODE                    its outcomes and reads; held: what all hold
func (w *town) do(word string, args []string) {
	w.t.Helper()
	switch word {
	case "run":
		w.run(w.duration(args[0]))
	case "set", "remove", "add", "stop", "confirm", "move", "spare":
		w.propose(word, w.node(args[0]), args[1:])
	case "behind", "unsealed":
		n := w.node(args[0])
		w.commit(n.id, w.next(n, func(d *Document) { d.Tunables = map[string]string{args[1]: args[2]} }))
		w.unchosen = word == "unsealed"
	case "lead":
		for _, n := range w.nodes {
			n.machine.Receive(w.now, Lead{On: n.name == args[0]})
		}
	case "clock":
		w.node(args[0]).machine.Receive(w.now, Clock{Ahead: w.duration(args[1])})
	case "notice":
		w.forge(args)
	case "restart":
		w.boot(w.node(args[0]), true)
	case "greet":
		g, _ := strconv.ParseUint(args[2], 10, 64)
		w.node(args[0]).machine.Receive(w.now, Greeted{Node: w.node(args[1]).id, Generation: g})
	case "uevent":
		w.node(args[0]).machine.Receive(w.now, Appeared{})
	case "fork", "restore":
		w.other(word, args)
	case "count":
		w.showCounts(w.node(args[0]))
	case "held":
		for _, n := range w.nodes {
			mode, _ := n.machine.Mode()
			w.printf("%s %s generation %d %v", n.name, mode, n.machine.Held().Generation, n.machine.Held().Document.Tunables)
		}
	default:
		w.weather(word, args)
	}
}

// weather sets what happens to storage, disks and network.
func (w *town) weather(word string, args []string) {
	w.t.Helper()
	switch word {
	case "lose", "deliver":
		w.lose = word == "lose"
	case "gone", "back":
		w.gone = word == "gone"
	case "found":
		w.found = true
	case "fault":
		w.fault = map[string]error{"damaged": Damaged, "few": TooFew, "moved": Moved, "cloned": Cloned, "preempted": Preempted, "unknown": belfry.ErrUnknown, "strayed": belfry.ErrNotFound}[args[0]]
	case "mend":
		w.fault, w.slow = nil, 0
	case "slow":
		w.slow = w.duration(args[0])
	case "blind", "sees":
		w.node(args[0]).blind = word == "blind"
	case "away":
		w.away = append(w.away, UUID{w.diskByte(args[0])})
	case "there":
		w.away = slices.DeleteFunc(w.away, func(u UUID) bool { return u == UUID{w.diskByte(args[0])} })
	case "full", "room":
		w.node(args[0]).full = word == "full"
	default:
		w.t.Fatalf("no command %q", word)
	}
}

// diskByte is the first byte of a disk's UUID.
func (w *town) diskByte(text string) byte {
	b, err := strconv.ParseUint(text, 16, 8)
	if err != nil {
		w.t.Fatal(err)
	}
	return byte(b)
}

func (w *town) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// next is the generation after the newest, as n makes it.
func (w *town) next(n *townNode, edit func(*Document)) Document {
	w.t.Helper()
	from, err := Decode(w.values[len(w.values)-1].Document)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.follow(from, n, edit)
}

func (w *town) follow(from Document, n *townNode, edit func(*Document)) Document {
	w.t.Helper()
	to := from
	edit(&to)
	to, err := Follow(from, to, Entry{Time: w.now, Author: "uid 0 on " + n.name, Node: n.id})
	if err != nil {
		w.t.Fatal(err)
	}
	return to
}

// propose builds on what the node holds.
func (w *town) propose(word string, n *townNode, args []string) {
	held := n.machine.Held()
	moment := Moment{Generation: held.Generation + 1, Time: w.now}
	to := w.follow(held.Document, n, func(d *Document) {
		switch word {
		case "set":
			d.Tunables, d.Confirm = map[string]string{args[0]: args[1]}, nil
		case "move":
			areas := *d.Repository.Areas
			areas.Disks = []UUID{{0xd1, byte(d.Repository.Epoch + 1)}}
			d.Moving = &Moving{Epoch: d.Repository.Epoch + 1, Op: OpID{0xee}, Areas: &areas}
		case "spare":
			areas := *d.Repository.Areas
			areas.Disks = slices.Clone(areas.Disks)
			areas.Disks[slices.Index(areas.Disks, UUID{w.diskByte(args[0])})] = d.Repository.Spares[0]
			to, err := MoveTo(*d, d.Repository.Kind, &areas, nil, OpID{0xee})
			if err != nil {
				w.t.Fatal(err)
			}
			*d = to
		case "confirm":
			d.Tunables = map[string]string{"allowance": "9s"}
			d.Confirm = &Confirmation{Base: held.Generation, Deadline: w.now.Add(w.duration(args[0]))}
		case "add":
			other := testNode(len(d.Nodes)+1, args[0])
			other.Joined = moment
			d.Nodes = append(slices.Clone(d.Nodes), other)
		case "stop":
			d.Nodes = slices.Clone(d.Nodes)
			for i := range d.Nodes {
				if d.Nodes[i].Name == args[0] {
					d.Nodes[i].Intent = IntentStopped
				}
			}
		case "remove":
			var left []Node
			for _, was := range d.Nodes {
				if was.Name != args[0] {
					left = append(left, was)
					continue
				}
				d.Former = append(slices.Clone(d.Former), FormerNode{ID: was.ID, Number: was.Number, Slot: was.Slot, Key: was.Key, Removed: moment})
			}
			d.Nodes = left
		}
	})
	data, err := Encode(to)
	if err != nil {
		w.t.Fatal(err)
	}
	w.ops++
	n.proposals++
	n.machine.Receive(w.now, Propose{ID: n.proposals, Base: held.Version, Document: data, Op: OpID{w.ops}})
}

// forge sends a notice: FROM TO GENERATION [of another ...].
func (w *town) forge(args []string) {
	g, _ := strconv.ParseUint(args[2], 10, 64)
	n := Notice{Kind: NoticeConfiguration, Cluster: belfry.ClusterID{0xc0}, Repository: UUID{0xd0}, Epoch: 1, Generation: g}
	if int(g) <= len(w.values) && g > 0 {
		n.Digest = w.values[g-1].Digest
	}
	switch strings.Join(args[3:], " ") {
	case "cluster":
		n.Cluster[0]++
	case "repository":
		n.Repository[0]++
	case "digest":
		n.Digest[0]++
	case "held":
		n.Kind = NoticeHeld
	}
	w.node(args[1]).machine.Receive(w.now, Noticed{From: w.node(args[0]).id, Notice: n})
}

// other gives the storage another newest value: `fork` one beside the newest,
// `restore` an old one, with a ballot of today.
func (w *town) other(word string, args []string) {
	if word == "restore" {
		g, _ := strconv.Atoi(args[0])
		s := w.values[g-1]
		s.Ballot = Ballot(len(w.values)+9) << 16
		w.values = append(w.values, s)
		return
	}
	from, err := Decode(w.values[len(w.values)-2].Document)
	if err != nil {
		w.t.Fatal(err)
	}
	w.commit(w.nodes[0].id, w.follow(from, w.nodes[0], func(d *Document) { d.Tunables = map[string]string{args[0]: args[1]} }))
}

func (w *town) showCounts(n *townNode) {
	var all []string
	for _, o := range Outcomes() {
		if c := n.machine.Outcome(o); c > 0 {
			all = append(all, fmt.Sprintf("%s %d", o, c))
		}
	}
	w.printf("%s reads %d, notices: %s", n.name, n.reads, strings.Join(all, ", "))
	n.reads = 0
}

// run lets the machines do what is due, in time order.
func (w *town) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		for _, n := range w.nodes {
			n.machine.Advance(w.now)
			w.hand(n, n.machine.Take())
		}
		next := end
		for _, n := range w.nodes {
			if t := n.machine.NextTimeout(); !t.IsZero() && t.Before(next) {
				next = t
			}
		}
		if len(w.later) > 0 && w.later[0].at.Before(next) {
			next = w.later[0].at
		}
		if !next.Before(end) {
			w.now = end
			return
		}
		if next.After(w.now) {
			w.now = next
		}
		for len(w.later) > 0 && !w.later[0].at.After(w.now) {
			h := w.later[0]
			w.later = w.later[1:]
			h.do()
		}
	}
}

func (w *town) hand(n *townNode, out Output) {
	for _, c := range out.Changes {
		text := fmt.Sprintf("%s: %s -> %s", n.name, c.From.Word(c.Was), c.To.Word(c.Why))
		if c.Why != nil {
			text += ": " + strings.ReplaceAll(c.Why.Error(), "\n", " / ")
		}
		w.printf("%s", text)
	}
	for _, s := range out.Notices {
		if s.Notice.Kind == NoticeConfiguration {
			w.printf("%s: tells %s of generation %d", n.name, w.name(s.To), s.Notice.Generation)
		}
		if w.lose {
			continue
		}
		w.after(time.Millisecond, func() {
			w.node(w.name(s.To)).machine.Receive(w.now, Noticed{From: n.id, Notice: s.Notice})
		})
	}
	for _, j := range out.Jobs {
		w.work(n, j)
	}
	if a := out.Assimilation; a != nil {
		text := fmt.Sprintf("%s: takes generation %d of %s over, %v", n.name, a.Generation, w.name(a.Writer), a.Document.Tunables)
		if a.Removed {
			text += ", and is no member any more"
		}
		w.printf("%s", text)
	}
	for _, r := range out.Reports {
		w.printf("%s: %s holds generation %d", n.name, w.name(r.Node), r.Generation)
	}
	for _, r := range out.Results {
		if r.Err != nil {
			w.printf("%s: proposal %d: %s", n.name, r.ID, strings.ReplaceAll(r.Err.Error(), "\n", " / "))
		} else {
			w.printf("%s: proposal %d: generation %d", n.name, r.ID, r.Version.Generation)
		}
	}
	if out.Replace != nil {
		w.printf("%s: wants a spare for %s…", n.name, out.Replace.Disk.String()[:2])
	}
	if out.Rollback != nil {
		w.printf("%s: rolls back to generation %d", n.name, out.Rollback.Base)
	}
}

// work does a job, as a driver would.
func (w *town) work(n *townNode, j Job) {
	w.after(2*time.Millisecond+w.slow, func() {
		d := Done{Job: j.ID}
		switch j.Kind {
		case JobScan:
			own := j.Repository == UUID{0xd0}
			if own && w.gone || !own && !w.found {
				d.Err = belfry.ErrNotFound
			} else if own {
				n.connected, n.epoch = true, w.values[len(w.values)-1].Epoch
				if errors.Is(w.fault, belfry.ErrNotFound) {
					w.fault = nil // at another path
				}
				if n.blind {
					n.epoch = n.machine.Held().Epoch
				}
			}
			w.printf("%s: looks for repository %s…: %v", n.name, j.Repository.String()[:2], d.Err == nil)
		case JobKeep:
			if n.full {
				d.Err = errors.New("no space left on device")
			}
		case JobMove:
			w.complete(n, &d)
		default:
			w.io(n, j, &d)
		}
		n.machine.Receive(w.now, d)
	})
}

// complete finishes the move that a node's document begins, unless that is done.
func (w *town) complete(n *townNode, d *Done) {
	if w.fault != nil || n.blind {
		if d.Err = w.fault; n.blind {
			d.Err = belfry.ErrNotFound
		}
		w.printf("%s: does not complete the move", n.name)
		return
	}
	move, err := MoveOf(n.machine.Held().Document)
	if err != nil {
		w.t.Fatal(err)
	}
	w.printf("%s: completes the move", n.name)
	if w.values[len(w.values)-1].Epoch < move.Headers[0].Epoch {
		doc, err := Decode(move.Document)
		if err != nil {
			w.t.Fatal(err)
		}
		w.commit(n.id, doc)
	}
	if newest := w.values[len(w.values)-1]; newest.Digest == digestOf(move.Document) {
		d.Snapshot = newest
		d.Snapshot.Writer = n.id
	}
}

// io is a read or write of the storage.
func (w *town) io(n *townNode, j Job, d *Done) {
	at := len(w.values) - 1
	for at > 0 && w.values[at].Epoch > n.epoch { // its disks are of before
		at--
	}
	newest := w.values[at]
	if j.Kind != JobSwap {
		n.reads++
	}
	switch {
	case !n.connected:
		w.t.Errorf("%s uses disks that it has not opened", n.name)
	case w.gone:
		d.Err = belfry.ErrNotFound
	case w.fault != nil:
		d.Err = w.fault
	case j.Kind == JobSwap && !newest.Same(j.Base):
		d.Version, d.Err = newest.Version, belfry.ErrConflict
	case j.Kind == JobSwap:
		doc, err := Decode(j.Document)
		if err != nil {
			w.t.Fatal(err)
		}
		d.Version = w.commit(n.id, doc)
	case j.Kind == JobPoll && w.unchosen && !slices.Contains(j.Named, newest.Digest):
		d.Snapshot = w.values[at-1]
		d.Snapshot.Newer = newest.Version
	default:
		if j.Kind == JobLoad {
			w.printf("%s: commits generation %d once more", n.name, newest.Generation)
			w.unchosen = false
		}
		d.Snapshot = newest
		d.Snapshot.Away = slices.Clone(w.away)
	}
}
