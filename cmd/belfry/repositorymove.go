package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// movedView is repository move, replace, mirror and spare in JSON.
type movedView struct {
	DryRun      bool            `json:"dry_run" doc:"nothing was changed"`
	Kind        string          `json:"kind" doc:"disk, file or etcd"`
	Epoch       uint64          `json:"epoch" doc:"of the new place"`
	Generation  uint64          `json:"generation" doc:"in force from there; of a dry run that of now"`
	Place       string          `json:"place" doc:"in etcd; empty: on disks"`
	Disks       []movedDiskView `json:"disks" doc:"of the new epoch; of repository spare the spares"`
	Unconfirmed []string        `json:"unconfirmed" doc:"members that are up and have not said that they read it there"`
}

// movedDiskView is one of them.
type movedDiskView struct {
	Path  string `json:"path" doc:"on the node that was asked"`
	Disk  string `json:"disk" doc:"UUID"`
	Stays bool   `json:"stays" doc:"it was a disk of the repository before"`
}

// moveTimeout is how long a move may take: two generations, each with its waits.
const moveTimeout = 40 * time.Second

const moveHelp = `
All goes on meanwhile. One generation says where the configuration goes, and from
then on nothing but the move is done; the next one is at the new place. Any member
that sees it completes the move if the one that began it dies. Who was down finds
the new place where it has been told of it at the old one: leave that attached until
all members have been up. Nothing is erased; belfry repository wipe does that.

The paths are those of the node that is asked. Every member has to reach the new
disks. What a disk holds is kept, and the disk refused, but with --force. --dry-run
looks at everything and writes nothing.`

// newRepositoryMoving is one of the three commands.
func newRepositoryMoving(a *app, mode, use, short, long, example string, args cobra.PositionalArgs, from bool) *cobra.Command {
	req := &belfryv1.MoveRepositoryRequest{Mode: mode}
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long + "\n" + moveHelp, Example: example, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if from {
				req.From, args = args[0], args[1:]
			}
			for _, to := range args {
				place, err := a.placeOf(to)
				if err != nil {
					return err
				}
				req.To = append(req.To, place)
			}
			if place, err := a.placeOf(req.GetFrom()); err == nil && strings.Contains(req.GetFrom(), "/") {
				req.From = place
			}
			return a.moveRepository(cmd.Context(), req)
		},
	}
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "look at everything, and change nothing")
	cmd.Flags().BoolVar(&req.Force, "force", false, "destroy what the new disks hold")
	return cmd
}

func newRepositoryMove(a *app) *cobra.Command {
	return newRepositoryMoving(a, "move", "move DEVICE...|etcd://HOST:PORT/PREFIX", "Bring the configuration to other disks, to etcd, or back",
		`Bring the configuration of a running cluster to other disks, one or three of them,
or to etcd, or from there to disks.`,
		"  belfry repository move /dev/disk/by-id/wwn-0x5000c500a1b2c3d4 --dry-run\n  belfry repository move etcd://10.0.0.5:2379,10.0.0.6:2379/belfry", atLeast(1, "DEVICE"), false)
}

func newRepositoryReplace(a *app) *cobra.Command {
	return newRepositoryMoving(a, "replace", "replace OLD NEW", "Put another disk in the place of one",
		`Put another disk in the place of one of the repository's. OLD is its path or UUID:
it may be gone. Disks that stay need room for a second copy beside the present one.`,
		"  belfry repository replace /dev/sdb /dev/sdc", exactly(2, "OLD and NEW"), true)
}

func newRepositoryMirror(a *app) *cobra.Command {
	return newRepositoryMoving(a, "mirror", "mirror DEVICE...", "Keep the configuration on more disks",
		`Keep the configuration on more disks, up to three. Of three one may be lost without
anybody noticing; two are both needed. Disks that are there need room for a second
copy beside the present one; move goes to new ones without that.`,
		"  belfry repository mirror /dev/sdc /dev/sdd", atLeast(1, "DEVICE"), false)
}

