package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// A database is rows as the cluster machine has them, and those that ended.
type database struct {
	version uint64
	rows    []cluster.LinkStatus
	removed []cluster.RemovedLink
}

// set changes the row of a network, which a version is told of unless it is
// quiet: figures are.
func (d *database) set(network string, quiet bool, change func(*cluster.LinkStatus)) {
	i := 0
	for i < len(d.rows) && d.rows[i].Network != network {
		i++
	}
	if i == len(d.rows) {
		d.rows = append(d.rows, cluster.LinkStatus{Peer: nodeB, PeerName: "b", PeerAge: -1, Link: cluster.Link{Index: uint8(i), Network: network}})
	}
	change(&d.rows[i])
	if !quiet {
		d.version++
		d.rows[i].Version = d.version
	}
}

func (d *database) state(network string, to belfry.LinkState) {
	d.set(network, false, func(r *cluster.LinkStatus) { r.State = to })
}

// end ends the last row.
func (d *database) end() {
	last := d.rows[len(d.rows)-1]
	d.rows = d.rows[:len(d.rows)-1]
	d.version++
	d.removed = append(d.removed, cluster.RemovedLink{Peer: last.Peer, PeerName: last.PeerName, Link: last.Link, Version: d.version})
}

func (d *database) since(from uint64) cluster.LinkDelta {
	delta := cluster.LinkDelta{Version: d.version, Whole: from == 0 || from > d.version || d.version-from > 4096}
	for _, r := range d.rows {
		if delta.Whole || r.Version > from {
			delta.Links = append(delta.Links, r)
		}
	}
	for _, r := range d.removed {
		if !delta.Whole && r.Version > from {
			delta.Removed = append(delta.Removed, r)
		}
	}
	return delta
}

// look is what the caller of w is told now, in short.
func (d *database) look(w *linkWatch) string {
	delta := d.since(w.from)
	rows := delta.Links
	if w.needsAll() {
		rows = d.since(0).Links
	}
	resp := w.take(delta, rows)
	if resp == nil {
		return "nothing"
	}
	var words []string
	if resp.GetSnapshot() {
		words = append(words, "snapshot")
	}
	if resp.GetResync() {
		words = append(words, "resync")
	}
	for _, r := range resp.GetRemoved() {
		words = append(words, strings.TrimSuffix("-"+r.GetNetwork()+" "+r.GetState(), " "))
	}
	for _, l := range resp.GetLinks() {
		words = append(words, "+"+l.GetNetwork()+" "+l.GetState())
	}
	return fmt.Sprintf("%d: %s", resp.GetVersion(), strings.Join(words, ", "))
}

func watchFrom(t *testing.T, filter *belfryv1.LinkFilter, version uint64) *linkWatch {
	t.Helper()
	return newLinkWatch(new(fakeCluster).View(), filterOf(t, filter), &belfryv1.WatchLinksRequest{Incarnation: 2, Version: version})
}

