package agent

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// statusOf is that of a cluster in which all is fine, as node a tells it.
func statusOf(table *Table, now time.Time) *belfryv1.GetStatusResponse {
	status := &belfryv1.GetStatusResponse{Generation: table.Generation}
	for i, n := range table.Nodes {
		report := &belfryv1.MemberReport{
			Asked: timestamppb.New(now), ClockOffset: durationpb.New(0),
			Generation: table.Generation, AskerGeneration: table.Generation,
			CertificateEnd: timestamppb.New(now.Add(20 * 24 * time.Hour)),
		}
		if len(table.CA) > 0 {
			digest := table.CA[0].Digest()
			report.Authority = hex.EncodeToString(digest[:])
		}
		status.Nodes = append(status.Nodes, &belfryv1.Node{
			Id: n.ID.String(), Name: n.Name, Verdict: "up", Self: i == 0,
			LastHeard: timestamppb.New(now), Report: report,
		})
	}
	return status
}

// sole checks that there is one finding, of that level and with that text.
func sole(t *testing.T, name string, found findings, level Level, text string) {
	t.Helper()
	if len(found) != 1 || found[0].Level != level || !strings.Contains(found[0].Text, text) {
		t.Errorf("%s: %v\nwant one of level %s: %s", name, found, level, text)
	}
}

func TestDoctorComparesClocks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tt := range []struct {
		offset time.Duration
		level  Level
		text   string
	}{
		{999 * time.Millisecond, LevelOK, "1 other clocks at most 999ms apart"},
		{-time.Second, LevelWarning, "b is 1s behind this node; see that time synchronisation runs"},
		{time.Second, LevelWarning, "b is 1s ahead of this node"},
		{30*time.Second - 1, LevelWarning, "b is 30s ahead"},
		{-30 * time.Second, LevelFailure, "b is 30s behind"},
	} {
		status := statusOf(testTable(t), now)
		status.Nodes[1].Report.ClockOffset = durationpb.New(tt.offset)
		d := doctor{now: now, ask: Ask{Status: func() (*belfryv1.GetStatusResponse, error) { return status, nil }}}
		sole(t, tt.offset.String(), d.clock(), tt.level, tt.text)
	}
	status := statusOf(testTable(t), now)
	status.Nodes[1].Report = nil
	d := doctor{now: now, ask: Ask{Status: func() (*belfryv1.GetStatusResponse, error) { return status, nil }}}
	sole(t, "no answer", d.clock(), LevelUnknown, "b has not said its time")
	status.Nodes[1].Stream = &belfryv1.PeerStream{ClockOffset: durationpb.New(-time.Hour)}
	sole(t, "said without a stream", d.clock(), LevelFailure, "b is 1h0m0s behind this node")
	status.Nodes[1].Stream = nil
	status.Nodes[1].Verdict = "down"
	sole(t, "down", d.clock(), LevelOK, "0 other clocks")
	status.Nodes[0].Report.Asked = timestamppb.New(now.Add(-reportLife - 1))
	sole(t, "old reports", d.clock(), LevelUnknown, "this agent has not asked the members")
	d.ask.Status = noAgent
	sole(t, "no agent", d.clock(), LevelUnknown, "needs an agent that answers: no agent")
}

