package sim

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// whole has a line of every kind.
const whole = `nodes 64                      # n1..n64
networks net1 net2
seeds 1..30
delay 500us exp 100us
set allowance 5.5s
at 10s   loss n1>n2 20%  until 70s            # directed; * = any; @net2 = on that network only
at 10s   burst n1>n2 good 30s bad 300ms loss 90%
at 20s   delay n3>*@net2 200ms jitter 50ms until 60s
at 30s   cut net2 n1,n2|n3 until 90s
at 40s   kill host n7
at 41s   kill process n8
at 50s   pause process n9 5s
at 50s   pause vm n10 5s
at 50s   pause observer n11 5s
at 0s    join *
at 60s   leave n12
at 60s   restart n13
at 60s   stop n14
at 70s   start n14
at 5s    flood n5 50000/s 60s
at 5s    duplicate n1>n2 1%
at 5s    reorder n1>n2 0.5% 20ms
at 5s    clock n4 +3s
at 5s    carrier n4 net2 lost
at 6s    carrier n4,n5 net2 back
run 120s
expect n7 unreachable within 800ms at all
expect n8 down within 50ms at first
expect never down n9
expect never left *
expect link n1>n2@net2 one-way-in within 2.8s
expect contact n2>n1 down
expect never link n1>n2@net1 degraded
expect never contact n1>n2 up
`

func TestParseReadsTheWholeLanguage(t *testing.T) {
	t.Parallel()
	s := parse(t, whole)
	want := `nodes 64
networks net1 net2
seeds 1..30
delay 500µs exp 100µs
set allowance 5.5s
at 0s join *
at 5s flood n5 50000/s 1m0s
at 5s duplicate n1>n2 1.0%
at 5s reorder n1>n2 0.5% 20ms
at 5s clock n4 +3s
at 5s carrier n4 net2 lost
at 6s carrier n4,n5 net2 back
at 10s loss n1>n2 20.0% until 1m10s
at 10s burst n1>n2 good 30s bad 300ms loss 90.0%
at 20s delay n3>*@net2 200ms jitter 50ms until 1m0s
at 30s cut n1,n2|n3@net2 until 1m30s
at 40s kill host n7
at 41s kill process n8
at 50s pause process n9 5s
at 50s pause vm n10 5s
at 50s pause observer n11 5s
at 1m0s leave n12
at 1m0s restart n13
at 1m0s stop n14
at 1m10s start n14
run 2m0s
expect n7 unreachable within 800ms at all
expect n8 down within 50ms at first
expect never down n9
expect never left *
expect link n1>n2@net2 one-way-in within 2.8s
expect contact n2>n1 down
expect never link n1>n2@net1 degraded
expect never contact n1>n2 up
`
	if diff := cmp.Diff(want, s.Format()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want1 := Step{
		At: 30 * time.Second, Until: 90 * time.Second, Line: 9, Kind: StepCut,
		From: []int{0, 1}, To: []int{2}, Both: true, Network: "net2",
	}
	if diff := cmp.Diff(want1, s.Steps[10]); diff != "" {
		t.Errorf("line 9 (-want +got):\n%s", diff)
	}
	if !s.Joins() || parse(t, "nodes 1\nrun 1s").Joins() {
		t.Error("who joins is not seen")
	}
}

func TestParseSaysWhatIsWrongAndWhere(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                             "x:1: no line says how many nodes there are; write nodes 3",
		"nodes 3":                                      "x:1: no line says how long it runs; write run 60s",
		"nodes 0\nrun 1s":                              `x:1: "0" is no number from 1 to 10000`,
		"nodes 3 4\nrun 1s":                            `x:1: "4" is one word too many`,
		"nods 3":                                       `x:1: "nods" begins no line; one of nodes, networks, seeds, delay, set, at, run, expect`,
		"nodes 3\nseeds 5..4":                          `x:2: "5..4" are no seeds; write 1..30, at most 1000000 of them`,
		"nodes 3\ndelay 5":                             `x:2: "5" is no time from 0s to 1m0s, like 500ms or 2s`,
		"nodes 3\nset allow 5s":                        `x:2: "allow" is no tunable that a scenario can set; one of allowance, detect_target, interval_max, node_down_delay, node_timeout, restart_hold, stall_max`,
		"nodes 3\nat 1s kill n3":                       `x:2: "kill n3" is nothing that can happen; burst, carrier, clock, cut, delay, duplicate, flood, join, kill host, kill process, leave, loss, pause observer, pause process, pause vm, reorder, restart, start, stop`,
		"nodes 3\nat 1s kill host n4":                  `x:2: "n4" is no node; n1 to n3, several with commas, or *`,
		"nodes 3\nat 1s kill host n03":                 `x:2: "n03" is no node; n1 to n3, several with commas, or *`,
		"nodes 3\nat 1s loss n1 5%":                    `x:2: "n1" is no pair; n1>n2 is one way, n1|n2 both, * is any node`,
		"nodes 3\nat 1s loss n1>n2 5":                  `x:2: "5" is no share from 0% to 100% with one decimal at most, like 20% or 0.5%`,
		"nodes 3\nat 1s loss n1>n2 101%":               `x:2: "101%" is no share from 0% to 100% with one decimal at most, like 20% or 0.5%`,
		"nodes 3\nat 1s cut n1|n2@net2":                `x:2: "net2" is no network; one of net1`,
		"nodes 3\nat 1s cut n1|n2 til 2s":              `x:2: "til" is one word too many`,
		"nodes 3\nat 2s cut n1|n2 until 1s":            `x:2: "1s" is no time from 2s to 24h0m0s, like 500ms or 2s`,
		"nodes 3\nat 1s burst n1>n2 bad 1s":            `x:2: "bad" stands where good has to`,
		"nodes 3\nat 1s flood n1 5/m 1s":               `x:2: "5/m" is no rate from 1/s to 1000000/s`,
		"nodes 3\nrun 1s\nexpect n1 dead at all":       `x:3: "dead" is no verdict; joining, up, stalled, unreachable, down or left`,
		"nodes 3\nrun 1s\nexpect n1 down within 1s":    `x:3: "" stands where at has to`,
		"nodes 3\nrun 1s\nexpect n1 down at most":      `x:3: "most" is no place for a verdict; at all or at first`,
		"nodes 3\nrun 1s\nexpect * down at all":        `x:3: "*" is not one node`,
		"nodes 3\nrun 1s\nnodes 2":                     `x:3: "nodes" stands twice; line 1 has it already`,
		"nodes 3\nrun 1s\nnetworks a a":                `x:3: "a" is there twice; each network has a name of its own`,
		"nodes 3\nrun 1s\nnetworks a@b":                `x:3: "a@b" is no name of a network; letters, digits and -`,
		"nodes 3\nrun 1s\nset allowance 600s":          "x:3: allowance is 10m0s; want 0s to 2m0s\nallowance_cap is 10m0s; want 10m0s to 2m0s",
		"nodes 3\nrun 1s\nat 2s kill host n1":          `x:3: 2s is after the end of the run, 1s`,
		"nodes 3\nrun 1s\nat 0s stop n1,n9,n2\nrun 1s": `x:3: "n9" is no node; n1 to n3, several with commas, or *`,
		"nodes 3\nat 1s carrier n1 net2 lost":          `x:2: "net2" is no network; one of net1`,
		"nodes 3\nat 1s carrier n1 net1 gone":          `x:2: "gone" is nothing that a carrier can be; lost or back`,
		"nodes 3\nrun 1s\nexpect link n1>n2 down":      `x:3: that is not what one node holds of another; link n1>n2@net1 or contact n1>n2`,
		"nodes 3\nrun 1s\nexpect link n1|n2@net1 up":   `x:3: that is not what one node holds of another; link n1>n2@net1 or contact n1>n2`,
		"nodes 3\nrun 1s\nexpect link n1>*@net1 up":    `x:3: that is not what one node holds of another; link n1>n2@net1 or contact n1>n2`,
		"nodes 3\nrun 1s\nexpect contact n1>n1 up":     `x:3: that is not what one node holds of another; link n1>n2@net1 or contact n1>n2`,
		"nodes 3\nrun 1s\nexpect link n1>n2@net1 off":  `x:3: "off" is no state of a link; one like up, down, degraded or one-way-in`,
		"nodes 3\nrun 1s\nexpect contact n1>n2 init":   `x:3: "init" is no general state; up or down`,
	} {
		_, err := Parse("x", []byte(text))
		var e *belfry.Error
		if !errors.Is(err, belfry.ErrUsage) || !errors.As(err, &e) {
			t.Errorf("%q: %v, want a usage error", text, err)
			continue
		}
		got := e.Subject + ": " + strings.TrimPrefix(e.Err.Error(), belfry.ErrUsage.Error()+": ")
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
	}
}

