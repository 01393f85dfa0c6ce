package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// laneRole plays one repetition of the real lane in a network namespace of its
// own, so that its loopback interface counts nothing else.
const laneRole = "lane"

// A laneJob is one repetition.
type laneJob struct {
	System  string        `json:"system"`
	Nodes   int           `json:"nodes"`
	Program string        `json:"program"` // of Belfry
	Settle  time.Duration `json:"settle"`
	Window  time.Duration `json:"window"` // of each measurement of packets and processor time
	Pause   time.Duration `json:"pause"`
}

// A laneResult is what it came to.
type laneResult struct {
	Error    string    `json:"error,omitempty"`
	Load     string    `json:"load_average"`
	Formed   float64   `json:"formed_seconds"` // until everyone held everyone up
	CPU      float64   `json:"cpu_seconds_per_node_minute"`
	Resident float64   `json:"resident_mib"` // of a node
	Idle     laneWire  `json:"idle"`
	Lossy    *laneWire `json:"lossy,omitempty"` // nil: no packet filter
	// Verdicts about nodes that were there, by how bad: episodes under loss, and
	// whether the paused node was held to be that.
	LossMistakes map[string]int `json:"loss_mistakes,omitempty"`
	PauseBad     map[string]int `json:"pause_bad"`
	Killed       detection      `json:"killed"`
	NoFilter     string         `json:"no_filter,omitempty"`
}

// laneWire is what a node sends in a second, by the counters of the interface.
type laneWire struct {
	Packets float64 `json:"packets_per_node_second"`
	Bytes   float64 `json:"bytes_per_node_second"`
}

// A cluster is real processes, each of them a node.
type cluster interface {
	// watch begins to report to the log what every node is told.
	watch(ctx context.Context, l *sightings) error
	// formed waits until every node holds every other up.
	formed(ctx context.Context) error
	process(node int) int // its id
	stop() error
}

// The roles of nodes in a repetition; others only watch.
const (
	pausedNode = 1
	killedNode = 2
)

const (
	lanePercent  = 20 // of packets lost, in the lossy window
	laneRecovery = 12 * time.Second
	laneLimit    = 40 * time.Second // for a verdict, or to form
	detectPoll   = 100 * time.Millisecond
)

