package repository_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

const hosts = 2

// keys are the real thing: Ed25519.
var keys = func() (all [8]ed25519.PrivateKey) {
	for host := range all {
		all[host] = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(host) + 1}, ed25519.SeedSize))
	}
	return all
}()

func key(host byte) ed25519.PrivateKey { return keys[host] }

func node(host byte) belfry.NodeID { return belfry.NodeID{0xa, host} }

// member admits hosts 0 and 1, and one that the candidate document names.
func member(signer belfry.NodeID, candidate []byte) (repository.Verify, error) {
	if signer[1] < hosts || bytes.Contains(candidate, signer[:]) {
		return repository.VerifyKey(key(signer[1]).Public().(ed25519.PublicKey)), nil
	}
	return nil, belfry.ErrNotMember
}

func config(slot int, host byte) repository.Config {
	return repository.Config{
		Node: node(host), Host: slot, Incarnation: 1, Boot: repository.UUID{host, 1},
		Sign:  func(m []byte) []byte { return ed25519.Sign(key(host), m) },
		Own:   repository.VerifyKey(key(host).Public().(ed25519.PublicKey)),
		Admit: member, Holds: func([]byte, repository.OpID) bool { return false },
	}
}

func header(disks ...byte) repository.Header {
	h := repository.Header{
		Repository: repository.UUID{1}, Cluster: belfry.ClusterID{2}, Epoch: 1, Sequence: 1,
		Layout: repository.CompactLayout(hosts, repository.BlockSize, (1+2*hosts)*repository.BlockSize), Created: time.Unix(0, 0),
	}
	for _, d := range disks {
		h.Disks = append(h.Disks, repository.UUID{3, d})
	}
	return h
}

// format makes disk number i of the header, with "one" as the document.
func format(t *testing.T, h repository.Header, i int) *repositorytest.Disk {
	t.Helper()
	h.Index = uint8(i)
	d := repositorytest.NewDisk(make([]byte, h.Layout.Size()))
	c := config(0, 0)
	founder := repository.Founder{Node: c.Node, Incarnation: 1, Boot: c.Boot, Sign: c.Sign}
	if err := repository.Format(d.Open(), h, founder, []byte("one"), repository.OpID{1}); err != nil {
		t.Fatal(err)
	}
	return d
}

// open opens for a host whose machine has settled.
func open(t *testing.T, cfg repository.Config, devices ...repository.Device) *repository.Store {
	t.Helper()
	s, err := repository.Open(cfg, devices...)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Settled(); err != nil {
		t.Fatal(err)
	}
	return s
}

