package client

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// journal answers as an agent of an incarnation that has a journal.
type journal struct {
	*fakeLink
	incarnation uint32
	name        string // of the token that the stream shows
}

func (j journal) welcome(token string, resumed bool) {
	j.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Welcome{Welcome: &belfryv1.Welcome{
		Token: []byte(token), Resumed: resumed, NodeId: belfry.NodeID{1}.String(), Incarnation: j.incarnation,
	}}}
}

func (j journal) registered(position uint64) {
	j.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Registered{Registered: &belfryv1.Registered{Number: 1, JournalPosition: position}}}
}

// batch sends one run of an event; of a replay if last is not nil.
func (j journal) batch(number, first, last, position uint64, replay *belfryv1.Replay) {
	b := &belfryv1.Batch{Number: number, JournalPosition: position, Replay: replay}
	b.Entries = []*belfryv1.Entry{{Id: 1, NodeId: make([]byte, 16), NodeName: "b", Incarnation: 1, Entry: 7, Class: "user.x"}}
	n := &belfryv1.Notification{Kind: belfryv1.Kind_KIND_OCCURRENCE, Registration: 1, Entry: 1, FirstSequence: first, Sequence: last, Time: 1}
	if replay != nil {
		n.JournalPosition = position
	}
	if last > 0 {
		b.Notifications = append(b.Notifications, n)
	}
	j.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: b}}
}

// begin opens a stream with one registration at an agent with a journal.
func begin(t *testing.T, a *fakeAgent, r belfry.Registration, position uint64, told string) (*Stream, journal) {
	t.Helper()
	opened := make(chan journal, 1)
	go func() {
		j := journal{fakeLink: <-a.links, incarnation: 1}
		j.welcome("one", false)
		opened <- j
	}()
	s, err := newStream(t.Context(), a.open, same)
	if err != nil {
		t.Fatal(err)
	}
	j, done := <-opened, make(chan error, 1)
	go func() {
		_, err := s.Register(t.Context(), r)
		done <- err
	}()
	expect(t, j.fakeLink, "hello batch 0", told)
	j.registered(position)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s, j
}

// again breaks the link and gives the next one.
func (j journal) again(a *fakeAgent, incarnation uint32, resumed bool) journal {
	j.broken <- errBroken
	next := journal{fakeLink: <-a.links, incarnation: incarnation}
	next.welcome("two", resumed)
	return next
}

func next(t *testing.T, s *Stream, kind belfry.Kind, first, last, cursor uint64) {
	t.Helper()
	n, err := s.Next(t.Context())
	if err != nil || n.Kind != kind || n.First != first || n.Last != last || s.Cursor().Position != cursor {
		t.Errorf("%s %d to %d, cursor %d, %v; want %s %d to %d, cursor %d", n.Kind, n.First, n.Last, s.Cursor().Position, err, kind, first, last, cursor)
	}
}

// TestAStreamGoesOnFromItsCursor at an agent that was restarted: there is no
// gap, and what was told is not told again.
func TestAStreamGoesOnFromItsCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, j := begin(t, a, belfry.Registration{Class: "user.x"}, 10, "register 1 user.x")
		j.batch(1, 1, 3, 12, nil)
		j.batch(2, 4, 4, 0, nil) // the agent can not say how far this goes
		next(t, s, belfry.KindOccurrence, 1, 3, 12)
		next(t, s, belfry.KindOccurrence, 4, 4, 12)
		j = j.again(a, 2, false)
		expect(t, j.fakeLink, "hello one batch 1", "register 1 user.x wait since 1/12")
		j.registered(20)
		j.batch(0, 3, 5, 14, &belfryv1.Replay{Registration: 1})
		j.batch(0, 0, 0, 20, &belfryv1.Replay{Registration: 1, Last: true})
		j.batch(1, 5, 6, 21, nil)
		next(t, s, belfry.KindOccurrence, 5, 5, 14)
		next(t, s, belfry.KindOccurrence, 6, 6, 21)
		s.Close()
	})
}

