package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"

	"github.com/belfry-ha/belfry/internal/sim"
)

// A job is one run that a child plays; an answer what comes of it.
type job struct {
	Scenario string `json:"scenario"` // its name
	Text     string `json:"text"`
	System   string `json:"system"`
	Seed     uint64 `json:"seed"`
}

type answer struct {
	Figures figures `json:"figures"`
	Error   string  `json:"error,omitempty"`
}

const bubbleRole = "bubble"

// playBubbles plays each job of its input in a bubble of virtual time, and
// does not return. A bubble needs a *testing.T, and testing.Main is how a
// program that is no test gets one; it prints PASS, so answers go to a file
// of their own.
func playBubbles(in io.Reader, out io.Writer) {
	os.Args = os.Args[:1] // the flags of package testing are not ours
	// A bubble hands over from one goroutine to the next all the time: on one
	// processor, and with rarer collections, that takes a quarter of the time.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400)
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{
		Name: "Bubbles",
		F: func(t *testing.T) {
			answers := json.NewEncoder(out)
			jobs := json.NewDecoder(bufio.NewReader(in))
			for {
				var j job
				if err := jobs.Decode(&j); err == io.EOF {
					return
				} else if err != nil {
					t.Fatal(err)
				}
				if err := answers.Encode(j.play(t)); err != nil {
					t.Fatal(err)
				}
			}
		},
	}}, nil, nil)
}

func (j job) play(t *testing.T) (a answer) {
	s, err := sim.Parse(j.Scenario, []byte(j.Text))
	if err != nil {
		return answer{Error: err.Error()}
	}
	s = shifted(s, j.Seed)
	chosen, err := chosen(j.System)
	if err != nil {
		return answer{Error: err.Error()}
	}
	synctest.Test(t, func(*testing.T) {
		r, err := playMemberlist(s, chosen[0], j.Seed)
		if err != nil {
			a.Error = fmt.Sprintf("%s, seed %d: %v", j.System, j.Seed, err)
			return
		}
		a.Figures = measure(s, r)
	})
	return a
}