func load(t *testing.T, s *repository.Store) repository.Snapshot {
	t.Helper()
	found, err := s.Load()
	if errors.Is(err, repository.Preempted) { // by a node that was not known before
		found, err = s.Load()
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func cas(t *testing.T, s *repository.Store, base repository.Version, doc string, op byte) repository.Version {
	t.Helper()
	v, err := s.CAS(base, []byte(doc), repository.OpID{op})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAnUpdateIsSeenByTheOtherHost(t *testing.T) {
	t.Parallel()
	d := format(t, header(0), 0)
	a, b := open(t, config(0, 0), d.Open()), open(t, config(1, 1), d.Open())
	base := load(t, a)
	v := cas(t, a, base.Version, "two", 2)
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	got, err := b.Poll()
	if err != nil {
		t.Fatal(err)
	}
	want := repository.Snapshot{
		Version: repository.Version{
			Repository: repository.UUID{1}, Epoch: 1, Ballot: v.Ballot, Generation: 2, Digest: sha256.Sum256([]byte("two")),
		},
		Document: []byte("two"), Previous: sha256.Sum256([]byte("one")), Op: repository.OpID{2}, Writer: node(0),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := b.CAS(base.Version, []byte("other"), repository.OpID{3}); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("an update of the old base: %v, want %v", err, belfry.ErrConflict)
	}
	if got := load(t, a); string(got.Document) != "two" {
		t.Errorf("after the conflict: %q", got.Document)
	}
}

func TestAPollTellsOfAValueThatNobodySaysIsCommitted(t *testing.T) {
	t.Parallel()
	d := format(t, header(0), 0)
	a, b := open(t, config(0, 0), d.Open()), open(t, config(1, 1), d.Open())
	v := cas(t, a, load(t, a).Version, "two", 2)
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	w := cas(t, b, v, "three", 3) // and b dies before it seals
	got, err := a.Poll()
	if err != nil {
		t.Fatal(err)
	}
	if !got.Same(v) || got.Newer != w {
		t.Errorf("poll has generation %d and knows of %+v, want 2 and %+v", got.Generation, got.Newer, w)
	}
	if got, err = a.Poll(w.Digest); err != nil || !got.Same(w) || got.Newer != (repository.Version{}) {
		t.Errorf("poll that was told of it: generation %d, newer %+v, %v; want 3 and nothing newer", got.Generation, got.Newer, err)
	}
}

func TestTheSameUpdateTwiceHappensOnce(t *testing.T) {
	t.Parallel()
	d := format(t, header(0), 0)
	a, b := open(t, config(0, 0), d.Open()), open(t, config(1, 1), d.Open())
	base := load(t, a)
	cas(t, a, base.Version, "two", 2)
	load(t, b)
	if v := cas(t, a, base.Version, "two", 2); v.Generation != 2 {
		t.Errorf("again: generation %d, want 2", v.Generation)
	}
}

func TestClaimOfAnotherHostEndsMine(t *testing.T) {
	t.Parallel()
	d := format(t, header(0), 0)
	a, b := open(t, config(0, 0), d.Open()), open(t, config(1, 1), d.Open())
	if _, err := a.Claim(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Claim(); err != nil {
		t.Fatal(err)
	}
	_, err := a.Commit([]byte("two"), repository.OpID{2})
	if !errors.Is(err, belfry.ErrUnknown) || !errors.Is(err, repository.Preempted) {
		t.Errorf("commit after another claim: %v, want %v", err, belfry.ErrUnknown)
	}
	if _, err := a.Commit([]byte("two"), repository.OpID{2}); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("commit without a claim: %v, want %v", err, belfry.ErrUsage)
	}
}

func TestDocumentThatDoesNotFitIsRefused(t *testing.T) {
	t.Parallel()
	a := open(t, config(0, 0), format(t, header(0), 0).Open())
	base := load(t, a)
	_, err := a.CAS(base.Version, make([]byte, repository.BlockSize+1), repository.OpID{2})
	if !errors.Is(err, belfry.ErrLimit) || !strings.Contains(err.Error(), "4097 bytes; 1 to 4096") {
		t.Errorf("got %v, want %v with both sizes", err, belfry.ErrLimit)
	}
	cas(t, a, base.Version, strings.Repeat("x", repository.BlockSize), 3)
}

// A node whose machine has started anew waits, also one that has no record yet.
func TestNothingIsWrittenBeforeOldWritesHaveSettled(t *testing.T) {
	t.Parallel()
	d := format(t, header(0), 0)
	s, err := repository.Open(config(1, 1), d.Open())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(); !s.Settling() || !errors.Is(err, repository.Settling) || !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("claim: %v, want %v", err, repository.Settling)
	}
	if _, err := s.Poll(); err != nil {
		t.Errorf("poll while settling: %v", err)
	}
	founder, err := repository.Open(config(0, 0), d.Open())
	if err != nil || founder.Settling() {
		t.Errorf("the founder must settle in its own boot (%v)", err)
	}
	local := config(1, 1)
	local.Local = true
	if s, err := repository.Open(local, d.Open()); err != nil || s.Settling() {
		t.Errorf("an agent of one machine must settle (%v)", err)
	}
}

// Two agents with one host slot: the first to read the other's record stops.
func TestCloneStopsWriting(t *testing.T) {
	t.Parallel()
	d := format(t, header(0), 0)
	a := open(t, config(0, 0), d.Open())
	load(t, a)
	twin := config(0, 0)
	twin.Incarnation, twin.Boot = 2, repository.UUID{99}
	load(t, open(t, twin, d.Open()))
	if _, err := a.Load(); !errors.Is(err, repository.Cloned) || !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("got %v, want %v", err, repository.Cloned)
	}
}

func TestMovedRepositoryIsNotWritten(t *testing.T) {
	t.Parallel()
	h := header(0)
	d := format(t, h, 0)
	a := open(t, config(0, 0), d.Open())
	h.Epoch, h.Sequence = 2, 2
	block, err := repository.EncodeHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open().WriteAt(block, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Load(); !errors.Is(err, repository.Moved) {
		t.Errorf("got %v, want %v", err, repository.Moved)
	}
}

func TestDiskOfAnOlderEpochIsLeftAlone(t *testing.T) {
	t.Parallel()
	old := header(0)
	now := header(1, 2)
	now.Epoch = 2
	leaving, first, second := format(t, old, 0), format(t, now, 0), format(t, now, 1)
	before := slices.Clone(leaving.Content())
	a := open(t, config(0, 0), leaving.Open(), first.Open(), second.Open())
	cas(t, a, load(t, a).Version, "two", 2)
	if !bytes.Equal(before, leaving.Content()) {
		t.Error("the disk of epoch 1 was written")
	}
	if s, err := repository.Open(config(0, 0), leaving.Open(), first.Open()); err == nil {
		_, err = s.Load()
		t.Errorf("one of two disks and an old one made a majority (%v)", err)
	}
}

func TestAllOfTwoDisksAndTwoOfThreeAreNeeded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ disks, lost, want int }{{1, 0, 1}, {2, 0, 1}, {2, 1, 0}, {3, 1, 1}, {3, 2, 0}} {
		h := header([]byte{0, 1, 2}[:c.disks]...)
		var devices []repository.Device
		for i := range c.disks - c.lost {
			devices = append(devices, format(t, h, i).Open())
		}
		_, err := repository.Open(config(0, 0), devices...)
		if (err == nil) != (c.want == 1) || err != nil && !errors.Is(err, repository.TooFew) {
			t.Errorf("%d disks, %d lost: %v", c.disks, c.lost, err)
		}
	}
}