// TestRulesHoldThePlaceBack: a batch of another registration says nothing of what the
// rules of this one have refused or held back, so at an agent that was restarted this
// one goes on from its own last notification.
func TestRulesHoldThePlaceBack(t *testing.T) {
	for told, want := range map[belfryv1.Kind]string{
		belfryv1.Kind_KIND_OCCURRENCE: "register 1 user.x wait since 1/12",
		belfryv1.Kind_KIND_SETTLED:    "register 1 user.x wait since 1/12",
		belfryv1.Kind_KIND_STATE:      "register 1 user.x wait since 1/10",
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newFakeAgent()
			s, j := begin(t, a, belfry.Registration{Class: "user.x", Hold: time.Second}, 10, "register 1 user.x")
			for number, b := range []*belfryv1.Batch{
				{JournalPosition: 12, Notifications: []*belfryv1.Notification{{Kind: told, Registration: 1, Time: 1}}},
				{JournalPosition: 15, Notifications: []*belfryv1.Notification{{Kind: belfryv1.Kind_KIND_OCCURRENCE, Registration: 2, Time: 1}}},
			} {
				b.Number = uint64(number) + 1
				j.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: b}}
			}
			for range 2 {
				if _, err := s.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			j = j.again(a, 2, false)
			expect(t, j.fakeLink, "hello one batch 1", want)
			s.Close()
		})
	}
}

// several sends a gap over several events.
func (j journal) several(number, total, position uint64) {
	n := &belfryv1.Notification{Kind: belfryv1.Kind_KIND_GAP, Registration: 1, Time: 1, Gap: &belfryv1.Gap{Total: total, Known: true}}
	j.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: &belfryv1.Batch{
		Number: number, JournalPosition: position, Notifications: []*belfryv1.Notification{n},
	}}}
}

// TestWhatAGapCountedIsNotToldAgain by the journal of an agent that was restarted:
// whoever adds up has each occurrence once. A gap that stands before the place
// from which it is told again has nothing to do with it.
func TestWhatAGapCountedIsNotToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, j := begin(t, a, belfry.Registration{Class: "user.*"}, 10, "register 1 user.*")
		j.several(1, 100, 10)
		j.batch(2, 1, 3, 12, nil)
		j.several(3, 5, 12)
		j.batch(4, 8, 8, 12, nil)
		j.several(5, 2, 12)
		sum := uint64(0)
		for _, want := range []uint64{100, 3, 5, 1, 2} {
			sum += want
			if n, err := s.Next(t.Context()); err != nil || total(&n) != want {
				t.Fatalf("%+v, %v; want %d", n, err, want)
			}
		}
		j = j.again(a, 2, false)
		expect(t, j.fakeLink, "hello one batch 4", "register 1 user.* wait since 1/12")
		j.registered(20)
		// 4 to 7 are in the gap before 8; of 9 to 13 the gaps had the other 3 of their 7.
		j.batch(0, 4, 6, 13, &belfryv1.Replay{Registration: 1})
		j.batch(0, 7, 8, 14, &belfryv1.Replay{Registration: 1})
		j.batch(0, 9, 13, 15, &belfryv1.Replay{Registration: 1})
		j.batch(0, 0, 0, 20, &belfryv1.Replay{Registration: 1, Last: true})
		j.batch(1, 14, 15, 21, nil)
		for sum < 100+15 {
			n, err := s.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			sum += total(&n)
		}
		if sum != 100+15 || s.seen.byKey[seenKey{registration: 1, incarnation: 1, entry: 7}].last != 15 {
			t.Errorf("they sum up to %d; want 115", sum)
		}
		s.Close()
	})
}