func TestDoctorComparesAddresses(t *testing.T) {
	t.Parallel()
	at := func(text string) Network {
		p := netip.MustParsePrefix(text)
		return Network{Name: "net1", Heartbeat: netip.AddrPortFrom(p.Addr(), 7431), Bits: p.Bits()}
	}
	for _, tt := range []struct {
		mine, its, here string
		level           Level
		text            string
	}{
		{"10.0.0.1/24", "10.0.0.2/24", "10.0.0.1/24", LevelOK, "net1 10.0.0.1"},
		{"10.0.0.1/24", "10.0.0.2/24", "", LevelFailure, "10.0.0.1 is not an address of this machine"},
		{"10.0.0.1/24", "10.0.0.2/24", "10.0.0.1/24 eth2 is set down", LevelWarning, "net1: no heartbeat leaves from 10.0.0.1: eth2 is set down"},
		{"10.0.0.1/24", "10.0.0.2/24", "10.0.0.1/16", LevelWarning, "has the prefix /16 here, /24 in the member table"},
		{"10.0.0.1/24", "10.0.0.1/24", "10.0.0.1/24", LevelFailure, "b has the address 10.0.0.1:7431 too"},
		{"10.0.0.1/24", "10.0.1.2/24", "10.0.0.1/24", LevelWarning, "b is in 10.0.1.0/24 there, in 10.0.0.0/24 here"},
	} {
		table := testTable(t)
		table.Nodes[0].Networks, table.Nodes[1].Networks = []Network{at(tt.mine)}, []Network{at(tt.its)}
		here, fault, _ := strings.Cut(tt.here, " ")
		own := func(netip.Addr) (netip.Prefix, string, bool) {
			p, err := netip.ParsePrefix(here)
			return p, fault, err == nil
		}
		sole(t, tt.text, table.checkAddresses(table.Nodes[0].ID, own), tt.level, tt.text)
	}
	apart := testTable(t)
	apart.Nodes[0].Networks, apart.Nodes[1].Networks = []Network{at("10.0.0.1/24")}, []Network{at("10.0.9.2/24")}
	apart.Nodes[1].Networks[0].Name = "net2"
	here := func(netip.Addr) (netip.Prefix, string, bool) { return netip.MustParsePrefix("10.0.0.1/24"), "", true }
	sole(t, "apart", apart.checkAddresses(apart.Nodes[0].ID, here), LevelWarning, "no network in common with b, which has 10.0.9.2/24, this node has 10.0.0.1/24")
}

func TestDoctorJudgesMembers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(b *belfryv1.Node)
		text   string
	}{
		{"stopped", func(b *belfryv1.Node) { b.Verdict, b.LastHeard, b.Report = "left", nil, nil }, ""},
		{"never came", func(b *belfryv1.Node) { b.Verdict, b.LastHeard, b.Report = "joining", nil, nil }, "b has never been heard by this agent; start its agent"},
		{"down", func(b *belfryv1.Node) { b.Verdict, b.Report = "down", nil }, "b is down; belfry node why b"},
		{"behind", func(b *belfryv1.Node) { b.Report.AskerGeneration = 2 }, "b ran with generation 1 while this node had 2"},
		{"ahead", func(b *belfryv1.Node) { b.Report.Generation = 2 }, "this node had generation 1 while b ran with 2"},
		{"older agent", func(b *belfryv1.Node) { b.Report.Generation = 0 }, ""},
	} {
		status := statusOf(testTable(t), time.Now())
		tt.change(status.Nodes[1])
		var found findings
		for _, n := range status.Nodes {
			checkMember(n, &found)
		}
		if tt.text == "" && len(found) == 0 {
			continue
		}
		sole(t, tt.name, found, LevelWarning, tt.text)
	}
}

func TestDoctorTellsThatNobodyIsHeard(t *testing.T) {
	t.Parallel()
	status := statusOf(testTable(t), time.Now())
	if alone(status) {
		t.Error("alone, though another member is up")
	}
	for _, n := range status.Nodes[1:] {
		n.Verdict = "down"
	}
	if !alone(status) {
		t.Error("not alone, though no other member is up")
	}
	status.Nodes = status.Nodes[:1]
	if alone(status) {
		t.Error("the only member is alone")
	}
}

