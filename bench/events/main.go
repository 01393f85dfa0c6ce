// Command events measures how Belfry delivers events, side by side with what
// people use instead: NATS core between machines, Go channels inside a process.
//
//	go -C bench run ./events [-out FILE] [-readme FILE] [-only REGEXP] [-scale 1] [-reps 5]
//
// Systems take turns within one run (A B A B …), so that what disturbs the
// machine disturbs both; a row is judged by the ratio of its pairs. Everything
// stays on loopback, in child processes and temporary directories that end
// with the run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry/bench/side"
)

func main() {
	if role := os.Getenv(side.RoleVariable); role != "" {
		if err := play(role, os.Args[1:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "events:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	out, readme string
	only        *regexp.Regexp
	scale       float64
	reps        int
}

func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("events", flag.ContinueOnError)
	flags.StringVar(&s.out, "out", "", "write the figures as JSON to `FILE`")
	flags.StringVar(&s.readme, "readme", "", "rewrite the tables between the markers of `FILE`")
	only := flags.String("only", "", "measure only the parts whose name fits `REGEXP`: latency, throughput, local, registrations, fanout, duplicates, durable")
	flags.Float64Var(&s.scale, "scale", 1, "length of each repetition; below 1 only to try something out")
	flags.IntVar(&s.reps, "reps", 5, "repetitions of each system")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unknown argument %q; there are only flags, see -h", flags.Arg(0))
	}
	if s.reps < 1 || s.reps > 1000 || !(s.scale > 0 && s.scale <= 100) {
		return s, fmt.Errorf("-reps %d -scale %v; reps are 1 to 1000, scale is above 0 and at most 100", s.reps, s.scale)
	}
	if s.readme != "" && *only != "" {
		return s, fmt.Errorf("-readme rewrites all tables; leave out -only %q", *only)
	}
	var err error
	s.only, err = regexp.Compile(*only)
	return s, err
}

var parts = []side.Part[*bench]{
	{Name: "latency", Title: "Remote event, latency", Shared: true, Measure: measureLatency},
	{Name: "throughput", Title: "Remote events, throughput", Shared: true, Measure: measureThroughput},
	{Name: "local", Title: "Local events, latency", Shared: true, Measure: measureLocal},
	{Name: "registrations", Title: "Registrations", Measure: measureRegistrations},
	{Name: "fanout", Title: "Local fan-out with delivery", Measure: measureFanout},
	{Name: "duplicates", Title: "Duplicates against a stalled consumer", Shared: true, Measure: measureDuplicates},
	{Name: "durable", Title: "Durable events", Shared: true, Measure: measureDurable},
}

// bench is what the parts share.
type bench struct {
	settings
	agents *side.Agents // nil without a remote part
	nats   *natsServer  // nil without a remote part
	sealed *natsServer  // the same with TLS
	log    io.Writer
}

// scaled is n, longer or shorter as -scale says.
func (b *bench) scaled(n int) int { return max(1, int(float64(n)*b.scale)) }

func (b *bench) seconds(d time.Duration) time.Duration { return time.Duration(float64(d) * b.scale) }

// turns runs each system in turn, -reps times.
func (b *bench) turns(ctx context.Context, what string, systems ...func(context.Context) error) error {
	return side.Turns(ctx, b.log, what, b.reps, systems...)
}

func run(ctx context.Context, args []string, out io.Writer) (failed error) {
	s, err := parse(args)
	if err != nil {
		return err
	}
	b := &bench{settings: s, log: os.Stderr}
	chosen, shared := side.Chosen(parts, s.only)
	if shared {
		stop, err := b.start(ctx)
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, stop()) }()
	}
	r := side.Report{Mark: "figures", Environment: side.Surroundings(ctx), Repetitions: s.reps, Scale: s.scale}
	if err := side.Measure(ctx, &r, chosen, b, out); err != nil {
		return err
	}
	return r.Keep(s.out, s.readme)
}

// start brings up what the parts share.
func (b *bench) start(ctx context.Context) (stop func() error, err error) {
	if b.agents, err = side.StartAgents(ctx, 2); err != nil {
		return nil, err
	}
	if b.nats, err = startNATS(); err != nil {
		return nil, errors.Join(err, b.agents.Stop())
	}
	if b.sealed, err = startNATS(withTLS); err != nil {
		return nil, errors.Join(err, b.nats.stop(), b.agents.Stop())
	}
	return func() error { return errors.Join(b.sealed.stop(), b.nats.stop(), b.agents.Stop()) }, nil
}

// play runs a child's part. It ends when its standard input does, so that no
// child outlives its parent.
func play(role string, args []string, in io.Reader, out io.Writer) error {
	switch role {
	case "nats-server":
		return playServer(args, in, out)
	case "nats-stalled":
		return playStalled(args, in, out)
	case "relay":
		return playRelay(in, out)
	}
	return fmt.Errorf("unknown part; %s is for this program's own use, unset it", side.RoleVariable)
}
