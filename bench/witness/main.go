// Command witness measures how clients are told that what they depend on has
// failed: next to as many watchers of etcd on as many connections, and next to
// clients that find out by themselves.
//
//	go -C bench run ./witness [-out FILE] [-readme FILE] [-only REGEXP] [-scale 1] [-reps 5]
//
// Systems take turns within one run (A B A B …), so that what disturbs the
// machine disturbs all. Everything stays on loopback, in child processes, network
// namespaces and temporary directories that end with the run.
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
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(1)
	}
}

// play runs a child's part. It ends when its standard input does.
func play(role string, args []string, in io.Reader, out io.Writer) error {
	switch role {
	case roleEtcd:
		return playEtcd(args, in, out)
	case roleSilent:
		return playSilent(args, in, out)
	}
	return fmt.Errorf("unknown part; %s is for this program's own use, unset it", side.RoleVariable)
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
	flags := flag.NewFlagSet("witness", flag.ContinueOnError)
	flags.StringVar(&s.out, "out", "", "write the figures as JSON to `FILE`")
	flags.StringVar(&s.readme, "readme", "", "rewrite the tables between the markers of `FILE`")
	only := flags.String("only", "", "measure only the parts whose name fits `REGEXP`: alone, crowd, dead, silent, memory")
	flags.Float64Var(&s.scale, "scale", 1, "share of the clients and rounds; below 1 only to try something out")
	flags.IntVar(&s.reps, "reps", 5, "repetitions of each system")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unknown argument %q; there are only flags, see -h", flags.Arg(0))
	}
	if s.reps < 1 || s.reps > 1000 || !(s.scale > 0 && s.scale <= 1) {
		return s, fmt.Errorf("-reps %d -scale %v; reps are 1 to 1000, scale is above 0 and at most 1", s.reps, s.scale)
	}
	if s.readme != "" && *only != "" {
		return s, fmt.Errorf("-readme rewrites all tables; leave out -only %q", *only)
	}
	var err error
	s.only, err = regexp.Compile(*only)
	return s, err
}

var parts = []side.Part[*bench]{
	{Name: "alone", Title: "One client", Shared: true, Measure: measureAlone}, // before the crowd, whose registrations stay for a while
	{Name: "crowd", Title: "Ten thousand clients", Shared: true, Measure: measureCrowd},
	{Name: "dead", Title: "Agent killed", Shared: true, Measure: measureDead},
	{Name: "silent", Title: "Host silent", Measure: measureSilent},
	{Name: "memory", Title: "Memory", Measure: measureMemory},
}

// bench is what the parts share.
type bench struct {
	settings
	cluster       *cluster
	plain, sealed *etcd
	log           io.Writer
}

// scaled is n, or fewer as -scale says.
func (b *bench) scaled(n int) int { return max(2, int(float64(n)*b.scale)) }

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
	r := side.Report{Mark: "witness", Environment: side.Surroundings(ctx), Repetitions: s.reps, Scale: s.scale}
	if err := side.Measure(ctx, &r, chosen, b, out); err != nil {
		return err
	}
	return r.Keep(s.out, s.readme)
}

// start brings up what the parts share.
func (b *bench) start(ctx context.Context) (stop func() error, err error) {
	if b.cluster, err = startCluster(ctx); err != nil {
		return nil, err
	}
	if b.plain, err = startEtcd(); err != nil {
		return nil, errors.Join(err, b.cluster.stop())
	}
	if b.sealed, err = startEtcd(withTLS); err != nil {
		return nil, errors.Join(err, b.plain.stop(), b.cluster.stop())
	}
	return func() error { return errors.Join(b.sealed.stop(), b.plain.stop(), b.cluster.stop()) }, nil
}
