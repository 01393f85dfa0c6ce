package license

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// P1: what is refused, and why. Nothing is written or sent by then.
func TestUnlockRefuses(t *testing.T) {
	t.Parallel()
	keep := func(*License) {}
	for _, tt := range []struct {
		name   string
		change func(*License)
		tune   func(*Input)
		want   error
		text   string
	}{
		{"a good one", keep, nil, nil, ""},
		{"a good one for any product", keep, func(in *Input) { in.Product = "" }, nil, ""},
		{"that begins later", func(l *License) { l.NotBefore = at("2026-08-01") }, nil, nil, ""},
		{"that is in grace", func(l *License) { l.NotAfter = at("2026-06-14") }, nil, nil, ""},
		{"for another member", func(l *License) { l.Binding = Binding{Nodes: []belfry.NodeID{node(3)}} }, nil, nil, ""},
		{"without room for this node", func(l *License) { l.Capacity.Nodes = 1 }, nil, nil, ""},
		{"while the repository is out of reach", keep, func(in *Input) { in.LastRead = at("2026-01-01") }, nil, ""},

		{"another product's", func(l *License) { l.Product = "other" }, nil, belfry.ErrPermission, "signs for acme-db, not for other"},
		{"a product that was not asked for", keep, func(in *Input) { in.Product = "other" }, belfry.ErrPermission, "is for acme-db; want a license of other"},
		{"without an issuer", keep, func(in *Input) { in.Issuers = nil }, belfry.ErrPermission, "no issuer of acme-db"},
		{"expired", func(l *License) { l.NotAfter = at("2026-02-01") }, nil, belfry.ErrPermission, "ended at 2026-02-01T00:00:00Z"},
		{"expired by the mark", func(l *License) { l.NotAfter = at("2026-12-01") }, func(in *Input) { in.Mark = at("2027-06-01") }, belfry.ErrPermission, "ended at"},
		{"for another cluster", func(l *License) { l.Binding = Binding{Cluster: otherCluster} }, nil, belfry.ErrPermission, "bound to cluster"},
		{"for nodes that are not here", func(l *License) { l.Binding = Binding{Nodes: []belfry.NodeID{node(9)}} }, nil, belfry.ErrPermission, "bound to 1 other nodes"},
		{"for another member, expired", func(l *License) {
			l.Binding, l.NotAfter = Binding{Nodes: []belfry.NodeID{node(3)}}, at("2026-02-01")
		}, nil, belfry.ErrPermission, "ended at"},
		{"revoked", keep, func(in *Input) { in.Revocations = [][]byte{revoking(t, vendorKey, 1, "L1")} }, belfry.ErrPermission, "took it back"},
		{
			"for releases before this one", func(l *License) { l.MaintenanceUntil = at("2026-02-01") },
			func(in *Input) { in.Released = at("2026-03-01") }, belfry.ErrPermission, "covers releases up to",
		},
		{"superseded", keep, func(in *Input) {
			in.Files = [][]byte{signed(t, with(annual(), func(l *License) { l.ID, l.Supersedes = "L2", []ID{"L1"} }))}
		}, belfry.ErrStale, "license L2 has taken its place"},
		{"there already", keep, func(in *Input) { in.Files = [][]byte{signed(t, annual())} }, belfry.ErrExist, "unlocked already"},
		{"there in another form", keep, func(in *Input) { in.Files = [][]byte{signedBy(t, annual(), secondKey)} }, belfry.ErrExist, "another file of this id"},
		{"on a node that is no member", keep, func(in *Input) { in.Node = node(7) }, belfry.ErrNotMember, "join it"},
	} {
		in := scene(t)
		if tt.tune != nil {
			tt.tune(&in)
		}
		files := len(in.Files)
		l, err := Admit(signed(t, with(annual(), tt.change)), in)
		switch {
		case !errors.Is(err, tt.want):
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		case tt.want == nil && l.ID != "L1":
			t.Errorf("%s: admitted, and the license is %q", tt.name, l.ID)
		case tt.want != nil && !strings.Contains(err.Error(), tt.text):
			t.Errorf("%s: %v, want %s", tt.name, err, tt.text)
		case len(in.Files) != files:
			t.Errorf("%s: the caller's files have changed", tt.name)
		}
	}
	if _, err := Admit([]byte("no license"), scene(t)); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("what is no file: %v, want ErrUsage", err)
	}
}

// What was admitted unlocks the node once it is in the document, at start and
// for who joins later (P3, P5): the verdict needs nothing else.
func TestWhatWasAdmittedUnlocks(t *testing.T) {
	t.Parallel()
	in := scene(t)
	text := signed(t, annual())
	if _, err := Admit(text, in); err != nil {
		t.Fatal(err)
	}
	if v := Evaluate(in); v.State != belfry.LicenseLocked {
		t.Errorf("before it is committed: %s", told(v))
	}
	in.Files = append(in.Files, text)
	in.Members = append(in.Members, Member{Node: node(8), Joined: 90})
	in.Node, in.Mark = node(8), time.Time{}
	if v := Evaluate(in); v.State != belfry.LicenseUnlocked {
		t.Errorf("a node that joins later: %s", told(v))
	}
}
