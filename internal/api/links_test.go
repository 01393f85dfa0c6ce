package api

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func TestLinksOfAnotherNodeAreAskedThere(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	a.cluster.extra = 1
	c := a.dial(t)
	got, err := c.LinksOf(t.Context(), "n0000", "")
	if err != nil || got.GetNodeName() != "other" || len(got.GetLinks()) != 2 {
		t.Errorf("got %v (%v), want the two links of the other node", got, err)
	}
	if got, err = c.LinksOf(t.Context(), "a", "b"); err != nil || got.GetNodeName() != "a" || len(got.GetLinks()) != 2 {
		t.Errorf("got %v (%v), want the two links of a", got, err)
	}
	if _, err = c.LinksOf(t.Context(), "b", ""); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("error %v, want the one of the node", err)
	}
	if _, err = c.LinksOf(t.Context(), "x", ""); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("error %v, want %v", err, belfry.ErrNotFound)
	}
}

func TestTheMatrixNamesWhoDoesNotAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &linkService{s: New(Options{Events: newFakeEvents(), Cluster: &fakeCluster{extra: 3, deaf: true}})}
		began := time.Now()
		got, err := l.GetLinkMatrix(t.Context(), &belfryv1.GetLinkMatrixRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != matrixTime {
			t.Errorf("took %v, want %v", took, matrixTime)
		}
		type row struct {
			node, err string
			answered  bool
			cells     int
		}
		want := []row{
			{"a", "", true, 2},
			{"b", "down", false, 0},
			{"n0000", "", true, 3},
			{"n0001", "context deadline exceeded", false, 0},
			{"n0002", "", true, 3},
		}
		for i, r := range got.GetRows() {
			if g := (row{r.GetNode(), r.GetError(), r.GetAnswered(), len(r.GetCells())}); i >= len(want) || g != want[i] {
				t.Errorf("row %d is %+v, want one of %+v", i, g, want)
			}
		}
		if len(got.GetRows()) != len(want) {
			t.Errorf("%d rows, want %d", len(got.GetRows()), len(want))
		}
	})
}

func TestTheMatrixOfOneNetwork(t *testing.T) {
	t.Parallel()
	c := startAgent(t, reader).dial(t)
	got, err := c.LinkMatrix(t.Context(), "net2")
	if err != nil {
		t.Fatal(err)
	}
	cells := got.GetRows()[0].GetCells()
	if len(cells) != 1 || cells[0].GetPeer() != "b" || cells[0].GetNetwork() != "net2" || cells[0].GetState() != "up" || !cells[0].GetTwoWay() {
		t.Errorf("cells %v, want b on net2, which works both ways", cells)
	}
	_, err = c.LinkMatrix(t.Context(), "net3")
	if want := `GetLinkMatrix: net3: not found: no link on network "net3"; one of net1, net2`; !errors.Is(err, belfry.ErrNotFound) || err.Error() != want {
		t.Errorf("error %v; want %s", err, want)
	}
}

// BenchmarkLinkMatrixOf200 has 200 nodes tell 200 links each, and a client
// take them over the agent's socket.
func BenchmarkLinkMatrixOf200(b *testing.B) {
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{extra: 198}, subject: reader, socket: b.TempDir() + "/s"}
	a.Server = New(Options{Decide: byRole, Events: a.events, Cluster: a.cluster, Identify: a.identify})
	if err := a.ServeUnix(a.socket, ""); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = a.Stop(b.Context()) }()
	c, err := client.Dial(b.Context(), a.socket)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for b.Loop() {
		if m, err := c.LinkMatrix(b.Context(), ""); err != nil || len(m.GetRows()) != 200 {
			b.Fatalf("%d rows (%v), want 200", len(m.GetRows()), err)
		}
	}
}

func TestLinksAreWatchedFromASnapshotOn(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	a.cluster.change(1)
	brief := func(r *belfryv1.WatchLinksResponse) string {
		return fmt.Sprintf("version %d snapshot %v resync %v links %d removed %d", r.GetVersion(), r.GetSnapshot(), r.GetResync(), len(r.GetLinks()), len(r.GetRemoved()))
	}
	c := a.dial(t)
	watch := func(incarnation uint32, version uint64, want ...string) {
		t.Helper()
		var got []string
		for r, err := range c.WatchLinks(t.Context(), client.LinkFilter{}, incarnation, version) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, brief(r)); len(got) == len(want) {
				break
			}
			a.cluster.change(1)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("from %d/%d (-want +got):\n%s", incarnation, version, diff)
		}
	}
	watch(0, 0,
		"version 1 snapshot true resync false links 1 removed 0",
		"version 2 snapshot false resync false links 1 removed 0",
		"version 3 snapshot false resync false links 1 removed 1")
	watch(2, 2, "version 3 snapshot false resync false links 1 removed 1") // goes on
	watch(2, 3, "version 3 snapshot false resync false links 0 removed 0") // nothing new
	watch(1, 2, "version 3 snapshot true resync true links 1 removed 0")   // of an earlier start
	a.cluster.change(9)
	watch(2, 3, "version 12 snapshot true resync true links 1 removed 0") // too long ago
}