// put writes a signed record, with its document, as some node would.
func put(t *testing.T, d *repositorytest.Disk, host uint32, signer byte, by ed25519.PrivateKey, doc string) {
	t.Helper()
	h := header(0)
	r := repository.Record{
		Repository: h.Repository, Disk: h.Disk(), Epoch: 1, Host: host, Writer: node(signer), Incarnation: 1, Sequence: 1,
		Promised: 99 << 16, Accepted: 99 << 16, Generation: 9, Chosen: true,
		Length: uint32(len(doc)), Payload: sha256.Sum256([]byte(doc)), Boot: repository.UUID{signer, 1},
	}
	block, err := repository.EncodeRecord(r, func(m []byte) []byte { return ed25519.Sign(by, m) })
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, repository.BlockSize)
	copy(payload, doc)
	for off, data := range map[int64][]byte{h.Layout.Record(int(host), 0): block, h.Layout.Payload(int(host), 0): payload} {
		if err := d.Open().WriteAt(data, off); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhoMaySign(t *testing.T) {
	t.Parallel()
	stranger := node(7)
	for name, c := range map[string]struct {
		signer byte
		key    ed25519.PrivateKey
		doc    string
		want   string
	}{
		"a member":                       {1, key(1), "nine", "nine"},
		"a member, by another's key":     {1, key(0), "nine", "one"},
		"a stranger":                     {7, key(7), "nine", "one"},
		"a node that its document lists": {7, key(7), string(stranger[:]), string(stranger[:])},
		"the same, by another's key":     {7, key(1), string(stranger[:]), "one"},
	} {
		d := format(t, header(0), 0)
		put(t, d, 1, c.signer, c.key, c.doc)
		got := load(t, open(t, config(0, 0), d.Open()))
		if string(got.Document) != c.want {
			t.Errorf("record of %s: got %q, want %q", name, got.Document, c.want)
		}
	}
}

// A node whose membership ended: what its signature was good for ends at once.
func TestForgottenSignerCountsNoMore(t *testing.T) {
	t.Parallel()
	d := format(t, header(0), 0)
	put(t, d, 1, 1, key(1), "nine")
	cfg := config(0, 0)
	removed := false
	cfg.Admit = func(signer belfry.NodeID, doc []byte) (repository.Verify, error) {
		if removed && signer == node(1) {
			return nil, belfry.ErrNotMember
		}
		return member(signer, doc)
	}
	s := open(t, cfg, d.Open())
	if got, err := s.Poll(); err != nil || string(got.Document) != "nine" {
		t.Fatalf("%q, %v", got.Document, err)
	}
	removed = true
	s.Forget()
	if _, err := s.Poll(); !errors.Is(err, repository.Regressed) {
		t.Errorf("got %v, want %v: the floor stays", err, repository.Regressed)
	}
}

func TestRestoredCopyIsARegression(t *testing.T) {
	t.Parallel()
	d := format(t, header(0), 0)
	backup := slices.Clone(d.Content())
	a := open(t, config(0, 0), d.Open())
	v := cas(t, a, load(t, a).Version, "two", 2)
	cfg := config(1, 1)
	cfg.Held = v
	s := open(t, cfg, repositorytest.NewDisk(backup).Open())
	if _, err := s.Load(); !errors.Is(err, repository.Regressed) {
		t.Errorf("load: %v, want %v", err, repository.Regressed)
	}
	if _, err := s.Poll(); !errors.Is(err, repository.Regressed) {
		t.Errorf("poll: %v, want %v", err, repository.Regressed)
	}
}

// A chosen document that is bad was good once: it is not a torn write, and no
// older value stands in for it.
func TestDamageIsNeverPassedOver(t *testing.T) {
	t.Parallel()
	d := format(t, header(0), 0)
	put(t, d, 1, 1, key(1), "nine")
	l := header(0).Layout
	d.Flip(l.Payload(1, 0) * 8)
	s := open(t, config(0, 0), d.Open())
	if _, err := s.Poll(); !errors.Is(err, repository.Damaged) {
		t.Errorf("poll: %v, want %v", err, repository.Damaged)
	}
	if _, err := s.Load(); !errors.Is(err, repository.Damaged) {
		t.Errorf("load: %v, want %v", err, repository.Damaged)
	}
}

func TestBackOffStaysInItsRange(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for attempt := range 100 {
		low, high := min(time.Duration(max(attempt, 1))*10*time.Millisecond, time.Second), min(time.Duration(max(attempt, 1))*50*time.Millisecond, time.Second)
		if got := repository.BackOff(attempt, rng); got < low || got > high {
			t.Errorf("attempt %d waits %v, want %v to %v", attempt, got, low, high)
		}
	}
}

func TestAPollSaysWhichDisksAreAway(t *testing.T) {
	t.Parallel()
	h := header(0, 1, 2)
	all := []repository.Device{format(t, h, 0).Open(), format(t, h, 1).Open(), format(t, h, 2).Open()}
	for _, c := range []struct {
		there []repository.Device
		want  []repository.UUID
	}{{all, nil}, {all[1:], h.Disks[:1]}, {[]repository.Device{all[2], all[0]}, h.Disks[1:2]}} {
		s := open(t, config(0, 0), c.there...)
		load(t, s)
		if err := s.Seal(); err != nil {
			t.Fatal(err)
		}
		found, err := s.Poll()
		if err != nil || !slices.Equal(found.Away, c.want) {
			t.Errorf("%d disks are there: away %v (%v); want %v", len(c.there), found.Away, err, c.want)
		}
	}
}
