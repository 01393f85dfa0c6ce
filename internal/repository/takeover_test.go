package repository

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// TestTakeoverScripts plays testdata/takeover/*.txt: commands, `----`, what the
// members did, an empty line. `members N` begins; `lost NODE…`, `reads NODE…`, `cut
// NODE…` and `join NODE…` change how they stand; `sees NODE E…` says which spares one finds;
// `commit NODE` has it hold one generation more; `restart NODE`; `run TIME`.
// -update-machine rewrites the outputs.
func TestTakeoverScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/takeover/*.txt")
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
			p := &takeoverPlay{t: t, now: simEpoch}
			var got strings.Builder
			for block := range strings.SplitSeq(strings.TrimSuffix(string(want), "\n"), "\n\n") {
				commands, _, _ := strings.Cut(block, "----")
				for command := range strings.SplitSeq(strings.TrimSpace(commands), "\n") {
					if !strings.HasPrefix(command, "#") {
						p.do(strings.Fields(command))
					}
				}
				if got.Len() > 0 {
					got.WriteString("\n")
				}
				fmt.Fprintf(&got, "%s----\n%s", commands, p.out.String())
				p.out.Reset()
			}
			if *updateScripts {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

type takeoverPlay struct {
	t     *testing.T
	now   time.Time
	out   strings.Builder
	nodes []*playedMember
	mail  []playedLetter
}

type playedLetter struct {
	at time.Time
	Letter
}

type playedMember struct {
	name  string
	m     *Takeover
	kept  EpochState
	stand Standing
	cut   bool
}

func (p *takeoverPlay) node(name string) *playedMember {
	i := slices.IndexFunc(p.nodes, func(n *playedMember) bool { return n.name == name })
	if i < 0 {
		p.t.Fatalf("no member %q", name)
	}
	return p.nodes[i]
}

func (p *takeoverPlay) hold(n *playedMember, d Document) {
	held := simDocumentOf(p.t, d)
	n.stand.Held, n.stand.Document = held.Held, held.bytes
}

func (p *takeoverPlay) restart(n *playedMember) {
	n.m = NewTakeover(belfry.NodeID{0xa0, n.name[0] - 'a' + 1}, n.kept, p.now, rand.New(rand.NewPCG(1, uint64(n.name[0]))))
}

func (p *takeoverPlay) do(words []string) {
	switch words[0] {
	case "members":
		var n int
		if _, err := fmt.Sscan(words[1], &n); err != nil {
			p.t.Fatal(err)
		}
		w := newTakeoverWorld(p.t, 0, n)
		for i := range n {
			one := &playedMember{name: string(rune('a' + i))}
			p.hold(one, w.members[0].held.Document)
			for j := range n {
				one.stand.Up = append(one.stand.Up, belfry.NodeID{0xa0, byte(j + 1)})
			}
			p.restart(one)
			p.nodes = append(p.nodes, one)
		}
	case "run":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			p.t.Fatal(err)
		}
		p.run(p.now.Add(d))
	case "sees":
		n := p.node(words[1])
		n.stand.Seen = nil
		for _, e := range words[2:] {
			n.stand.Seen = append(n.stand.Seen, UUID{0xe0 + e[1] - '0'})
		}
	default:
		for _, name := range words[1:] {
			n := p.node(name)
			switch words[0] {
			case "lost", "reads":
				n.stand.Lost = words[0] == "lost"
			case "cut", "join":
				n.cut = words[0] == "cut"
			case "restart":
				p.restart(n)
			case "commit":
				d, err := Follow(n.stand.Held.Document, n.stand.Held.Document, Entry{Time: p.now, Author: "test"})
				if err != nil {
					p.t.Fatal(err)
				}
				p.hold(n, d)
			default:
				p.t.Fatalf("unknown command %q", words[0])
			}
		}
	}
}

var letterNames = [...]string{"", "ask", "stands", "prepare", "promise", "accept", "accepted", "refuse", "chosen"}

func (p *takeoverPlay) say(format string, args ...any) {
	fmt.Fprintf(&p.out, "%s %s\n", p.now.Sub(simEpoch).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

func (p *takeoverPlay) run(until time.Time) {
	for {
		for _, n := range p.nodes {
			p.drive(n)
		}
		next := until
		for _, n := range p.nodes {
			if at := n.m.NextTimeout(); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		for _, l := range p.mail {
			if l.at.Before(next) {
				next = l.at
			}
		}
		p.now = next
		due := slices.DeleteFunc(slices.Clone(p.mail), func(l playedLetter) bool { return l.at.After(p.now) })
		p.mail = slices.DeleteFunc(p.mail, func(l playedLetter) bool { return !l.at.After(p.now) })
		for _, l := range due {
			if n := p.nodes[l.To[1]-1]; !n.cut && !p.nodes[l.From[1]-1].cut {
				p.drive(n, l.Letter)
			}
		}
		if len(due) == 0 && !next.Before(until) {
			return
		}
	}
}

func (p *takeoverPlay) drive(n *playedMember, letters ...Letter) {
	why := n.m.Why()
	n.m.Receive(p.now, n.stand)
	for _, l := range letters {
		n.m.Receive(p.now, l)
	}
	n.m.Advance(p.now)
	out := n.m.Take()
	if out.Keep != nil {
		n.kept = *out.Keep
		p.say("%s keeps epoch %d, promised %d, accepted %d, chosen %t", n.name, n.kept.Target, n.kept.Promised.Round, n.kept.Accepted.Round, n.kept.Chosen)
	}
	for _, l := range out.Letters {
		p.say("%s tells %c %s", n.name, 'a'+l.To[1]-1, letterNames[l.Kind])
		p.mail = append(p.mail, playedLetter{p.now.Add(10 * time.Millisecond), l})
	}
	if now := n.m.Why(); now != nil && (why == nil || why.Error() != now.Error()) {
		p.say("%s: %s", n.name, now)
	}
	if out.Look {
		p.say("%s looks", n.name)
	}
	if out.Complete != nil {
		d, err := Decode(out.Complete)
		if err != nil {
			p.t.Fatal(err)
		}
		p.say("%s completes epoch %d, generation %d on %x", n.name, d.Repository.Epoch, d.Generation(), d.Repository.Areas.Disks[0][0])
		p.hold(n, d)
		n.stand.Lost = false
	}
}

func TestATakeoverChangesNothingButThePlace(t *testing.T) {
	t.Parallel()
	from := testDocument() // it moves, by word of its disks
	from.Confirm = nil
	to, err := TakenOver(from, []UUID{{0xd8}}, belfry.NodeID{0xa0, 1}, "node a", at(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(to.Validate(nil), Next(from, to)); err != nil {
		t.Error(err)
	}
	if to.Repository.Epoch != 1_000_000 || to.Moving != nil || len(to.Repository.Spares) != 0 || !to.now().Equal(from.now()) {
		t.Errorf("epoch %d, spares %v, moving %v, at %s", to.Repository.Epoch, to.Repository.Spares, to.Moving, to.now())
	}
	edited := copyOf(t, to)
	edited.Tunables = nil
	if got := problemsOf(Next(from, edited)); len(got) != 1 || !strings.Contains(got[0], "1000000 after 2 with other changes") {
		t.Errorf("with a change: %q", got)
	}
	move, err := TakeoverMove(encodeDocument(t, to))
	if err != nil {
		t.Fatal(err)
	}
	if h := move.Headers[0]; len(move.Headers) != 1 || h.Epoch != 1_000_000 || h.Disk() != (UUID{0xd8}) || move.Generation != from.Generation()+1 {
		t.Errorf("%+v, generation %d", move.Headers, move.Generation)
	}
	for _, d := range []Document{from, settled()} {
		if _, err := TakeoverMove(encodeDocument(t, d)); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("epoch %d is one of the members: %v", d.Repository.Epoch, err)
		}
	}
	from.Repository = storageInEtcd()
	if _, err := TakenOver(from, []UUID{{0xd8}}, belfry.NodeID{}, "", at(0)); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("in etcd: %v", err)
	}
}

func TestDisksBeginNoEpochOfTheMembers(t *testing.T) {
	t.Parallel()
	d := settled()
	d.Repository.Epoch = takeoverStep - 1
	if _, err := MoveTo(d, KindDisk, d.Repository.Areas, nil, OpID{1}); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("epoch %d by a move: %v", takeoverStep, err)
	}
	for from, want := range map[uint64]uint64{1: 1_000_000, 999_999: 1_000_000, 1_000_000: 2_000_000, 1_000_007: 2_000_000} {
		if got := TakeoverEpoch(from); got != want {
			t.Errorf("after %d: %d; want %d", from, got, want)
		}
	}
}

func TestWhatIsLostIsNamed(t *testing.T) {
	t.Parallel()
	base := settled()
	first := following(t, base, func(d *Document) { d.Tunables = nil })
	second := following(t, first, func(d *Document) { d.Repository.Poll = "9s" })
	to, err := TakenOver(base, []UUID{{0xd8}}, belfry.NodeID{0xa0, 1}, "node a", at(40))
	if err != nil {
		t.Fatal(err)
	}
	digests := func(d Document) (all []Digest) {
		held := simDocumentOf(t, d).Held
		for _, l := range lossesOf(&held, &to) {
			all = append(all, l.Digest)
		}
		return all
	}
	one, two := simDocumentOf(t, first).Digest, simDocumentOf(t, second).Digest
	for d, want := range map[*Document][]Digest{&base: nil, &first: {one}, &second: {one, two}} {
		if diff := cmp.Diff(want, digests(*d)); diff != "" {
			t.Errorf("generation %d (-want +got):\n%s", d.Generation(), diff)
		}
	}
}

func TestMembersChangeByAMajorityWhileSparesAreListed(t *testing.T) {
	t.Parallel()
	from := settled()
	less := copyOf(t, from)
	less.Nodes = less.Nodes[:2]
	more := copyOf(t, from)
	more.Nodes = append(more.Nodes, testNode(5, "e"), testNode(6, "f"), testNode(7, "g"))
	none := copyOf(t, from)
	none.Repository.Spares = nil
	hold := func(n int) func(belfry.NodeID) bool {
		return func(id belfry.NodeID) bool {
			return slices.IndexFunc(from.Nodes, func(is Node) bool { return is.ID == id }) < n
		}
	}
	for _, c := range []struct {
		name     string
		from, to Document
		holds    int
		ok       bool
	}{
		{"the same", from, from, 0, true},
		{"one less, by one of three", from, less, 1, false},
		{"one less, by two of three", from, less, 2, true},
		{"three more at once", from, more, 3, false},
		{"no spares", none, less, 0, true},
	} {
		if err := MembersMayChange(&c.from, &c.to, hold(c.holds)); (err == nil) != c.ok || err != nil && !errors.Is(err, belfry.ErrRestricted) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// An acceptor by itself, as after a restart: only what is durable counts.
func TestAnAcceptorKeepsToItsPromise(t *testing.T) {
	t.Parallel()
	held := simDocumentOf(t, newTakeoverWorld(t, 0, 3).members[0].held.Document)
	var kept EpochState
	node := func(i byte) belfry.NodeID { return belfry.NodeID{0xa0, i} }
	ask := func(lost bool, l Letter) Letter {
		t.Helper()
		m := NewTakeover(node(1), kept, simEpoch, rand.New(rand.NewPCG(1, 1)))
		m.Receive(simEpoch, Standing{Held: held.Held, Document: held.bytes, Lost: lost})
		l.From, l.To, l.Target = node(2), node(1), TakeoverEpoch(1)
		m.Receive(simEpoch, l)
		out := m.Take()
		if out.Keep != nil {
			kept = *out.Keep
		}
		if len(out.Letters) != 1 || out.Letters[0].To != node(2) {
			t.Fatalf("%+v", out.Letters)
		}
		return out.Letters[0]
	}
	first, second := EpochBallot{1, node(2)}, EpochBallot{2, node(3)}
	if a := ask(false, Letter{Kind: LetterPrepare, Ballot: first}); a.Kind != LetterRefuse || kept.Target != 0 {
		t.Errorf("who reads the disks answers %s and keeps %+v", letterNames[a.Kind], kept)
	}
	if a := ask(true, Letter{Kind: LetterAccept, Ballot: first, Value: []byte("x")}); a.Kind != LetterRefuse {
		t.Errorf("a value before any promise: %s", letterNames[a.Kind])
	}
	if a := ask(true, Letter{Kind: LetterPrepare, Ballot: second}); a.Kind != LetterPromise || string(a.Document) != string(held.bytes) || !kept.Fences(999_999) || kept.Fences(1_000_000) {
		t.Errorf("the answer to a first ballot: %s, keeps %+v", letterNames[a.Kind], kept)
	}
	if a := ask(true, Letter{Kind: LetterPrepare, Ballot: first}); a.Kind != LetterRefuse || a.Accepted != second {
		t.Errorf("a smaller ballot: %s, promised %v", letterNames[a.Kind], a.Accepted)
	}
	if a := ask(true, Letter{Kind: LetterAccept, Ballot: first, Value: []byte("x")}); a.Kind != LetterRefuse || kept.Value != nil {
		t.Errorf("a value of a smaller ballot: %s", letterNames[a.Kind])
	}
	if a := ask(false, Letter{Kind: LetterAccept, Ballot: second, Value: []byte("y")}); a.Kind != LetterAccepted {
		t.Errorf("the value, though the disks are back: %s", letterNames[a.Kind])
	}
	third := EpochBallot{3, node(2)}
	if a := ask(true, Letter{Kind: LetterPrepare, Ballot: third}); a.Kind != LetterPromise || a.Accepted != second || string(a.Value) != "y" {
		t.Errorf("a promise after a value: %s, accepted %v %q", letterNames[a.Kind], a.Accepted, a.Value)
	}
}

// A member that had more than the others follows them into the epoch that they have
// begun, and never back.
func TestAnOvertakenMemberFollowsAndSaysWhatIsLost(t *testing.T) {
	t.Parallel()
	base := settled()
	ahead := following(t, base, func(d *Document) { d.Tunables = nil })
	further := following(t, ahead, func(d *Document) { d.Repository.Poll = "9s" })
	to, err := TakenOver(base, []UUID{{0xd8}}, belfry.NodeID{0xa0, 2}, "node b", at(40))
	if err != nil {
		t.Fatal(err)
	}
	held := simDocumentOf(t, ahead)
	m := New(MachineConfig{Self: belfry.NodeID{0xa0, 1}, Cluster: base.Cluster.UUID, Held: held.Held}, simEpoch, rand.New(rand.NewPCG(1, 1)))
	now := simEpoch
	read := func(d Document) *Assimilation {
		t.Helper()
		for range 20 {
			m.Advance(now)
			out := m.Take()
			for _, j := range out.Jobs {
				done := Done{Job: j.ID}
				if j.Kind == JobPoll {
					found := simDocumentOf(t, d)
					found.Ballot = 1 << 16
					done.Snapshot = Snapshot{Version: found.Version, Document: found.bytes, Writer: belfry.NodeID{0xa0, 2}}
				}
				m.Receive(now, done)
			}
			if out.Assimilation != nil {
				return out.Assimilation
			}
			now = now.Add(time.Second)
		}
		return nil
	}
	as := read(to)
	if mode, why := m.Mode(); as == nil || mode != Ready || why != nil {
		t.Fatalf("not taken over: %v, %v", mode, why)
	}
	if as.Epoch != 1_000_000 || as.Generation != 9 || len(as.Losses) != 1 || as.Losses[0].Digest != held.Digest || as.Losses[0].Epoch != 2 {
		t.Errorf("epoch %d, generation %d, lost %+v", as.Epoch, as.Generation, as.Losses)
	}
	if as := read(further); as != nil {
		t.Errorf("generation %d of epoch %d comes into force after epoch 1000000", as.Generation, as.Epoch)
	}
	if mode, why := m.Mode(); mode != Ready || why != nil {
		t.Errorf("old disks are back: %v, %v; want them ignored", mode, why)
	}
}