func wantLook(t *testing.T, what string, d *database, w *linkWatch, want string) {
	t.Helper()
	if got := d.look(w); got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// A caller of one state has the links that are in it: each when it comes to it,
// and when it leaves it, with the state that it has then.
func TestALinkIsWatchedWhileItIsMeant(t *testing.T) {
	t.Parallel()
	d := &database{}
	d.state("net1", belfry.LinkUp)
	d.state("net2", belfry.LinkDown)
	w := watchFrom(t, &belfryv1.LinkFilter{States: []string{"down", "one-way-out"}}, 0)
	wantLook(t, "at first", d, w, "2: snapshot, +net2 down")
	wantLook(t, "nothing happened", d, w, "nothing")
	d.state("net1", belfry.LinkDegraded)
	wantLook(t, "another state that is not meant", d, w, "nothing")
	d.state("net1", belfry.LinkDown)
	wantLook(t, "it is meant", d, w, "4: +net1 down")
	d.state("net1", belfry.LinkOneWayOut)
	wantLook(t, "another state that is meant", d, w, "5: +net1 one-way-out")
	d.state("net2", belfry.LinkInit)
	d.state("net2", belfry.LinkUp)
	wantLook(t, "it is meant no longer", d, w, "7: -net2 up")
	d.state("net3", belfry.LinkDown)
	d.end()
	wantLook(t, "it came and went unseen", d, w, "nothing")
	d.state("net3", belfry.LinkDown)
	wantLook(t, "it came", d, w, "10: +net3 down")
	d.end()
	wantLook(t, "it ended", d, w, "11: -net3")
}

// Who resumes is told what changed, of links that it may have had too, and later
// of those that it had and that did not change meanwhile.
func TestAFilteredWatchIsResumed(t *testing.T) {
	t.Parallel()
	d := &database{}
	for _, network := range []string{"net1", "net2", "net3"} {
		d.state(network, belfry.LinkDown)
	}
	d.state("net2", belfry.LinkUp)
	d.state("net3", belfry.LinkDown)
	down := &belfryv1.LinkFilter{States: []string{"down"}}
	w := watchFrom(t, down, 3)
	wantLook(t, "resumed", d, w, "5: -net2 up, +net3 down")
	d.state("net1", belfry.LinkUp)
	wantLook(t, "one that it had", d, w, "6: -net1 up")
	d.version += 5000
	w = watchFrom(t, down, 6)
	wantLook(t, "too long ago", d, w, "5006: snapshot, resync, +net3 down")
	wantLook(t, "up to date", d, watchFrom(t, down, 5006), "5006: ")
	d.end()
	wantLook(t, "it ended meanwhile", d, watchFrom(t, down, 5006), "5007: -net3")
}

// A version at which one can resume is told before it is too old, although no
// link is meant.
func TestACallerOfNothingIsToldVersions(t *testing.T) {
	t.Parallel()
	d := &database{}
	d.state("net1", belfry.LinkUp)
	w := watchFrom(t, &belfryv1.LinkFilter{States: []string{"down"}}, 0)
	wantLook(t, "at first", d, w, "1: snapshot")
	for range versionEvery - 1 {
		d.state("net1", belfry.LinkUp)
		wantLook(t, "not yet", d, w, "nothing")
	}
	d.state("net1", belfry.LinkUp)
	wantLook(t, "in time", d, w, fmt.Sprintf("%d: ", 1+versionEvery))
}

// Figures cross a threshold without a version; one that sways around it does so
// once.
func TestThresholdsAreCrossedBothWays(t *testing.T) {
	t.Parallel()
	d := &database{}
	d.state("net1", belfry.LinkUp)
	rtt := func(ms int) {
		d.set("net1", true, func(r *cluster.LinkStatus) { r.Known, r.MRT = true, time.Duration(ms)*time.Millisecond })
	}
	loss := func(of255 uint8) { d.set("net1", true, func(r *cluster.LinkStatus) { r.RecentLoss = of255 }) }
	filter := lossOver(0.1)
	filter.RttOver = durationpb.New(100 * time.Millisecond)
	w := watchFrom(t, filter, 0)
	wantLook(t, "at first", d, w, "1: snapshot")
	rtt(100)
	wantLook(t, "as long as it may be", d, w, "nothing")
	rtt(101)
	wantLook(t, "longer", d, w, "1: +net1 up")
	for _, sway := range []int{99, 91, 120, 95} {
		rtt(sway)
		wantLook(t, "it sways", d, w, "nothing")
	}
	loss(50)
	wantLook(t, "loss too", d, w, "1: +net1 up")
	rtt(90)
	wantLook(t, "loss alone", d, w, "1: +net1 up")
	d.state("net1", belfry.LinkDegraded)
	wantLook(t, "another state", d, w, "2: +net1 degraded")
	loss(0)
	wantLook(t, "neither", d, w, "2: -net1 degraded")
	d.state("net1", belfry.LinkUp)
	wantLook(t, "another state meanwhile", d, w, "nothing")
	rtt(200)
	wantLook(t, "resumed", d, watchFrom(t, filter, 2), "3: snapshot, +net1 up")
	d.version += 5000
	wantLook(t, "resumed long after", d, watchFrom(t, filter, 2), "5003: snapshot, +net1 up")
}

// A linkStream keeps what a server sends.
type linkStream struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *belfryv1.WatchLinksResponse
}

func (s *linkStream) Context() context.Context { return s.ctx }

func (s *linkStream) Send(r *belfryv1.WatchLinksResponse) error {
	s.sent <- r
	return nil
}

// Nobody wakes a watch when a figure moves; it looks by itself, and only where
// there is a threshold.
func TestAThresholdIsLookedAtEachSecond(t *testing.T) {
	t.Parallel()
	for _, filter := range []*belfryv1.LinkFilter{lossOver(0.1), {States: []string{"up"}}} {
		synctest.Test(t, func(t *testing.T) {
			fake := &fakeCluster{}
			fake.change(1)
			ctx, cancel := context.WithCancel(t.Context())
			stream := &linkStream{ctx: ctx, sent: make(chan *belfryv1.WatchLinksResponse, 9)}
			l := &linkService{s: New(Options{Events: newFakeEvents(), Cluster: fake})}
			ended := make(chan error)
			go func() { ended <- l.WatchLinks(&belfryv1.WatchLinksRequest{Filter: filter}, stream) }()
			synctest.Wait()
			first := <-stream.sent
			fake.mu.Lock()
			fake.loss = 200
			fake.mu.Unlock()
			<-time.After(crossingEvery)
			synctest.Wait()
			want := 0
			if filter.LossOverRatio != nil {
				want = 1
			}
			if len(stream.sent) != want || len(first.GetLinks()) != 1-want {
				t.Errorf("%v: %d links at first and %d responses after it, want %d and %d", filter, len(first.GetLinks()), len(stream.sent), 1-want, want)
			}
			cancel()
			if err := <-ended; err == nil {
				t.Error("no error in the end, want the one of the context")
			}
		})
	}
}
