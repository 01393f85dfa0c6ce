package license

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// scene is node 2 of four on the 15th of June 2026, with these licenses.
func scene(t testing.TB, granted ...License) Input {
	t.Helper()
	in := Input{
		Product: product, Issuers: testIssuers, Cluster: testCluster, Node: node(2),
		Now: at("2026-06-15T12:00:00Z"), Mark: at("2026-06-15T11:00:00Z"),
	}
	for n := range 4 {
		in.Members = append(in.Members, Member{Node: node(n + 1), Joined: uint64(n + 1), Cores: 8, MemoryBytes: 64 << 30})
	}
	for _, l := range granted {
		in.Files = append(in.Files, signed(t, l))
	}
	return in
}

// told is a verdict in one line.
func told(v Verdict) string {
	line := v.State.String()
	if !v.Until.IsZero() {
		line += " until " + v.Until.Format(time.RFC3339Nano)
	}
	return line + ": " + v.Reason
}

// Each rule of the design, each at the second where it turns.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	now := func(text string) func(*Input) { return func(in *Input) { in.Now, in.Mark = at(text), time.Time{} } }
	only := func(granted License, tune ...func(*Input)) Input {
		in := scene(t, granted)
		for _, f := range tune {
			f(&in)
		}
		return in
	}
	capacity := func(c Capacity) License { return with(annual(), func(l *License) { l.Capacity = c }) }
	bound := func(b Binding) License { return with(annual(), func(l *License) { l.Binding = b }) }
	released := func(text string) func(*Input) { return func(in *Input) { in.Released = at(text) } }
	maintained := with(annual(), func(l *License) { l.MaintenanceUntil = at("2026-06-30T23:59:59Z") })
	lastRead := func(text string) func(*Input) { return func(in *Input) { in.LastRead = at(text) } }
	endless := with(annual(), func(l *License) { l.NotBefore, l.NotAfter = time.Time{}, time.Time{} })
	const (
		good      = "unlocked until 2027-01-01T00:00:00Z: license L1: is good up to 2026-12-31T23:59:59Z"
		early     = "locked until 2026-01-01T00:00:00Z: license L1: begins at 2026-01-01T00:00:00Z; wait, or set this node's clock, which says 2025-12-31T23:59:59Z"
		grace     = "grace until 2027-01-15T00:00:00Z: license L1: ended at 2026-12-31T23:59:59Z; renew it before 2027-01-15T00:00:00Z"
		expired   = "expired: license L1: ended at 2026-12-31T23:59:59Z, its grace at 2027-01-15T00:00:00Z; renew it"
		elsewhere = "; ask its issuer for one for cluster c1000000-0000-0000-0000-000000000001"
	)
	for _, tt := range []struct {
		name string
		in   Input
		want string
	}{
		{"P4: nothing is there", scene(t), "locked: no license of acme-db is in the configuration; unlock one with `belfry license unlock FILE`"},
		{"P2: signed, committed, bound to here, within dates and capacity", only(annual()), good},
		{"a license without dates", only(endless), "unlocked: license L1: has no end"},

		{"binding: any", only(bound(Binding{Any: true})), good},
		{
			"binding: another cluster", only(bound(Binding{Cluster: otherCluster})),
			"locked: license L1: is bound to cluster c1000000-0000-0000-0000-000000000002" + elsewhere,
		},
		{"binding: nodes, with this one", only(bound(Binding{Nodes: []belfry.NodeID{node(2), node(9)}})), good},
		{
			"binding: nodes, without this one", only(bound(Binding{Nodes: []belfry.NodeID{node(1), node(3)}})),
			"locked: license L1: is bound to 2 other nodes" + elsewhere,
		},
		{
			"binding: this cluster, on a node that is no member", only(annual(), func(in *Input) { in.Node = node(7) }),
			"locked: license L1: node a0000000-0000-0000-0000-000000000007 is not a member; join it to the cluster",
		},

		{"not_before: the second before", only(annual(), now("2025-12-31T23:59:59Z")), early},
		{"not_before: the last moment before", only(annual(), now("2025-12-31T23:59:59.999999999Z")), early},
		{"not_before: the second itself", only(annual(), now("2026-01-01T00:00:00Z")), good},
		{"not_after: the second itself", only(annual(), now("2026-12-31T23:59:59Z")), good},
		{"not_after: the end of that second", only(annual(), now("2026-12-31T23:59:59.999999999Z")), good},
		{"not_after: the second behind", only(annual(), now("2027-01-01T00:00:00Z")), grace},
		{"grace: its last moment", only(annual(), now("2027-01-14T23:59:59.999999999Z")), grace},
		{"grace: its end", only(annual(), now("2027-01-15T00:00:00Z")), expired},
		{
			"grace: none granted", only(with(annual(), func(l *License) { l.GraceDays = 0 }), now("2027-01-01T00:00:00Z")),
			"expired: license L1: ended at 2026-12-31T23:59:59Z, its grace at 2027-01-01T00:00:00Z; renew it",
		},

		{"maintenance: a release of its last second", only(maintained, released("2026-06-30T23:59:59Z")), good},
		{
			"maintenance: a release of the second behind", only(maintained, released("2026-07-01T00:00:00Z")),
			"expired: license L1: covers releases up to 2026-06-30T23:59:59Z, and this one is of 2026-07-01T00:00:00Z; renew it, or run an older release",
		},
		{"maintenance: over, and an older release", only(maintained, released("2026-01-01"), now("2026-08-01")), good},
		{"maintenance: no date of release", only(maintained), good},

		{"capacity: nodes, the last that fits", only(capacity(Capacity{Nodes: 2})), good},
		{
			"capacity: nodes, the first that does not", only(capacity(Capacity{Nodes: 1})),
			"over_capacity until 2027-01-15T00:00:00Z: license L1: covers 1 nodes, which the first 1 members have; extend it, or remove members",
		},
		{"capacity: cores that fit", only(capacity(Capacity{Cores: 16})), good},
		{
			"capacity: one core less", only(capacity(Capacity{Cores: 15})),
			"over_capacity until 2027-01-15T00:00:00Z: license L1: covers 15 cores, which the first 1 members have; extend it, or remove members",
		},
		{"capacity: memory that fits", only(capacity(Capacity{MemoryBytes: 128 << 30})), good},
		{
			"capacity: one byte less", only(capacity(Capacity{Nodes: 9, MemoryBytes: 128<<30 - 1})),
			"over_capacity until 2027-01-15T00:00:00Z: license L1: covers 9 nodes, 137438953471 bytes of memory, which the first 1 members have; extend it, or remove members",
		},
		{
			"capacity: over it in grace", only(capacity(Capacity{Nodes: 1}), now("2027-01-02")),
			"over_capacity until 2027-01-15T00:00:00Z: license L1: covers 1 nodes, which the first 1 members have; extend it, or remove members",
		},

		{
			"revoked", only(annual(), func(in *Input) { in.Revocations = [][]byte{revoking(t, vendorKey, 1, "L1")} }),
			"revoked: license L1: its issuer took it back; ask them for another one",
		},
		{"revoked: another one", only(annual(), func(in *Input) { in.Revocations = [][]byte{revoking(t, vendorKey, 1, "L2")} }), good},
		{"revoked: by nobody", only(annual(), func(in *Input) { in.Revocations = [][]byte{revoking(t, rogueKey, 1, "L1")} }), good},
		{"revoked: by the issuer of another product", only(annual(), func(in *Input) { in.Revocations = [][]byte{revoking(t, otherKey, 1, "L1")} }), good},
		{
			"revoked: by the issuer's other key", only(annual(), func(in *Input) { in.Revocations = [][]byte{revoking(t, secondKey, 1, "L1")} }),
			"revoked: license L1: its issuer took it back; ask them for another one",
		},
		{"revoked: taken back by a later list", only(annual(), func(in *Input) {
			in.Revocations = [][]byte{revoking(t, vendorKey, 8), revoking(t, vendorKey, 7, "L1")}
		}), good},
		{"revoked: lists with one serial add up", only(annual(), func(in *Input) {
			in.Revocations = [][]byte{revoking(t, vendorKey, 7, "L1"), revoking(t, vendorKey, 7, "L2")}
		}), "revoked: license L1: its issuer took it back; ask them for another one"},

		{
			"repository: out of reach for less than 72 h", only(annual(), lastRead("2026-06-12T12:00:01Z")),
			"unlocked until 2026-06-15T12:00:01Z: license L1: is good up to 2026-12-31T23:59:59Z",
		},
		{
			"repository: out of reach for 72 h", only(annual(), lastRead("2026-06-12T12:00:00Z")),
			"grace until 2027-01-15T00:00:00Z: license L1: the repository was last read at 2026-06-12T12:00:00Z; bring it back",
		},
		{
			"repository: out of reach, no end", only(endless, lastRead("2026-06-12T12:00:00Z")),
			"grace: license L1: the repository was last read at 2026-06-12T12:00:00Z; bring it back",
		},
		{"repository: out of reach, and ended", only(annual(), lastRead("2026-06-12"), now("2027-01-15")), expired},
		{
			"repository: out of reach, over capacity", only(capacity(Capacity{Nodes: 1}), lastRead("2026-06-12")),
			"over_capacity until 2027-01-15T00:00:00Z: license L1: covers 1 nodes, which the first 1 members have; extend it, or remove members",
		},

		{
			"a file of another product", only(with(annual(), func(l *License) { l.Product = "acme-db2" })),
			"locked: no license of acme-db is in the configuration; unlock one with `belfry license unlock FILE`",
		},
		{
			"P4: a file that nobody signed", only(annual(), func(in *Input) { in.Files = [][]byte{signedBy(t, annual(), rogueKey)} }),
			"locked: license L1: no issuer of acme-db has the key " + KeyIDOf(public(rogueKey)).String() +
				"; register it with `belfry license issuer add` if you trust it",
		},
		{"P4: an activation without a file", only(annual(), func(in *Input) {
			in.Files, in.Activations = nil, []Activation{{License: "L1", Node: node(1), Time: at("2026-01-02"), Operator: "ada"}}
		}), "locked: no license of acme-db is in the configuration; unlock one with `belfry license unlock FILE`"},
		{"files that are none", only(annual(), func(in *Input) { in.Files = append(in.Files, []byte("x"), nil) }), good},
	} {
		if diff := cmp.Diff(tt.want, told(Evaluate(tt.in))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// X26. A clock that is set back does not bring a license back.
func TestTimeMarkCountsWhereTheClockIsBehind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, now, mark string
		state           belfry.LicenseState
		behind          time.Duration
	}{
		{"no mark", "2026-06-15", "", belfry.LicenseUnlocked, 0},
		{"the clock is ahead", "2026-06-15", "2026-06-14", belfry.LicenseUnlocked, 0},
		{"behind by 24 h", "2027-01-14T00:00:00Z", "2027-01-15T00:00:00Z", belfry.LicenseGrace, 0},
		{"behind by more", "2027-01-13T23:59:59Z", "2027-01-15T00:00:00Z", belfry.LicenseExpired, 24*time.Hour + time.Second},
		{"set back by a year", "2026-06-15", "2027-06-15", belfry.LicenseExpired, 365 * 24 * time.Hour},
		{"set back before the license", "2025-06-15", "2026-06-15", belfry.LicenseUnlocked, 365 * 24 * time.Hour},
	} {
		in := scene(t, annual())
		in.Now, in.Mark = at(tt.now), time.Time{}
		counts := in.Now
		if tt.mark != "" {
			in.Mark = at(tt.mark)
		}
		if tt.behind > 0 {
			counts = in.Mark
		}
		v := Evaluate(in)
		if v.State != tt.state || v.Behind != tt.behind || !v.Time.Equal(counts) {
			t.Errorf("%s: %s at %s, behind %s; want %s at %s, behind %s", tt.name, v.State, v.Time, v.Behind, tt.state, counts, tt.behind)
		}
	}
}