func newRepositorySpare(a *app) *cobra.Command {
	req := &belfryv1.MoveRepositoryRequest{Mode: "spare"}
	var remove string
	cmd := &cobra.Command{
		Use: "spare [DEVICE...]", Short: "List the spare disks, add some, or take one away",
		Long: `Add disks that take the place of a disk which fails, up to six, or list them.

A disk that does not answer for 15 s while a majority of the others does is replaced
by the first spare that all members see; the node that makes the changes has that
done. The event repository.state tells of it: degraded, then ready.

If too few disks are left, more than half of all members agree on a spare without
them, and keep what more than half of them had; config.lost tells of what is lost.
While spares are listed, members join and leave one at a time.

A spare holds a boot record that says so, and nothing else: every member finds it by
that, whatever its path is there. What a disk holds is kept, and the disk refused,
but with --force. The paths are those of the node that is asked.`,
		Example: "  belfry repository spare /dev/disk/by-id/wwn-0x5000c500a1b2c3d4\n  belfry repository spare --remove /dev/sdd",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, to := range args {
				place, err := a.placeOf(to)
				if err != nil {
					return err
				}
				req.To = append(req.To, place)
			}
			req.From = remove
			if strings.Contains(remove, "/") {
				place, err := a.placeOf(remove)
				if err != nil {
					return err
				}
				req.From = place
			}
			return a.moveRepository(cmd.Context(), req)
		},
	}
	cmd.Flags().StringVar(&remove, "remove", "", "path or UUID of a disk that is to be a spare no more")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "look at everything, and change nothing")
	cmd.Flags().BoolVar(&req.Force, "force", false, "destroy what the disks hold")
	return cmd
}

// atLeast wants so many arguments.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return usagef("%s is missing", what)
		}
		return nil
	}
}

// placeOf is a path as the agent of this machine finds it, or a place in etcd.
func (a *app) placeOf(text string) (string, error) {
	if strings.Contains(text, "://") {
		return text, nil
	}
	return filepath.Abs(text)
}

func (a *app) moveRepository(ctx context.Context, req *belfryv1.MoveRepositoryRequest) error {
	if a.timeout == 0 {
		a.timeout = moveTimeout
	}
	return a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		done, err := c.MoveRepository(ctx, req)
		if err != nil {
			return err
		}
		v := movedView{
			DryRun: req.GetDryRun(), Kind: done.GetKind(), Epoch: done.GetEpoch(), Generation: done.GetGeneration(), Place: done.GetPlace(),
			Disks: []movedDiskView{}, Unconfirmed: a.unconfirmed(done.GetUnconfirmed()),
		}
		for _, d := range done.GetDisks() {
			v.Disks = append(v.Disks, movedDiskView{d.GetPath(), d.GetDisk(), d.GetStays()})
		}
		text := movedText
		if req.GetMode() == "spare" {
			text = sparesText
		}
		return a.show(document{value: v, table: func(o *output, _ bool) { text(o, v) }})
	})
}

func sparesText(o *output, v movedView) {
	fmt.Fprintf(o, "%s\n", plural(len(v.Disks), "spare"))
	for _, d := range v.Disks {
		path := d.Path
		if path == "" {
			path = "not seen by the node that was asked"
		}
		fmt.Fprintf(o, "  %s  %s\n", d.Disk, printable(path))
	}
}

func movedText(o *output, v movedView) {
	is := "is"
	if v.DryRun {
		is = "would be"
	}
	if v.Place != "" {
		fmt.Fprintf(o, "the repository %s at %s, epoch %d\n", is, v.Place, v.Epoch)
	} else {
		fmt.Fprintf(o, "the repository %s on %s, epoch %d\n", is, plural(len(v.Disks), v.Kind), v.Epoch)
	}
	for _, d := range v.Disks {
		word := "new"
		if d.Stays {
			word = "stays"
		}
		fmt.Fprintf(o, "  %-5s %s\n", word, printable(d.Path))
	}
	if !v.DryRun {
		fmt.Fprintf(o, "generation %d is in force from there\n", v.Generation)
	}
}