// playLane answers each job of its input.
func playLane(in io.Reader, out io.Writer) error {
	if text, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, text)
	}
	answers, jobs := json.NewEncoder(out), json.NewDecoder(in)
	for {
		var j laneJob
		if err := jobs.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r, err := j.play(context.Background())
		if err != nil {
			r.Error = err.Error()
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
}

func (j laneJob) start(ctx context.Context) (cluster, error) {
	if j.System == belfryName {
		return startBelfry(ctx, j.Program, j.Nodes)
	}
	return startMemberlist(j.System, j.Nodes)
}

// A repetition is one cluster on its way through all of it.
type repetition struct {
	laneJob
	laneResult
	cluster cluster
	log     sightings
}

func (j laneJob) play(ctx context.Context) (_ laneResult, err error) {
	r := &repetition{laneJob: j}
	begin := time.Now()
	if r.cluster, err = j.start(ctx); err != nil {
		return r.laneResult, err
	}
	defer func() { err = errors.Join(err, r.cluster.stop()) }()
	limited, cancel := context.WithTimeout(ctx, laneLimit)
	defer cancel()
	if err := r.cluster.formed(limited); err != nil {
		return r.laneResult, err
	}
	r.Formed = time.Since(begin).Seconds()
	idleFor(j.Settle)
	if err := r.idle(); err != nil {
		return r.laneResult, err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	if err := r.cluster.watch(watching, &r.log); err != nil {
		return r.laneResult, err
	}
	return r.laneResult, r.disturb()
}

// idleFor lets real time pass.
func idleFor(d time.Duration) { <-time.After(d) }

// idle measures what it costs when nothing happens.
func (r *repetition) idle() error {
	begin, cpu := time.Now(), r.processorTime()
	wire, err := r.wire(r.Window)
	if err != nil {
		return err
	}
	minutes := time.Since(begin).Minutes() * float64(r.Nodes)
	r.CPU = (r.processorTime() - cpu).Seconds() / minutes
	r.Idle = wire
	for i := range r.Nodes {
		r.Resident += float64(residentKiB(r.cluster.process(i))) / 1024 / float64(r.Nodes)
	}
	r.Load = loadAverage()
	return nil
}

func (r *repetition) processorTime() (sum time.Duration) {
	for i := range r.Nodes {
		sum += processorTime(r.cluster.process(i))
	}
	return sum
}

func (r *repetition) wire(d time.Duration) (laneWire, error) {
	begin := time.Now()
	before, err := loopback()
	if err != nil {
		return laneWire{}, err
	}
	idleFor(d)
	after, err := loopback()
	seconds := time.Since(begin).Seconds() * float64(r.Nodes)
	return laneWire{
		Packets: float64(after.Packets-before.Packets) / seconds,
		Bytes:   float64(after.Bytes-before.Bytes) / seconds,
	}, err
}

// disturb goes from what everyone survives to what someone does not.
func (r *repetition) disturb() error {
	if err := filter("add table inet bench", "add chain inet bench out { type filter hook output priority 0; }"); err != nil {
		r.NoFilter = err.Error()
	} else if err := r.lossy(); err != nil {
		return err
	}
	if err := r.paused(); err != nil {
		return err
	}
	at := time.Now()
	if err := syscall.Kill(r.cluster.process(killedNode), syscall.SIGKILL); err != nil {
		return err
	}
	r.Killed = r.detect(at)
	return nil
}

// filter gives commands to nft.
func filter(commands ...string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return nil
}

func (r *repetition) lossy() error {
	from := r.log.mark()
	if err := filter(fmt.Sprintf("add rule inet bench out numgen random mod 100 < %d drop", lanePercent)); err != nil {
		return err
	}
	wire, err := r.wire(r.Window)
	if err != nil {
		return err
	}
	r.Lossy = &wire
	if err := filter("flush chain inet bench out"); err != nil {
		return err
	}
	idleFor(laneRecovery)
	r.LossMistakes = map[string]int{}
	for _, level := range levels {
		r.LossMistakes[level.String()] = len(episodes(r.log.run(from), everyone(r.Nodes), level, time.Since(from)))
	}
	return nil
}

func everyone(nodes int) []life {
	return slices.Repeat([]life{{to: time.Hour}}, nodes)
}

func (r *repetition) paused() error {
	from := r.log.mark()
	pid := r.cluster.process(pausedNode)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	idleFor(r.Pause)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		return err
	}
	idleFor(laneRecovery)
	r.PauseBad = map[string]int{}
	for _, level := range levels {
		r.PauseBad[level.String()] = len(episodes(r.log.run(from), everyone(r.Nodes), level, time.Since(from)))
	}
	return nil
}

// detect waits until all who are left hold the killed node down.
func (r *repetition) detect(at time.Time) detection {
	d := detection{Node: killedNode, Kind: "process"}
	alive := everyone(r.Nodes)
	alive[killedNode].to = 0
	for {
		seen := r.log.run(at)
		d.Level = map[string]reached{}
		for _, level := range levels {
			d.Level[level.String()] = spreadOf(seen, alive, killedNode, 0, level)
		}
		if d.Level[down.String()].Last != nil || time.Since(at) > laneLimit {
			return d
		}
		idleFor(detectPoll)
	}
}

// sightings are observations of real time.
type sightings struct {
	mu   sync.Mutex
	seen []sighting
}

type sighting struct {
	at   time.Time
	what observation // without At
}

func (l *sightings) add(at time.Time, o observation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, sighting{at, o})
}

// mark is the present, to look back to.
func (l *sightings) mark() time.Time { return time.Now() }

// run is what was seen since.
func (l *sightings) run(since time.Time) (r run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.seen {
		if !s.at.Before(since) {
			s.what.At = s.at.Sub(since)
			r.Observations = append(r.Observations, s.what)
		}
	}
	slices.SortStableFunc(r.Observations, func(a, b observation) int { return int(a.At - b.At) })
	return r
}

// moduleRoot is the folder of Belfry's own go.mod, above bench.
func moduleRoot() (string, error) {
	text, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/belfry-ha/belfry").Output()
	if err != nil {
		return "", fmt.Errorf("go list of the main module: %w; run this in bench/", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// buildBelfry is the program that the real lane runs.
func buildBelfry(ctx context.Context, out string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", out, "./cmd/belfry")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/belfry: %w\n%s", err, text)
	}
	return nil
}
