// Command bench measures how Belfry's cluster sees its nodes, side by side
// with memberlist, which is left as it is.
//
//	go -C bench run . -scenario testdata/silent64.scenario [-systems belfry,memberlist,memberlist-tuned] [-seeds 1..30]
//	go -C bench run . [-systems A,B] [-lane virtual|real|both|none] [-only REGEXP] [-out FILE] [-readme FILE]
//
// The virtual lane plays a scenario file (cluster.md 13) with every system, on
// virtual time and with the same fate of packets. The real lane runs real
// processes in a network namespace.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := measureAll(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	scenario, systems, seeds string
	lane                     string
	only                     *regexp.Regexp
	out, readme              string
	jobs                     int
	nodes, reps              int
	window                   time.Duration
}

const (
	laneVirtual = "virtual"
	laneReal    = "real"
	laneBoth    = "both"
	laneNone    = "none"
)

func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&s.scenario, "scenario", "", "play only this `FILE`, and print its table")
	flags.StringVar(&s.systems, "systems", "", "who plays, `A,B`; "+plain+" if there is nothing else that says so")
	flags.StringVar(&s.seeds, "seeds", "", "`LOW..HIGH` instead of those of the scenario; fewer only to try something out")
	flags.StringVar(&s.lane, "lane", laneBoth, "virtual, real, both, or none: only write again what was measured before")
	only := flags.String("only", "", "play only the scenarios whose name fits `REGEXP`")
	flags.StringVar(&s.out, "out", "", "write the figures as JSON to `FILE`; what it holds and was not measured now it keeps")
	flags.StringVar(&s.readme, "readme", "", "rewrite the tables between the markers of `FILE`, and the plots beside it; needs -out")
	flags.IntVar(&s.jobs, "jobs", runtime.NumCPU(), "runs of the virtual lane at a time")
	flags.IntVar(&s.nodes, "real-nodes", 8, "processes of the real lane")
	flags.IntVar(&s.reps, "real-reps", 5, "repetitions of each system in the real lane")
	flags.DurationVar(&s.window, "real-window", 30*time.Second, "length of each measurement in the real lane")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		return s, err
	}
	if _, err := chosen(cmp.Or(s.systems, plain)); err != nil {
		return s, err
	}
	return s, s.check(flags.Args())
}

func (s *settings) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unknown argument %q; there are only flags, see -h", rest[0])
	case s.readme != "" && s.out == "":
		return errors.New("-readme shows what -out holds; name both")
	case s.scenario != "" && s.out+s.readme != "":
		return errors.New("-scenario prints one table; leave out -out and -readme, or choose with -only")
	case s.nodes < minRealNodes || s.nodes > maxBelfryNodes:
		return fmt.Errorf("-real-nodes %d; want %d to %d", s.nodes, minRealNodes, maxBelfryNodes)
	case s.reps < 1 || s.jobs < 1 || s.window < time.Second:
		return fmt.Errorf("-real-reps %d -jobs %d -real-window %s; want at least 1, 1 and 1s", s.reps, s.jobs, s.window)
	}
	switch s.lane {
	case laneVirtual, laneReal, laneBoth, laneNone:
		return nil
	}
	return fmt.Errorf("-lane %q; there are %s, %s, %s and %s", s.lane, laneVirtual, laneReal, laneBoth, laneNone)
}

// reseed replaces the seeds of a task by those of the flag.
func (s *settings) reseed(t *task) error {
	if s.seeds == "" {
		return nil
	}
	low, high, ok := strings.Cut(s.seeds, "..")
	if !ok {
		high = low
	}
	from, err := strconv.ParseUint(low, 10, 64)
	to, errHigh := strconv.ParseUint(high, 10, 64)
	if err != nil || errHigh != nil || from > to || to-from > 1e6 {
		return fmt.Errorf("-seeds %s; want LOW..HIGH, such as 1..30", s.seeds)
	}
	t.scenario.SeedLow, t.scenario.SeedHigh = from, to
	return nil
}

