// Command repository measures how a change of the configuration is written to
// shared storage and comes into force at the nodes: next to a plain write and
// flush on the same disk, and next to a put and its watchers in etcd.
//
//	go -C bench run ./repository [-out FILE] [-readme FILE] [-only REGEXP] [-scale 1] [-reps 5]
//
// Systems take turns within one run (A B A B …), so that what disturbs the
// machine disturbs all. Everything stays on loopback, in child processes, loop
// devices and temporary directories that end with the run.
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
		fmt.Fprintln(os.Stderr, "repository:", err)
		os.Exit(1)
	}
}

// play runs a child's part. It ends when its standard input does.
func play(role string, args []string, in io.Reader, out io.Writer) error {
	switch role {
	case roleEtcd:
		return playEtcd(args, in, out)
	case roleWriter:
		return playWriter(args, in, out)
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
	flags := flag.NewFlagSet("repository", flag.ContinueOnError)
	flags.StringVar(&s.out, "out", "", "write the figures as JSON to `FILE`")
	flags.StringVar(&s.readme, "readme", "", "rewrite the tables between the markers of `FILE`")
	only := flags.String("only", "", "measure only the parts whose name fits `REGEXP`: commit, killed, another, all, unlock, find")
	flags.Float64Var(&s.scale, "scale", 1, "share of the commits and changes; below 1 only to try something out")
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

// A part measures some rows.
type part struct {
	name    string
	title   string
	measure func(context.Context, *bench) ([]side.Row, error)
}

var parts = []part{
	{"commit", "Commit on a disk", measureCommits},
	{"killed", "Writer killed", measureKilled},
	{"another", "Change, at another node", measureAnother},
	{"all", "Change, at all of eight nodes", measureAll},
	{"unlock", "License, at all of eight nodes", measureUnlock},
	{"find", "Repository found", measureFind},
}

// bench is what the parts share.
type bench struct {
	settings
	log io.Writer
}

// scaled is n, or fewer as -scale says.
func (b *bench) scaled(n int) int { return max(2, int(float64(n)*b.scale)) }

// turns runs each system in turn, -reps times.
func (b *bench) turns(ctx context.Context, what string, systems ...func(context.Context) error) error {
	return side.Turns(ctx, b.log, what, b.reps, systems...)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	b := &bench{settings: s, log: os.Stderr}
	r := side.Report{Mark: "repository", Environment: side.Surroundings(ctx), Repetitions: s.reps, Scale: s.scale}
	begin := time.Now()
	for _, p := range parts {
		if !s.only.MatchString(p.name) {
			continue
		}
		load := side.LoadAverage()
		rows, err := p.measure(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		done := side.Table{Name: p.name, Title: p.title, LoadBefore: load, LoadAfter: side.LoadAverage(), Rows: rows}
		fmt.Fprintln(out, done.Markdown())
		r.Tables = append(r.Tables, done)
	}
	r.Took = time.Since(begin).Round(time.Second).String()
	fmt.Fprintln(out, r.Header())
	return r.Keep(s.out, s.readme)
}
