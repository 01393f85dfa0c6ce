package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/agent"
)

// crowd is a program of many clients of the witness, each with a connection of its
// own, over TLS where $BELFRY_IDENTITY is set; scripts find it under this name. It keeps a file that adds up what they were
// told: how many were told which states of a resource, in which order.
func crowd() {
	var cfg client.WitnessConfig
	var clients int
	var file, seeds string
	flag.IntVar(&clients, "clients", 1, "how many")
	flag.StringVar(&file, "file", "", "that adds up what they were told")
	flag.StringVar(&seeds, "seeds", "", "agents, joined by commas")
	flag.StringVar(&cfg.At, "at", "", "the node that they use")
	flag.DurationVar(&cfg.KeepAlive, "keep-alive", 0, "how long their witness may be silent")
	flag.Parse()
	cfg.Seeds, cfg.Resources = strings.Split(seeds, ","), flag.Args()
	if dir := os.Getenv("BELFRY_IDENTITY"); dir != "" {
		var err error
		if cfg.TLS, err = agent.ClientTLS(dir); err != nil {
			fmt.Fprintln(os.Stderr, "crowd:", err)
			os.Exit(1)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	t := &tally{opening: make(chan struct{}, openAtOnce), told: make([]map[string][]string, clients), at: make([]string, clients), moves: make([]int, clients)}
	var group sync.WaitGroup
	for i := range clients {
		t.told[i] = map[string][]string{}
		one := cfg
		one.Name = fmt.Sprintf("crowd-%d", i)
		group.Go(func() { t.follow(ctx, i, one) })
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
		if err := t.write(file); err != nil {
			fmt.Fprintln(os.Stderr, "crowd:", err)
			os.Exit(1)
		}
	}
	group.Wait()
}

// A tally is what each client was told.
type tally struct {
	mu     sync.Mutex
	told   []map[string][]string // states by resource
	at     []string              // node of the witness; empty: none
	moves  []int
	failed []string

	opening chan struct{} // a place for each that is being opened
}

// openAtOnce is how many clients begin at a time. What comes later, when their witness
// has died, is for all of them at once.
const openAtOnce = 32

// follow is one client, until ctx ends.
func (t *tally) follow(ctx context.Context, i int, cfg client.WitnessConfig) {
	t.opening <- struct{}{}
	opening, cancel := context.WithTimeout(ctx, 30*time.Second)
	w, err := client.OpenWitness(opening, cfg)
	cancel()
	<-t.opening
	if err != nil {
		t.note(func() { t.failed = append(t.failed, err.Error()) })
		return
	}
	defer w.Close()
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return
		}
		t.note(func() {
			switch e.Kind {
			case client.WitnessAt:
				t.at[i] = e.Node
			case client.WitnessMissing:
				t.at[i] = ""
			case client.WitnessMove:
				t.moves[i]++
			case client.WitnessState, client.WitnessChange:
				name := string(e.Change.Resource)
				t.told[i][name] = append(t.told[i][name], e.Change.Level.State.String())
			}
		})
	}
}

func (t *tally) note(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

// write adds up, and replaces the file.
func (t *tally) write(file string) error {
	sum := struct {
		At     map[string]int            `json:"at"`
		Told   map[string]map[string]int `json:"told"` // clients, by resource and states
		Moves  map[int]int               `json:"moves"`
		Failed []string                  `json:"failed"`
	}{map[string]int{}, map[string]map[string]int{}, map[int]int{}, nil}
	t.note(func() {
		sum.Failed = append(sum.Failed, t.failed...)
		for i, told := range t.told {
			sum.At[t.at[i]]++
			sum.Moves[t.moves[i]]++
			for name := range maps.Keys(told) {
				if sum.Told[name] == nil {
					sum.Told[name] = map[string]int{}
				}
				sum.Told[name][strings.Join(told[name], " ")]++
			}
		}
	})
	data, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