func measureAll(ctx context.Context, args []string, out io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	if s.scenario != "" {
		return s.single(ctx, out)
	}
	r := report{}
	if s.out != "" {
		if r, err = readReport(s.out); err != nil {
			return err
		}
	}
	if s.lane == laneVirtual || s.lane == laneBoth {
		if err := s.virtual(ctx, &r, out); err != nil {
			return err
		}
	}
	if s.lane == laneReal || s.lane == laneBoth {
		if err := s.real(ctx, &r); err != nil {
			return err
		}
		fmt.Fprintln(out, r.realTable())
	}
	fmt.Fprintln(out, r.goals())
	return s.keep(&r)
}

// single plays one scenario.
func (s *settings) single(ctx context.Context, out io.Writer) error {
	chosen, err := chosen(cmp.Or(s.systems, plain))
	if err != nil {
		return err
	}
	t, err := readTask(s.scenario, chosen)
	if err != nil {
		return err
	}
	if err := s.reseed(&t); err != nil {
		return err
	}
	lane := &virtualLane{jobs: s.jobs, log: os.Stderr}
	cells, err := lane.play(ctx, t)
	if err != nil {
		return err
	}
	r := report{}
	r.merge(surroundings(ctx), cells, nil)
	text, err := r.text()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n%s", text, r.table(r.all()))
	return nil
}

func (r *report) all() []*cell {
	out := make([]*cell, len(r.Virtual))
	for i := range r.Virtual {
		out[i] = &r.Virtual[i]
	}
	return out
}

// virtual plays what is wanted, and keeps the figures after each scenario:
// all of it takes long.
func (s *settings) virtual(ctx context.Context, r *report, out io.Writer) error {
	lane := &virtualLane{jobs: s.jobs, log: os.Stderr}
	for _, g := range groups() {
		tasks, err := g.tasks(testdata, s.only.MatchString)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			if err := s.reseed(&t); err != nil {
				return err
			}
			if s.systems != "" {
				t.systems = slices.DeleteFunc(t.systems, func(sys system) bool { return !slices.Contains(strings.Split(s.systems, ","), sys.Name) })
			}
			if len(t.systems) == 0 {
				continue
			}
			begin := time.Now()
			cells, err := lane.play(ctx, t)
			if err != nil {
				return err
			}
			one := report{}
			one.merge(environment{}, cells, nil)
			fmt.Fprintf(out, "%s, %s\n%s\n", t.name, time.Since(begin).Round(time.Second), one.table(one.all()))
			r.merge(surroundings(ctx), cells, nil)
			if err := s.keep(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// testdata is where the scenarios lie; the program runs in bench/.
const testdata = "testdata"

// How the real lane runs.
const (
	minRealNodes = 4
	realSettle   = 60 * time.Second // a new link is watched closely at first
	realPause    = 5 * time.Second
)

func (s *settings) real(ctx context.Context, r *report) error {
	chosen, err := chosen(cmp.Or(s.systems, plain))
	if err != nil {
		return err
	}
	p := realPlan{Systems: chosen, Nodes: s.nodes, Repetitions: s.reps, Settle: realSettle, Window: s.window, Pause: realPause}
	cells, err := p.run(ctx, os.Stderr)
	if err != nil {
		return err
	}
	r.merge(surroundings(ctx), nil, cells)
	return nil
}

// keep writes the files that were asked for.
func (s *settings) keep(r *report) error {
	if s.out == "" {
		return nil
	}
	text, err := r.text()
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.out, text, 0o644); err != nil {
		return err
	}
	if s.readme == "" {
		return nil
	}
	old, err := os.ReadFile(s.readme)
	if err != nil {
		return err
	}
	after, err := r.rewrite(string(old))
	if err != nil {
		return fmt.Errorf("%s: %w", s.readme, err)
	}
	if err := os.WriteFile(s.readme, []byte(after), 0o644); err != nil {
		return err
	}
	return r.draw(filepath.Join(filepath.Dir(s.readme), plotFolder))
}

// draw writes the plots.
func (r *report) draw(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, g := range groups() {
		if g.plot == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(folder, g.plot.file), []byte(g.plot.draw(r).svg()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