// TestAReplayThatWasCutGoesOn where it was, whether the agent knows the stream
// or not; before anything of it has come, from the beginning.
func TestAReplayThatWasCutGoesOn(t *testing.T) {
	for name, resumed := range map[string]bool{"known": true, "unknown": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newFakeAgent()
				since := belfry.Since{Cursor: belfry.Cursor{Node: belfry.NodeID{1}, Incarnation: 1, Position: 5}}
				s, j := begin(t, a, belfry.Registration{Class: "user.x", Since: since}, 10, "register 1 user.x since 1/5")
				told := func(want string) {
					t.Helper()
					if resumed {
						expect(t, j.fakeLink, "hello "+j.name+" batch 0", "unregister 1", want)
					} else {
						expect(t, j.fakeLink, "hello "+j.name+" batch 0", want)
					}
				}
				j = j.again(a, 1, resumed)
				j.name = "one"
				told("register 1 user.x wait since 1/5")
				j.registered(10)
				j.batch(0, 1, 2, 7, &belfryv1.Replay{Registration: 1})
				synctest.Wait()
				j = j.again(a, 1, resumed)
				j.name = "two"
				told("register 1 user.x wait since 1/7")
				j.registered(10)
				j.batch(0, 3, 3, 8, &belfryv1.Replay{Registration: 1, Last: true})
				next(t, s, belfry.KindOccurrence, 1, 2, 7)
				next(t, s, belfry.KindOccurrence, 3, 3, 8)
				s.Close()
			})
		})
	}
}

// TestAnAgentThatCanNotReplay is asked for what happens from now on, and what
// nobody counted is a gap.
func TestAnAgentThatCanNotReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, j := begin(t, a, belfry.Registration{Class: "user.x"}, 10, "register 1 user.x")
		j = j.again(a, 1, false)
		expect(t, j.fakeLink, "hello one batch 0", "register 1 user.x wait since 1/10")
		j.refused(1, "UNSUPPORTED")
		expect(t, j.fakeLink, "register 1 user.x wait")
		j.registered(0)
		j.batch(1, 9, 9, 0, nil)
		next(t, s, belfry.KindGap, 0, 0, 0)
		next(t, s, belfry.KindOccurrence, 9, 9, 0)
		s.Close()
	})
}

// TestACursorIsForAllRegistrations: while the past of one is told, none would do.
func TestACursorIsForAllRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		since := belfry.Since{Cursor: belfry.Cursor{Node: belfry.NodeID{1}, Incarnation: 1, Position: 5}}
		s, j := begin(t, a, belfry.Registration{Class: "user.x", Since: since}, 10, "register 1 user.x since 1/5")
		go func() { _, _ = s.Register(t.Context(), belfry.Registration{Class: "user.y"}) }()
		synctest.Wait()
		j.fakeLink.registered(2)
		j.batch(0, 1, 2, 7, &belfryv1.Replay{Registration: 1})
		j.batch(0, 3, 3, 8, &belfryv1.Replay{Registration: 1, Last: true})
		j.batch(1, 4, 4, 9, nil)
		next(t, s, belfry.KindOccurrence, 1, 2, 0)
		next(t, s, belfry.KindOccurrence, 3, 3, 0)
		next(t, s, belfry.KindOccurrence, 4, 4, 9)
		s.Close()
	})
}

// TestAGapThatNobodyCountedIsOfTheNodeAskedFor, if that is one.
func TestAGapThatNobodyCountedIsOfTheNodeAskedFor(t *testing.T) {
	t.Parallel()
	b := belfry.NodeID{2}
	w := &wish{coverage: []Coverage{{Node: belfry.NodeID{1}, NodeName: "a"}, {Node: b, NodeName: "b"}}}
	if n := w.gap(1, time.Time{}, time.Time{}); !n.Node.IsZero() || n.NodeName != "" {
		t.Errorf("%s %s for all nodes", n.Node, n.NodeName)
	}
	w.registration.Nodes = []belfry.NodeID{b}
	if n := w.gap(1, time.Time{}, time.Time{}); n.Node != b || n.NodeName != "b" || n.Gap.Known {
		t.Errorf("%s %s, known %v; want b, and no number", n.Node, n.NodeName, n.Gap.Known)
	}
}