func TestDoctorTellsWhatTheAuthorityWaitsFor(t *testing.T) {
	t.Parallel()
	now := time.Now()
	old, next := Certificate("old"), Certificate("next")
	for _, tt := range []struct {
		name   string
		change func(table *Table, status *belfryv1.GetStatusResponse)
		text   string
	}{
		{"nothing", func(*Table, *belfryv1.GetStatusResponse) {}, ""},
		{"all know the next", func(table *Table, _ *belfryv1.GetStatusResponse) {
			table.CA, table.CANext = append(table.CA, next), true
		}, ""},
		{"one does not answer", func(table *Table, status *belfryv1.GetStatusResponse) {
			table.CA, table.CANext = append(table.CA, next), true
			status.Nodes[1].Report = nil
		}, "the authority is being replaced, which waits for b"},
		{"one has not renewed", func(table *Table, status *belfryv1.GetStatusResponse) {
			table.CA = append(table.CA, next)
			status.Nodes[1].Report.Authority = strings.Repeat("0", 64)
		}, "b has not said that it renewed its certificate"},
		{"one holder of two", func(table *Table, _ *belfryv1.GetStatusResponse) { table.CAKeys = table.CAKeys[:1] }, "1 of 2 nodes hold the authority's key"},
		{"no holder, much time", func(_ *Table, status *belfryv1.GetStatusResponse) { status.Nodes[1].Report = nil }, ""},
		{"no holder is up", func(table *Table, status *belfryv1.GetStatusResponse) {
			for i := range status.Nodes {
				table.CAKeys[i].Holder = belfry.NodeID{9}
			}
			table.CAKeys = append(table.CAKeys[:1], SealedKey{CA: old.Digest(), Holder: table.Nodes[1].ID})
			status.Nodes[1].Report, status.Nodes[1].Verdict = nil, "down"
		}, "no node that holds the authority's key is up: nobody can join, no certificate is renewed; start one of b"},
		{"all holders removed", func(table *Table, _ *belfryv1.GetStatusResponse) {
			table.CAKeys, table.Exposed = nil, true
		}, "the nodes that held the authority's key were removed: nobody can join"},
		{"another takes the place of theirs", func(table *Table, _ *belfryv1.GetStatusResponse) {
			table.CAKeys, table.CA, table.CANext = nil, append(table.CA, next), true
			for _, n := range table.Nodes {
				table.CAKeys = append(table.CAKeys, SealedKey{CA: next.Digest(), Holder: n.ID})
			}
		}, ""},
		{"offline authority", func(table *Table, status *belfryv1.GetStatusResponse) {
			table.CAKeys = nil
			status.Nodes[0].Report.CertificateEnd = timestamppb.New(now)
		}, ""},
	} {
		table := testTable(t)
		table.CA = []Certificate{old}
		for _, n := range table.Nodes {
			table.CAKeys = append(table.CAKeys, SealedKey{CA: old.Digest(), Holder: n.ID})
		}
		status := statusOf(table, now)
		tt.change(table, status)
		var found findings
		table.checkRotation(status, &found)
		table.checkHolders(status, now, &found)
		if tt.text == "" && len(found) == 0 {
			continue
		}
		sole(t, tt.name, found, LevelWarning, tt.text)
	}
}

func TestDoctorMissesAHolderAndFromTenDaysOnSaysThatItIsUrgent(t *testing.T) {
	t.Parallel()
	now, ca := time.Now(), Certificate("ca")
	for _, left := range []time.Duration{certificateWarning, certificateWarning - 1} {
		for _, reachable := range []bool{true, false} {
			table := testTable(t)
			table.CA = []Certificate{ca}
			status := statusOf(table, now)
			for i := range 3 { // c, d and e hold it
				n := Node{ID: belfry.NewNodeID(), Name: string(rune('c' + i))}
				table.Nodes = append(table.Nodes, n)
				table.CAKeys = append(table.CAKeys, SealedKey{CA: ca.Digest(), Holder: n.ID})
				node := &belfryv1.Node{Id: n.ID.String(), Name: n.Name}
				if reachable && i == 2 {
					node.Report = &belfryv1.MemberReport{CertificateEnd: timestamppb.New(now.Add(certificateWarning))}
				}
				status.Nodes = append(status.Nodes, node)
			}
			status.Nodes[1].Report.CertificateEnd = timestamppb.New(now.Add(left))
			var found findings
			table.checkHolders(status, now, &found)
			if reachable {
				if len(found) != 0 {
					t.Errorf("%s left, a holder is there: %v; want none", left, found)
				}
				continue
			}
			want := "no certificate is renewed; start one of c d e"
			if left < certificateWarning {
				want = "no certificate is renewed, and a certificate ends within 10 days; start one of c d e"
			}
			sole(t, left.String(), found, LevelWarning, want)
		}
	}
}