func TestSuccessors(t *testing.T) {
	t.Parallel()
	old := with(annual(), func(l *License) { l.NotAfter = time.Time{} })
	next := with(annual(), func(l *License) {
		l.ID, l.Supersedes, l.NotBefore, l.NotAfter = "L2", []ID{"L1"}, at("2026-07-01"), at("2026-07-31T23:59:59Z")
	})
	elsewhere := with(next, func(l *License) { l.Binding = Binding{Cluster: otherCluster} })
	othersNode := with(next, func(l *License) { l.Binding = Binding{Nodes: []belfry.NodeID{node(3)}} })
	strangers := with(next, func(l *License) { l.Binding = Binding{Nodes: []belfry.NodeID{node(9)}} })
	earlier := with(next, func(l *License) { l.ID, l.NotBefore = "L3", at("2026-06-20") })
	mutual := with(old, func(l *License) { l.Supersedes = []ID{"L2"} })
	always := with(next, func(l *License) { l.NotBefore = time.Time{} })
	for _, tt := range []struct {
		name     string
		licenses []License
		now      string
		revoked  []ID
		want     string
	}{
		{"bought in advance", []License{old, next}, "2026-06-30T23:59:59Z", nil, "unlocked until 2026-08-01T00:00:00Z: license L1: has no end"},
		{
			"takes its place",
			[]License{old, next},
			"2026-07-01T00:00:00Z", nil,
			"unlocked until 2026-08-01T00:00:00Z: license L2: is good up to 2026-07-31T23:59:59Z",
		},
		{
			"ends, and the old one stays away",
			[]License{old, next},
			"2026-09-01", nil,
			"expired: license L2: ended at 2026-07-31T23:59:59Z, its grace at 2026-08-15T00:00:00Z; renew it",
		},
		{"is revoked, and takes no place", []License{old, next}, "2026-07-02", []ID{"L2"}, "unlocked: license L1: has no end"},
		{"of another cluster", []License{old, elsewhere}, "2026-07-02", nil, "unlocked: license L1: has no end"},
		{
			"for other members of this cluster",
			[]License{old, othersNode},
			"2026-07-02", nil,
			"locked: license L1: license L2 has taken its place; use that one",
		},
		{"for nodes that are not here", []License{old, strangers}, "2026-07-02", nil, "unlocked: license L1: has no end"},
		{
			"two: the one that begins first",
			[]License{old, next, earlier},
			"2026-06-20", nil,
			"unlocked until 2026-08-01T00:00:00Z: license L3: is good up to 2026-07-31T23:59:59Z",
		},
		{"each other", []License{mutual, always}, "2026-07-02", nil, "locked: license L1: license L2 has taken its place; use that one"},
	} {
		in := scene(t, tt.licenses...)
		in.Now, in.Mark = at(tt.now), time.Time{}
		if tt.revoked != nil {
			in.Revocations = [][]byte{revoking(t, vendorKey, 1, tt.revoked...)}
		}
		if diff := cmp.Diff(tt.want, told(Evaluate(in))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	// What nobody signed, or was signed for another product, takes no place.
	for name, text := range map[string][]byte{
		"forged":          signedBy(t, always, rogueKey),
		"another product": signedBy(t, with(always, func(l *License) { l.Product = "other" }), otherKey),
	} {
		in := scene(t, old)
		in.Files = append(in.Files, text)
		if got := told(Evaluate(in)); got != "unlocked: license L1: has no end" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// One license for each place in the order of causes, from the best on. Any
// two of them together give the verdict of the better one.
func TestTheBestOfSeveralFilesWins(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		state  belfry.LicenseState
		change func(*License)
	}{
		{belfry.LicenseUnlocked, func(l *License) { l.NotAfter = time.Time{} }},
		{belfry.LicenseUnlocked, func(*License) {}},
		{belfry.LicenseGrace, func(l *License) { l.NotAfter = at("2026-06-14") }},
		{belfry.LicenseOverCapacity, func(l *License) { l.Capacity.Nodes = 1 }},
		{belfry.LicenseExpired, func(l *License) { l.NotAfter = at("2026-02-01") }},
		{belfry.LicenseExpired, func(l *License) { l.MaintenanceUntil = at("2026-02-01") }},
		{belfry.LicenseRevoked, func(l *License) { l.ID = "R" }},
		{belfry.LicenseLocked, func(l *License) { l.NotBefore = at("2026-08-01") }},
		{belfry.LicenseLocked, func(l *License) { l.Binding = Binding{Cluster: otherCluster} }},
	}
	input := func(numbers ...int) Input {
		in := scene(t)
		in.Released = at("2026-03-01")
		in.Revocations = [][]byte{revoking(t, vendorKey, 1, "R")}
		for _, n := range numbers {
			l := annual()
			l.ID = ID(fmt.Sprintf("K%d", n))
			kinds[n].change(&l)
			in.Files = append(in.Files, signed(t, l))
		}
		return in
	}
	for i := range kinds {
		alone := Evaluate(input(i))
		if alone.State != kinds[i].state {
			t.Errorf("license %d alone: %s, want %s", i, told(alone), kinds[i].state)
		}
		for j := i; j < len(kinds); j++ {
			for _, in := range []Input{input(i, j), input(j, i)} {
				if v := Evaluate(in); v.State != alone.State || v.License != alone.License {
					t.Errorf("licenses %d and %d: %s; want that of %s", i, j, told(v), alone.License)
				}
			}
		}
	}
}

func TestAmongEquals(t *testing.T) {
	t.Parallel()
	named := func(id ID, until string) License {
		return with(annual(), func(l *License) { l.ID, l.NotAfter = id, at(until) })
	}
	in := scene(t, named("A", "2026-10-01"), named("B", "2026-11-01"), named("C", "2026-11-01"))
	if v := Evaluate(in); v.License != "B" {
		t.Errorf("of A, which ends first, B and C: %s; want B, the lesser id", v.License)
	}
	in.Activations = []Activation{
		{License: "B", Node: node(1), Time: at("2026-03-02"), Operator: "ada"},
		{License: "C", Node: node(1), Time: at("2026-03-09"), Operator: "eve"},
		{License: "C", Node: node(3), Time: at("2026-03-01"), Operator: "bob"},
		{License: "C", Node: node(4), Time: at("2026-03-01"), Operator: "dan"},
	}
	v := Evaluate(in)
	if diff := cmp.Diff(in.Activations[2], v.Activation); v.License != "C" || diff != "" {
		t.Errorf("of B and C: %s; want C, which was unlocked first: %s", v.License, diff)
	}
	if diff := cmp.Diff(string(in.Files[2]), string(v.File)); diff != "" {
		t.Errorf("the file that decides (-want +got):\n%s", diff)
	}
}

func TestReasonsNeverShowAPayload(t *testing.T) {
	t.Parallel()
	in := scene(t, fullLicense())
	if v := Evaluate(in); strings.Contains(v.Reason, "Müller") {
		t.Errorf("the customer's name is in a reason, which is logged: %s", v.Reason)
	}
}