// FuzzScenario: no panic, memory in proportion, and what is written reads the
// same again.
func FuzzScenario(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("nodes 1\nrun 1ms\nat 0s cut *|*\nexpect never down *"))
	f.Add([]byte(Random(1).Format()))
	files, err := filepath.Glob(filepath.Join("testdata", "*.scenario"))
	if err != nil || len(files) == 0 {
		f.Fatal("no scenarios:", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s, err := Parse("fuzz", text)
		runtime.ReadMemStats(&after)
		// A step of four words is a struct of 250 bytes, in a slice that doubles;
		// the rest is what the runtime itself takes meanwhile.
		if grown, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<18+200*len(text)); grown > most {
			t.Errorf("%d bytes allocated for %d, want %d at most", grown, len(text), most)
		}
		if err != nil {
			if !errors.Is(err, belfry.ErrUsage) {
				t.Fatalf("%v, want a usage error", err)
			}
			return
		}
		first := s.Format()
		again, err := Parse("fuzz", []byte(first))
		if err != nil {
			t.Fatalf("%v in what was written:\n%s", err, first)
		}
		if diff := cmp.Diff(first, again.Format()); diff != "" {
			t.Fatalf("(-written +read and written):\n%s", diff)
		}
		s.Conditions(1).Fate(0, s.Nodes-1, 0, s.Run/2, 0)
	})
}
