package api

import (
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
)

func filterOf(t *testing.T, msg *belfryv1.LinkFilter) *linkFilter {
	t.Helper()
	f, err := linkFilterOf(new(fakeCluster).View(), msg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func lossOver(ratio float64) *belfryv1.LinkFilter { return &belfryv1.LinkFilter{LossOverRatio: &ratio} }

// Of one list any, of several lists all; of thresholds any.
func TestAFilterMeansWhatIsInAllOfItsLists(t *testing.T) {
	t.Parallel()
	row := cluster.LinkStatus{
		Peer: nodeB, PeerName: "b", Link: cluster.Link{Network: "net1"}, Interface: "eth0", State: belfry.LinkDegraded,
		RecentLoss: 51, Known: true, MRT: 20 * time.Millisecond, Jitter: time.Millisecond,
	}
	ms := func(n int64) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Millisecond) }
	for name, c := range map[string]struct {
		filter *belfryv1.LinkFilter
		want   bool
	}{
		"nothing":                    {nil, true},
		"the peer":                   {&belfryv1.LinkFilter{Peers: []string{"b"}}, true},
		"the peer by id":             {&belfryv1.LinkFilter{Peers: []string{nodeB.String()}}, true},
		"a network":                  {&belfryv1.LinkFilter{Networks: []string{"net1"}}, true},
		"another network":            {&belfryv1.LinkFilter{Networks: []string{"net2"}}, false},
		"an interface":               {&belfryv1.LinkFilter{Interfaces: []string{"eth1", "eth0"}}, true},
		"another interface":          {&belfryv1.LinkFilter{Interfaces: []string{"eth1"}}, false},
		"a state":                    {&belfryv1.LinkFilter{States: []string{"down", "degraded"}}, true},
		"other states":               {&belfryv1.LinkFilter{States: []string{"up", "down"}}, false},
		"one list of two":            {&belfryv1.LinkFilter{Peers: []string{"b"}, States: []string{"up"}}, false},
		"loss beyond":                {lossOver(0.19), true},
		"loss as it is":              {lossOver(0.2), false},
		"rtt beyond":                 {&belfryv1.LinkFilter{RttOver: ms(19)}, true},
		"rtt as it is":               {&belfryv1.LinkFilter{RttOver: ms(20)}, false},
		"jitter as it is":            {&belfryv1.LinkFilter{JitterOver: ms(1)}, false},
		"one threshold of two":       {&belfryv1.LinkFilter{RttOver: ms(19), JitterOver: ms(9)}, true},
		"none of two":                {&belfryv1.LinkFilter{RttOver: ms(29), JitterOver: ms(9)}, false},
		"a threshold of other links": {&belfryv1.LinkFilter{RttOver: ms(19), States: []string{"up"}}, false},
	} {
		f := filterOf(t, c.filter)
		if got := f.means(&row, f.beyond(&row, 0)); got != c.want {
			t.Errorf("%s: meant %v, want %v", name, got, c.want)
		}
	}
	row.Known = false
	if f := filterOf(t, &belfryv1.LinkFilter{RttOver: ms(1)}); f.means(&row, f.beyond(&row, 0)) {
		t.Error("a link whose round trip is not known is beyond a threshold of it, want not")
	}
}

func TestAFilterThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	l := &linkService{s: New(Options{Events: newFakeEvents(), Cluster: &fakeCluster{}})}
	many := make([]string, filterMost+1)
	for name, row := range map[string]struct {
		filter *belfryv1.LinkFilter
		is     error
		want   string
	}{
		"a stranger":       {&belfryv1.LinkFilter{Peers: []string{"x"}}, belfry.ErrNotFound, `no node "x"; the members are a b`},
		"this node":        {&belfryv1.LinkFilter{Peers: []string{"a"}}, belfry.ErrUsage, "a is the node whose links these are, and has none to itself; name another node"},
		"no network":       {&belfryv1.LinkFilter{Networks: []string{""}}, belfry.ErrUsage, `network "" is no name; leave it out, or name one like net1`},
		"no interface":     {&belfryv1.LinkFilter{Interfaces: []string{""}}, belfry.ErrUsage, `interface "" is no name of one`},
		"a path":           {&belfryv1.LinkFilter{Interfaces: []string{"eth0/1"}}, belfry.ErrUsage, `interface "eth0/1" is no name of one`},
		"a long interface": {&belfryv1.LinkFilter{Interfaces: []string{"abcdefghijklmnop"}}, belfry.ErrUsage, "up to 15 characters without blank, / or :, like eth0"},
		"no state":         {&belfryv1.LinkFilter{States: []string{"broken"}}, belfry.ErrUsage, `unknown link state "broken"; one of ["init" "up"`},
		"too many":         {&belfryv1.LinkFilter{Networks: many}, belfry.ErrLimit, "257 names in one list of the filter; at most 256"},
		"less than none":   {lossOver(-0.1), belfry.ErrUsage, "loss over -0.1; a share from 0 to less than 1, like 0.05"},
		"all of it":        {lossOver(1), belfry.ErrUsage, "loss over 1; a share"},
		"not a number":     {lossOver(math.NaN()), belfry.ErrUsage, "loss over NaN; a share"},
		"no time":          {&belfryv1.LinkFilter{RttOver: durationpb.New(0)}, belfry.ErrUsage, "rtt over 0s; more than 0, up to 1m0s, like 20ms"},
		"before time":      {&belfryv1.LinkFilter{JitterOver: durationpb.New(-time.Second)}, belfry.ErrUsage, "jitter over -1s; more than 0"},
		"too much time":    {&belfryv1.LinkFilter{RttOver: durationpb.New(time.Hour)}, belfry.ErrUsage, "rtt over 1h0m0s; more than 0"},
		"a broken time":    {&belfryv1.LinkFilter{RttOver: &durationpb.Duration{Seconds: 1, Nanos: -1}}, belfry.ErrUsage, "rtt over"},
	} {
		_, listed := l.ListLinks(t.Context(), &belfryv1.ListLinksRequest{Filter: row.filter})
		watched := l.WatchLinks(&belfryv1.WatchLinksRequest{Filter: row.filter}, &linkStream{ctx: t.Context()})
		for _, err := range []error{listed, watched} {
			if !errors.Is(err, row.is) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %v, want %v with %q", name, err, row.is, row.want)
			}
		}
	}
	c := startAgent(t, reader).dial(t)
	for _, err := range c.WatchLinks(t.Context(), client.LinkFilter{RTTOver: time.Hour}, 0, 0) {
		if want := "WatchLinks: rtt over 1h0m0s; more than 0, up to 1m0s, like 20ms"; !errors.Is(err, belfry.ErrUsage) || err.Error() != want {
			t.Errorf("over the socket: %v, want %s", err, want)
		}
		break
	}
}

func TestAFilteredListHasWhatIsMeant(t *testing.T) {
	t.Parallel()
	c := startAgent(t, reader).dial(t)
	for name, row := range map[string]struct {
		filter client.LinkFilter
		want   string
	}{
		"all":     {client.LinkFilter{}, "net1 net2"},
		"a state": {client.LinkFilter{States: []belfry.LinkState{belfry.LinkDown}}, "net1"},
		"loss":    {client.LinkFilter{LossOver: new(0.1)}, "net1"},
		"none":    {client.LinkFilter{States: []belfry.LinkState{belfry.LinkFlapping}}, ""},
	} {
		resp, err := c.LinksWhere(t.Context(), "", row.filter)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range resp.GetLinks() {
			got = append(got, l.GetNetwork())
		}
		if text := strings.Join(got, " "); text != row.want {
			t.Errorf("%s: %q, want %q", name, text, row.want)
		}
	}
}

// Over JSON a filter is parameters of the address.
func TestAFilterIsInTheAddress(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	for path, want := range map[string]string{
		"/v1/links?filter.states=down":                      `"network":"net1"`,
		"/v1/links?filter.states=up&filter.peers=b":         `"network":"net2"`,
		"/v1/links?filter.lossOverRatio=0.1":                `"network":"net1"`,
		"/v1/links?filter.states=up&filter.rttOver=0.0005s": `"links":[]`,
		"/v1/links:watch?filter.states=broken":              `"reason":"USAGE"`,
		"/v1/links?filter.lossOverRatio=2":                  "loss over 2; a share from 0 to less than 1",
	} {
		resp := s.request(t, t.Context(), "GET "+path, bearer)
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || strings.Count(string(body), `"network":`) > 1 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s (%v), want %s and one link at most", path, body, err, want)
		}
	}
}
