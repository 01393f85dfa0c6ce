package repository_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// surveyed is a disk with real documents of two hosts, the newest of host 1.
func surveyed(t *testing.T) (*repositorytest.Disk, repository.Header, []byte) {
	t.Helper()
	h := header(1)
	h.Layout = repository.CompactLayout(hosts, 2*repository.BlockSize, (1+2*hosts)*repository.BlockSize)
	d := repositorytest.NewDisk(make([]byte, h.Layout.Size()))
	doc := surveyDocument(t, h, nil)
	c := config(0, 0)
	if err := repository.Format(d.Open(), h, repository.Founder{Node: c.Node, Incarnation: 1, Boot: c.Boot, Sign: c.Sign}, doc, repository.OpID{1}); err != nil {
		t.Fatal(err)
	}
	store := openStore(t, config(1, 1), d)
	if err := store.Settled(); err != nil {
		t.Fatal(err)
	}
	base, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}
	next := surveyDocument(t, h, doc)
	if _, err := store.CAS(base.Version, next, repository.OpID{2}); err != nil {
		t.Fatal(err)
	}
	if err := store.Seal(); err != nil {
		t.Fatal(err)
	}
	return d, h, next
}

func openStore(t *testing.T, cfg repository.Config, d *repositorytest.Disk) *repository.Store {
	t.Helper()
	s, err := repository.Open(cfg, d.Open())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// surveyDocument is the first document, or what follows one.
func surveyDocument(t *testing.T, h repository.Header, after []byte) []byte {
	t.Helper()
	when := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	d := repository.Document{
		Schema: 1, Cluster: repository.Cluster{Name: "test", UUID: h.Cluster, Created: when},
		Networks: []repository.Network{{Name: "net1"}},
		Repository: repository.Storage{Kind: repository.KindDisk, UUID: h.Repository, Epoch: 1, Areas: &repository.Areas{
			Hosts: h.Layout.Hosts, SlotSize: h.Layout.SlotSize, RecordOffset: h.Layout.RecordOffset, PayloadOffset: h.Layout.PayloadOffset, Disks: h.Disks,
		}},
	}
	for host := range byte(hosts) {
		d.Nodes = append(d.Nodes, repository.Node{
			Name: string('a' + rune(host)), ID: node(host), Number: belfry.NodeNumber(host + 1), Slot: new(int(host)), Key: key(host).Public().(ed25519.PublicKey),
			Addresses: []repository.Address{{Network: "net1", Heartbeat: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host + 1}), 7431)}},
			Streams:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host + 1}), 7432),
		})
	}
	d.History = []repository.Entry{{Generation: 1, Time: when, Author: "root"}}
	if after != nil {
		d.History = append(d.History, repository.Entry{Generation: 2, Time: when.Add(time.Hour), Author: "uid:0 at b", Node: node(1), Hash: sha256.Sum256(after)})
	}
	text, err := repository.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func examine(t *testing.T, d *repositorytest.Disk) repository.Survey {
	t.Helper()
	s, err := repository.Examine(d.Open())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func places(problems []repository.Problem) (all []string) {
	for _, p := range problems {
		all = append(all, p.Place)
	}
	return all
}

func TestASurveyOfAWholeDisk(t *testing.T) {
	t.Parallel()
	d, h, doc := surveyed(t)
	was := slices.Clone(d.Content())
	s := examine(t, d)
	for _, p := range s.Problems {
		t.Errorf("%s: %v", p.Place, p.Err)
	}
	newest := s.Records[s.Newest]
	if s.Header.Repository != h.Repository || newest.Host != 1 || !newest.Record.Chosen || newest.Record.Generation != 2 || newest.Signed != repository.SignedByMember {
		t.Errorf("newest is %+v", newest)
	}
	if !bytes.Equal(s.Raw, doc) || s.Document.Generation() != 2 || s.Why != nil {
		t.Errorf("document of generation %d, %v", s.Document.Generation(), s.Why)
	}
	if len(s.Records) != 3 {
		t.Errorf("%d records, want one of host 0 and two of host 1", len(s.Records))
	}
	if !bytes.Equal(d.Content(), was) {
		t.Error("examining has written")
	}
}

// Whatever is broken has its name, and is repaired if something else tells what
// was there.
func TestASurveyNamesDamageAndRepairsIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		spoil    func(h repository.Header) int64 // byte
		problems []string
		repaired []string
		left     []string // without a local copy
	}{
		{"header A", func(repository.Header) int64 { return 200 }, []string{"header A"}, []string{"header A"}, nil},
		{"header B", func(h repository.Header) int64 { return h.Layout.Used + 200 }, []string{"header B"}, []string{"header B"}, nil},
		{
			"record", func(h repository.Header) int64 { return h.Layout.Record(1, 0) + 100 },
			[]string{"record of host 1, copy 0"},
			nil,
			[]string{"record of host 1, copy 0"},
		},
		{
			"document of an older generation", func(h repository.Header) int64 { return h.Layout.Payload(0, 0) },
			[]string{"document of the record of host 0, copy 0"},
			[]string{"document of the record of host 0, copy 0"},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d, h, _ := surveyed(t)
			want := slices.Clone(d.Content())
			first := slices.Clone(want[h.Layout.Payload(0, 0):])
			first = first[:bytes.IndexByte(first, '\n')+1]
			d.Flip(8 * c.spoil(h))
			s := examine(t, d)
			if diff := cmp.Diff(c.problems, places(s.Problems)); diff != "" {
				t.Fatalf("problems (-want +got):\n%s", diff)
			}
			repaired, err := s.Repair(d.Open(), func(want repository.Digest) []byte {
				if want == sha256.Sum256(first) {
					return first
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.repaired, repaired); diff != "" {
				t.Errorf("repaired (-want +got):\n%s", diff)
			}
			after := examine(t, d)
			if diff := cmp.Diff(c.left, places(after.Problems)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			if c.left == nil && !bytes.Equal(want, d.Content()) {
				t.Error("what was repaired is not what was there")
			}
		})
	}
}

// Bits of all that is in use: each of them is named, and what is not a record is
// repaired to the byte, by the other boot record or a local copy.
func TestEveryFlippedBitIsNamedAndRepaired(t *testing.T) {
	t.Parallel()
	d, h, newest := surveyed(t)
	was := slices.Clone(d.Content())
	whole := examine(t, d)
	copies := map[repository.Digest][]byte{sha256.Sum256(newest): newest}
	type span struct {
		off, length int64
		repairs     bool
	}
	inUse := []span{
		{0, repository.BlockSize, true},
		{h.Layout.Used, repository.BlockSize, true},
		{h.Layout.RecordOffset, 2 * hosts * repository.BlockSize, false},
	}
	for _, of := range whole.Records {
		off, length := h.Layout.Payload(of.Host, int(of.Record.Slot)), int64(of.Record.Length)
		copies[of.Record.Payload] = was[off : off+length]
		area := span{off, (length + repository.BlockSize - 1) / repository.BlockSize * repository.BlockSize, true}
		if !slices.Contains(inUse, area) {
			inUse = append(inUse, area)
		}
	}
	step := int64(surveyStep) // odd, so that all bits of a byte have their turn
	switch {
	case os.Getenv("BELFRY_SOAK") != "":
		step = 1
	case testing.Short():
		step = 1009
	}
	flipped := int64(0)
	for _, area := range inUse {
		for bit := 8 * area.off; bit < 8*(area.off+area.length); bit += step {
			flipped++
			d.Flip(bit)
			s := examine(t, d)
			if len(s.Problems) == 0 {
				t.Fatalf("bit %d is not noticed", bit)
			}
			if _, err := s.Repair(d.Open(), func(want repository.Digest) []byte { return copies[want] }); err != nil {
				t.Fatal(err)
			}
			if area.repairs != bytes.Equal(was, d.Content()) {
				t.Fatalf("bit %d: repaired is %v, want %v", bit, !area.repairs, area.repairs)
			}
			if !area.repairs {
				d.Flip(bit)
			}
		}
	}
	t.Logf("%d bits in %d areas", flipped, len(inUse))
	if flipped*step < 8*6*repository.BlockSize {
		t.Errorf("%d bits, one of %d, are too few", flipped, step)
	}
}

// A copy that is not the document is not written.
func TestARepairTakesNothingElse(t *testing.T) {
	t.Parallel()
	d, h, _ := surveyed(t)
	d.Flip(8 * h.Layout.Payload(0, 0))
	was := slices.Clone(d.Content())
	s := examine(t, d)
	for _, doc := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte{'x'}, int(s.Records[0].Record.Length))} {
		repaired, err := s.Repair(d.Open(), func(repository.Digest) []byte { return doc })
		if err != nil || len(repaired) > 0 {
			t.Errorf("repaired %v, %v", repaired, err)
		}
	}
	if repaired, err := s.Repair(d.Open(), nil); err != nil || len(repaired) > 0 {
		t.Errorf("repaired %v, %v", repaired, err)
	}
	if !bytes.Equal(was, d.Content()) {
		t.Error("a repair has written what does not fit")
	}
}

