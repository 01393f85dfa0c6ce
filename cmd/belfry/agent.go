package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/agent"
	"github.com/belfry-ha/belfry/internal/config"
)

func newAgentCommand(a *app) *cobra.Command {
	var (
		file  string
		check bool
	)
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run one agent in the foreground, as systemd starts it",
		Long: `Run one agent in the foreground, as systemd starts it.

Settings come from the file, from BELFRY_… variables and from flags; a flag
wins over a variable, a variable over the file. SIGHUP reads them again: what
is wrong is refused as a whole and the old settings stay. SIGTERM and SIGINT
stop the agent, which says goodbye to the others first.`,
		Example: `  belfry agent --config /etc/belfry/belfry.yaml
  belfry agent --config /etc/belfry/belfry.yaml --check`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			load := func() (config.Settings, error) { return config.Load(file, os.Environ()) }
			settings, err := load()
			if err != nil {
				return err
			}
			if check {
				fmt.Fprintf(a.out, "%s: settings are valid\n", nameOfFile(file))
				return nil
			}
			return runAgent(cmd.Context(), a.errOut, settings, load)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "file with the settings (default: none, the built-in defaults)")
	cmd.Flags().BoolVar(&check, "check", false, "check the settings and exit")
	return cmd
}

func nameOfFile(file string) string {
	if file == "" {
		return "no file"
	}
	return file
}

// runAgent runs until ctx ends, which SIGTERM and SIGINT make it do, or until a
// part of the agent fails. An agent that has to start again does so here, under
// the same process id and with the settings that it had.
func runAgent(ctx context.Context, stderr io.Writer, settings config.Settings, load func() (config.Settings, error)) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	level := new(slog.LevelVar)
	log, err := newLogger(stderr, settings.Log, level)
	if err != nil {
		return err
	}
	if err := keepMemory(); err != nil {
		return err
	}
	relaxTimers()
	paceCollector(os.Getenv)
	token, err := agent.WebToken(settings.State)
	if err != nil {
		return err
	}
	r := &reloader{log: log, level: level, load: load, held: settings}
	alive := watchdog()
	for {
		opts := agent.Options{Config: r.held, Logger: log, Version: versionOf(debug.ReadBuildInfo()).String(), WebToken: token, Alive: alive}
		again, err := runOnce(ctx, opts, r, hup)
		if !again || err != nil || ctx.Err() != nil {
			return err
		}
		log.Warn("agent starts again")
		notify(log, reloadingState())
	}
}

// runOnce runs one agent to its end, and tells whether another one is to follow;
// r serves it meanwhile.
func runOnce(ctx context.Context, opts agent.Options, r *reloader, hup <-chan os.Signal) (again bool, err error) {
	g, err := agent.New(opts)
	if err != nil {
		return false, err
	}
	r.apply, r.refused = g.Reload, g.ConfigRefused
	serving, cancel := context.WithCancel(ctx)
	var served sync.WaitGroup
	defer served.Wait()
	defer cancel()
	err = g.Run(ctx, func() {
		notify(opts.Logger, daemon.SdNotifyReady)
		served.Go(func() { r.run(serving, hup) })
	}, func() { notify(opts.Logger, daemon.SdNotifyStopping) })
	return g.Again(), err
}

// notify tells systemd; elsewhere it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd not notified", "err", err)
	}
}

// watchdog is what the agent's heartbeat loop calls as it turns: systemd is
// told at most twice per watchdog period, by the loop itself, so that a loop
// that hangs is restarted.
func watchdog() func() {
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil || period == 0 {
		return nil
	}
	var last time.Time
	return func() {
		if now := time.Now(); now.Sub(last) >= period/3 {
			last = now
			_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) // what could be done about it, systemd does
		}
	}
}

// A reloader takes up changed settings.
type reloader struct {
	log     *slog.Logger
	level   *slog.LevelVar
	load    func() (config.Settings, error)
	apply   func(config.Settings) error
	refused func(error)
	held    config.Settings
}

func (r *reloader) run(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			r.reload()
		}
	}
}

// reload validates first; on error the old settings stay, all of them.
func (r *reloader) reload() {
	notify(r.log, reloadingState())
	defer notify(r.log, daemon.SdNotifyReady)
	settings, err := r.load()
	if err == nil {
		err = r.apply(settings)
	}
	if err != nil {
		r.log.Error("settings refused, the old ones stay", "err", err)
		r.refused(err)
		return
	}
	changes := config.Diff(r.held, settings)
	for _, c := range changes {
		r.log.Info("setting changed", "key", c.Key, "from", c.Old, "to", c.New, "effect", c.String())
	}
	if len(changes) == 0 {
		r.log.Info("settings read again, nothing changed")
	}
	r.level.Set(logLevel(settings.Log.Level))
	r.held = settings
}

// reloadingState is what sd_notify(3) wants with a reload: the time it began,
// on the monotonic clock.
func reloadingState() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // can not fail for this clock
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000)
}

// errLogFormat can not come from settings that were validated.
var errLogFormat = errors.New("unknown log format")

func logLevel(name string) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(name)) // validated
	return level
}

// keepMemory keeps the keys in this process: no core file is written of it, and
// no process of the same user can read its memory (prctl(2), PR_SET_DUMPABLE).
func keepMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep keys out of core files: %w; a kernel or filter that forbids prctl is in the way", err)
	}
	return nil
}
