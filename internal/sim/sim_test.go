package sim

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

// read parses a scenario of testdata.
func read(t *testing.T, file string) *Scenario {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(filepath.Base(file), text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestX(t *testing.T) {
	for _, f := range []string{"killed64", "silent64"} {
		s := read(t, "testdata/"+f+".scenario")
		var all []time.Duration
		var un, dn []time.Duration
		bytes := 0.0
		for seed := uint64(1); seed <= 30; seed++ {
			r, err := Run(s, Options{Seed: seed})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range r.Failures {
				t.Log(f)
			}
			first := map[string]bool{}
			for _, v := range r.Verdicts {
				if v.Subject == 6 && !first[v.To.String()] {
					first[v.To.String()] = true
					switch v.To.String() {
					case "unreachable":
						un = append(un, v.At-10*time.Second)
					case "down":
						dn = append(dn, v.At-10*time.Second)
					}
				}
				if v.Subject == 6 && v.To.String() == "down" {
					all = append(all, v.At-10*time.Second)
				}
			}
			bytes += float64(r.Bytes[20]) / s.Run.Seconds() / 30
		}
		slices.Sort(un)
		slices.Sort(dn)
		slices.Sort(all)
		if len(un) > 0 {
			t.Log("unreachable", un[len(un)/2], un[len(un)-1])
		}
		t.Log("down", dn[len(dn)/2], dn[len(dn)-1], "all", all[len(all)-1], "bytes/s", bytes)
	}
}

func TestBig(t *testing.T) {
	s := read(t, "testdata/silent64.scenario")
	s.Nodes = 10000
	s.Run = 60 * time.Second
	began := time.Now()
	r, err := Run(s, Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Log(time.Since(began), r.Events, len(r.Verdicts), m.Sys>>20, "MiB")
	for _, f := range r.Failures {
		t.Log(f)
	}
	b := uint64(0)
	for _, x := range r.Bytes {
		b += x
	}
	t.Log("bytes/s", float64(b)/10000/60)
	for _, v := range r.Verdicts[:3] {
		t.Logf("%+v", v)
	}
}