// Host 1 has loaded generation 1 before: with the damage of host 0's document
// nobody has to be asked.
func TestARepairTakesTheDocumentOfAnotherHost(t *testing.T) {
	t.Parallel()
	h := header(1)
	d := repositorytest.NewDisk(make([]byte, h.Layout.Size()))
	c := config(0, 0)
	doc := surveyDocument(t, h, nil)
	if err := repository.Format(d.Open(), h, repository.Founder{Node: c.Node, Incarnation: 1, Boot: c.Boot, Sign: c.Sign}, doc, repository.OpID{1}); err != nil {
		t.Fatal(err)
	}
	store := openStore(t, config(1, 1), d)
	if err := store.Settled(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(); err != nil {
		t.Fatal(err)
	}
	d.Flip(8 * h.Layout.Payload(0, 0))
	s := examine(t, d)
	repaired, err := s.Repair(d.Open(), nil)
	if err != nil || len(repaired) != 1 {
		t.Errorf("repaired %v, %v; want the document", repaired, err)
	}
	if after := examine(t, d); len(after.Problems) > 0 {
		t.Errorf("left: %v", after.Problems)
	}
}

// A document that is being replaced is a problem of one sequence, then perhaps of
// the next one; one that is damaged stays.
func TestAProblemLastsThatTwoSurveysHave(t *testing.T) {
	t.Parallel()
	d, h, _ := surveyed(t)
	d.Flip(8 * h.Layout.Payload(0, 0))
	d.Flip(8 * (h.Layout.Record(1, 1) + 100))
	first := examine(t, d)
	if len(first.Problems) != 2 {
		t.Fatalf("problems: %v", first.Problems)
	}
	d.Flip(8 * h.Layout.Payload(0, 0))
	store := openStore(t, config(0, 0), d)
	if _, err := store.Load(); err != nil { // host 0 writes into its other slot
		t.Fatal(err)
	}
	d.Flip(8 * h.Layout.Payload(0, 1))
	second := examine(t, d)
	if diff := cmp.Diff([]string{"record of host 1, copy 1"}, places(second.Lasting(first))); diff != "" {
		t.Errorf("lasting (-want +got):\n%s\nfirst %v\nthen %v", diff, first.Problems, second.Problems)
	}
	if len(second.Problems) != 2 {
		t.Errorf("problems: %v", second.Problems)
	}
	again := examine(t, d)
	if diff := cmp.Diff(places(second.Problems), places(again.Lasting(second))); diff != "" {
		t.Errorf("of one that has not changed (-want +got):\n%s", diff)
	}
}

func TestASurveyKnowsWhoSigned(t *testing.T) {
	t.Parallel()
	h := header(1)
	d := repositorytest.NewDisk(make([]byte, h.Layout.Size()))
	c := config(0, 2) // whom the document does not list
	if err := repository.Format(d.Open(), h, repository.Founder{Node: c.Node, Sign: c.Sign, Boot: c.Boot}, surveyDocument(t, h, nil), repository.OpID{1}); err != nil {
		t.Fatal(err)
	}
	if s := examine(t, d); s.Records[0].Signed != repository.SignedUnknown || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Err.Error(), "does not list") {
		t.Errorf("a stranger: %v, %v", s.Records[0].Signed, s.Problems)
	}
	if err := repository.Format(d.Open(), h, repository.Founder{Node: node(0), Sign: c.Sign, Boot: c.Boot}, surveyDocument(t, h, nil), repository.OpID{1}); err != nil {
		t.Fatal(err)
	}
	if s := examine(t, d); s.Records[0].Signed != repository.SignedWrong || len(s.Problems) != 1 {
		t.Errorf("another key: %v, %v", s.Records[0].Signed, s.Problems)
	}
}