func TestDoctorJudgesTheLimitsOfAProcess(t *testing.T) {
	t.Parallel()
	const head = "Limit                     Soft Limit           Hard Limit           Units     \n"
	row := func(name, soft string) string {
		return fmt.Sprintf("%-26s%-21s%-21sfiles     \n", name, soft, "unlimited")
	}
	for _, tt := range []struct {
		files, core string
		text        string
	}{
		{"65536", "0", ""},
		{"unlimited", "0", ""},
		{"65535", "0", "can open 65535 files, 65536 are recommended; set LimitNOFILE"},
		{"65536", "unlimited", "core file with the agent's keys can be written (limit unlimited); set LimitCORE=0"},
		{"65536", "1", "core file"},
	} {
		proc := fstest.MapFS{"7/limits": {Data: []byte(head + row("Max core file size", tt.core) + row("Max open files", tt.files) + row("Max locked memory", "8388608"))}}
		if tt.text == "" {
			sole(t, tt.files, processLimits(proc, 7), LevelOK, tt.files+" open files, 8388608 bytes of locked memory, no core file")
			continue
		}
		sole(t, tt.text, processLimits(proc, 7), LevelWarning, tt.text)
	}
	sole(t, "gone", processLimits(fstest.MapFS{}, 7), LevelUnknown, "on the machine of the agent")
}

// TestAProcessThatCanNotBeDumpedIsKnownByItsOwner (proc(5)): its files below /proc
// are root's. Of a process of root that says nothing.
func TestAProcessThatCanNotBeDumpedIsKnownByItsOwner(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		owner uint32 // of its files
		uids  string
		want  bool
	}{
		{0, "988\t988\t988\t988", true},
		{988, "988\t988\t988\t988", false},
		{0, "0\t0\t0\t0", false},
	} {
		proc := fstest.MapFS{"7/status": {Data: []byte("Name:\tbelfry\nUid:\t" + tt.uids + "\n"), Sys: &syscall.Stat_t{Uid: tt.owner}}}
		if got := keepsMemory(proc, "7"); got != tt.want {
			t.Errorf("owner %d, uids %q: %t; want %t", tt.owner, tt.uids, got, tt.want)
		}
	}
}

// TestDoctorAsksARunningCluster shows that what the agents say arrives.
func TestDoctorAsksARunningCluster(t *testing.T) {
	t.Parallel()
	nodes := localNodes(t, 2)
	a, b := startAgent(t, nodes[0]), startAgent(t, nodes[1])
	ask := func() (*belfryv1.GetStatusResponse, error) {
		c, err := client.Dial(t.Context(), "unix:"+settingsOf(nodes[0]).Socket.Path)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.Status(t.Context())
	}
	for deadline := time.Now().Add(testTimeout); len(a.polled.get()) < 2; time.Sleep(time.Millisecond) { //nolint:forbidigo // a poll tells nobody
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer", b.id.node.ID)
		}
		a.polled.set(a.pollMembers(t.Context()))
	}
	for _, f := range Diagnose(settingsOf(nodes[0]), time.Now(), []string{"addresses", "clock"}, Ask{Status: ask}) {
		want := map[string]string{"addresses": "net1 127.0.0.1", "clock": "1 other clocks at most"}[f.Check]
		if f.Level != LevelOK || !strings.Contains(f.Text, want) {
			t.Errorf("%v; want ok, %s", f, want)
		}
	}
	status, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	digest := a.members.Table().CA[0].Digest()
	for _, n := range status.GetNodes() {
		r := n.GetReport()
		if r.GetGeneration() != 1 || r.GetAskerGeneration() != 1 || r.GetAuthority() != hex.EncodeToString(digest[:]) || time.Until(r.GetCertificateEnd().AsTime()) < 29*24*time.Hour {
			t.Errorf("%s: %v", n.GetName(), r)
		}
	}
}