func TestWhatIsNoRepositoryAnyMoreSaysWhy(t *testing.T) {
	t.Parallel()
	d, h, _ := surveyed(t)
	cut := repositorytest.NewDisk(d.Content()[:h.Layout.Used])
	if _, err := repository.Examine(cut.Open()); !errors.Is(err, belfry.ErrRestricted) || !strings.Contains(err.Error(), "was cut (") {
		t.Errorf("cut: %v", err)
	}
	d.Flip(8 * 200)
	d.Flip(8 * (h.Layout.Used + 200))
	if _, err := repository.Examine(d.Open()); !errors.Is(err, belfry.ErrNotFound) || !strings.Contains(err.Error(), "both copies") {
		t.Errorf("both boot records damaged: %v", err)
	}
	empty := repositorytest.NewDisk(make([]byte, h.Layout.Size()))
	if _, err := repository.Examine(empty.Open()); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("empty: %v, want %v", err, belfry.ErrNotFound)
	}
	if err := repository.Wipe(empty.Open()); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("wiped: %v, want %v", err, belfry.ErrNotFound)
	}
}

func TestADiskIsRecoveredByItsMirror(t *testing.T) {
	t.Parallel()
	lost := func(d *repositorytest.Disk, h repository.Header) {
		for _, at := range []int64{0, h.Layout.Used} {
			for i := range int64(repository.BlockSize) {
				if d.Content()[at+i] != 0 {
					for bit := range int64(8) {
						if d.Content()[at+i]&(1<<bit) != 0 {
							d.Flip(8*(at+i) + bit)
						}
					}
				}
			}
		}
	}
	h := header(1, 2, 3)
	c := config(0, 0)
	var disks []*repositorytest.Disk
	for i := range h.Disks {
		h.Index = uint8(i)
		d := repositorytest.NewDisk(make([]byte, h.Layout.Size()))
		if err := repository.Format(d.Open(), h, repository.Founder{Node: c.Node, Incarnation: 1, Boot: c.Boot, Sign: c.Sign}, surveyDocument(t, h, nil), repository.OpID{1}); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, d)
	}
	mirror, err := repository.ReadHeader(disks[0].Open())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repository.Recover(disks[1].Open(), mirror); !errors.Is(err, belfry.ErrExist) {
		t.Errorf("a whole one: %v, want %v", err, belfry.ErrExist)
	}
	was := slices.Clone(disks[1].Content())
	lost(disks[1], h)
	other := mirror
	other.Repository[0] ^= 1
	if _, err := repository.Recover(disks[1].Open(), other); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("by another repository: %v, want %v", err, belfry.ErrNotFound)
	}
	got, err := repository.Recover(disks[1].Open(), mirror)
	if err != nil {
		t.Fatal(err)
	}
	if got.Index != 1 || !bytes.Equal(was, disks[1].Content()) {
		t.Errorf("recovered as disk %d; want what was there", got.Index)
	}
	larger := mirror
	larger.Layout = repository.CompactLayout(hosts, 4*repository.BlockSize, h.Layout.PayloadOffset)
	lost(disks[1], h)
	if _, err := repository.Recover(disks[1].Open(), larger); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("by a larger one: %v, want %v", err, belfry.ErrNotFound)
	}
}

// A wipe that ends at any call leaves a whole repository or none, and after it
// nothing of the cluster is left.
func TestAWipeThatEndsAnywhereLeavesAWholeRepositoryOrNone(t *testing.T) {
	t.Parallel()
	for n := 0; ; n++ {
		d, h, doc := surveyed(t)
		stopped := func() (stopped bool) {
			calls := 0
			defer func() { stopped = recover() != nil }()
			if err := repository.Wipe(repositorytest.Before(d, func() {
				if calls++; calls > n {
					panic("power cut")
				}
			})); err != nil {
				t.Fatal(err)
			}
			return false
		}()
		if _, err := repository.ReadHeader(d.Open()); err == nil {
			store := openStore(t, config(0, 0), d)
			if found, err := store.Load(); err != nil || !bytes.Equal(found.Document, doc) {
				t.Errorf("after %d calls: %v", n, err)
			}
		} else if !errors.Is(err, belfry.ErrNotFound) {
			t.Errorf("after %d calls: %v", n, err)
		}
		if !stopped {
			if n < 8 {
				t.Errorf("a wipe of %d calls", n)
			}
			if rest := slices.IndexFunc(d.Content(), func(b byte) bool { return b != 0 }); rest >= 0 {
				t.Errorf("byte %d of %d is left", rest, h.Layout.Size())
			}
			return
		}
	}
}
