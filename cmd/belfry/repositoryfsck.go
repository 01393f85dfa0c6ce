package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
)

// settleFsck is after which time a problem is looked at again: what a host is
// writing at the moment is none.
const settleFsck = 200 * time.Millisecond

// fsckView is repository fsck in JSON.
type fsckView struct {
	Device     string        `json:"device" doc:"path of the block device or file"`
	Repository string        `json:"repository" doc:"UUID"`
	Generation uint64        `json:"generation" doc:"of the newest configuration that is whole; 0: none"`
	Checked    int           `json:"checked" doc:"records that were found"`
	Problems   []problemView `json:"problems" doc:"what is, or was before the repair, not as it must be"`
	Left       int           `json:"left" doc:"problems that are not repaired"`
}

// problemView is one thing that is not as it must be.
type problemView struct {
	Place    string `json:"place" doc:"header A or B, record, document of a record, document"`
	Text     string `json:"text" doc:"what is wrong with it"`
	Repaired bool   `json:"repaired" doc:"it is whole again"`
}

// wipeView is repository wipe in JSON.
type wipeView struct {
	Device     string `json:"device" doc:"path of the block device or file"`
	Repository string `json:"repository" doc:"UUID of what was there"`
	Cluster    string `json:"cluster" doc:"UUID of its cluster"`
	Generation uint64 `json:"generation" doc:"of the newest configuration that was there; 0: none"`
}

func newRepositoryFsck(a *app) *cobra.Command {
	var repair bool
	var copies, folders []string
	fsck := &cobra.Command{
		Use:   "fsck DEVICE",
		Short: "Check all that lies on a disk of a repository, and repair it",
		Long: `Check all that lies on a disk of a repository: both copies of the boot record, each
record with its checksum, place and signature, each configuration with its hash, and
what the newest one says. Nothing is written without --repair.

--repair writes only what is certain. A copy of the boot record comes from the other
one; if both are gone, from a mirror, where the records say which disk this is. A configuration comes from where the same one lies, by its SHA-256: from another
host on this disk, from a mirror that is found as belfry repository scan does, or from
a folder of --copy, such as config below the state directory of a node. A damaged
record is signed by its host, which writes it anew at its next commit.

Agents of this machine must be stopped for a repair, which is refused otherwise; stop
those of other machines as well, this one can not see them.

The exit status is 1 if something is left that is not as it must be.`,
		Example: `  belfry repository fsck /dev/sdb
  belfry repository fsck /dev/sdb --repair --copy /var/lib/belfry/config`,
		Args: exactly(1, "the device"),
		RunE: func(_ *cobra.Command, args []string) error {
			if !repair && (len(copies) > 0 || len(folders) > 0) {
				return usagef("--copy and --search are for a repair; add --repair, or leave them out")
			}
			return a.fsck(args[0], repair, copies, folders)
		},
	}
	fsck.Flags().BoolVar(&repair, "repair", false, "write what is certain")
	fsck.Flags().StringArrayVar(&copies, "copy", nil, "folder with copies of configurations; may be given several times")
	searchFlag(fsck, &folders)
	return fsck
}

func (a *app) fsck(path string, repair bool, copies, folders []string) error {
	s, err := examineTwice(path)
	lost := err // both copies of the boot record
	if repair && errors.Is(err, belfry.ErrNotFound) && a.recovered(path, folders) {
		s, err = disk.Examine(path)
	}
	if err != nil {
		return err
	}
	var repaired []string
	if repair && len(s.Problems) > 0 {
		if repaired, err = a.repair(path, s, copies, folders); err != nil {
			return err
		}
	}
	v := fsckView{Device: path, Repository: s.Header.Repository.String(), Checked: len(s.Records), Problems: viewsOfProblems(s.Problems, repaired)}
	if lost != nil {
		v.Problems = append([]problemView{{"headers A and B", "boot record is gone or damaged; taken from a mirror", true}}, v.Problems...)
	}
	if len(repaired) > 0 {
		if s, err = disk.Examine(path); err != nil { // what is so now, not what should be
			return err
		}
		if added := unknownTo(v.Problems, s.Problems); len(added) > 0 {
			v.Problems = append(v.Problems, viewsOfProblems(added, nil)...)
		}
	}
	v.Left = len(s.Problems)
	if s.Newest >= 0 {
		v.Generation = s.Records[s.Newest].Record.Generation
	}
	err = a.show(document{value: v, rows: rowsOf(v.Problems), table: func(o *output, _ bool) { fsckText(o, v) }})
	if err == nil {
		err = a.out.flush() // what was found comes before the status
	}
	if err == nil && v.Left > 0 {
		return status{code: exitFailed, name: "FAILED"}
	}
	return err
}

// examineTwice leaves out what is a problem for a moment only.
func examineTwice(path string) (repository.Survey, error) {
	s, err := disk.Examine(path)
	if err != nil || len(s.Problems) == 0 {
		return s, err
	}
	<-time.After(settleFsck)
	again, err := disk.Examine(path)
	if err != nil {
		return s, err
	}
	again.Problems = again.Lasting(s)
	return again, nil
}

// unknownTo are the problems that are not among the views.
func unknownTo(views []problemView, problems []repository.Problem) []repository.Problem {
	return slices.DeleteFunc(slices.Clone(problems), func(p repository.Problem) bool {
		return slices.ContainsFunc(views, func(v problemView) bool { return v.Place == p.Place })
	})
}

func viewsOfProblems(problems []repository.Problem, repaired []string) []problemView {
	views := []problemView{}
	for _, p := range problems {
		views = append(views, problemView{p.Place, withoutSentinel(p.Err), slices.Contains(repaired, p.Place)})
	}
	return views
}

func fsckText(o *output, v fsckView) {
	t := newTable("PLACE PROBLEM REPAIRED")
	for _, p := range v.Problems {
		repaired := cell{"no", red}
		if p.Repaired {
			repaired = cell{"yes", green}
		}
		t.addCells(cell{text: p.Place}, cell{text: p.Text}, repaired)
	}
	if len(v.Problems) > 0 {
		t.write(o)
	}
	what := "all is as it must be"
	if v.Left > 0 {
		what = plural(v.Left, "problem") + " left"
	}
	fmt.Fprintf(o, "%s: repository %s, generation %d, %s: %s\n", printable(v.Device), v.Repository, v.Generation, plural(v.Checked, "record"), what)
}

// recovered tells whether a device without any boot record turned out to be a
// mirror of one that is there, and has its boot records again.
func (a *app) recovered(path string, folders []string) bool {
	found, err := a.scan(folders)
	if err != nil {
		return false // what is wrong with the device itself is told
	}
	for _, d := range found.Disks {
		if d.State != "ok" && d.State != "incomplete" {
			continue
		}
		mirror, err := disk.Examine(d.Device)
		if err == nil && len(mirror.Header.Disks) > 1 && disk.Recover(path, mirror.Header) == nil {
			return true
		}
	}
	return false
}

// repair takes documents from the copies, then from mirrors.
func (a *app) repair(path string, s repository.Survey, copies, folders []string) ([]string, error) {
	held := map[repository.Digest]string{}
	for _, folder := range copies {
		if err := indexCopies(folder, held); err != nil {
			return nil, err
		}
	}
	var mirrors []string
	if len(s.Header.Disks) > 1 {
		found, err := a.scan(folders)
		if err != nil {
			return nil, err
		}
		for _, d := range found.Disks {
			if d.Repository == s.Header.Repository.String() && d.Disk != s.Header.Disk().String() && d.State != "clone" {
				mirrors = append(mirrors, d.Device)
			}
		}
	}
	return disk.Repair(path, func(want repository.Digest) []byte {
		if file, ok := held[want]; ok {
			if text, err := os.ReadFile(file); err == nil {
				return text // that it fits is checked
			}
		}
		for _, mirror := range mirrors {
			doc, err := disk.Document(mirror, want)
			if err != nil {
				a.notef("warning: mirror %s: %s", printable(mirror), printable(withoutSentinel(err)))
			}
			if doc != nil {
				return doc
			}
		}
		return nil
	})
}

// indexCopies notes the files of a folder that may be configurations.
func indexCopies(folder string, held map[repository.Digest]string) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > repository.MaxDocument {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil {
			held[sha256.Sum256(text)] = path
		}
		return err
	})
}

func newRepositoryWipe(a *app) *cobra.Command {
	var force bool
	wipe := &cobra.Command{
		Use:   "wipe DEVICE",
		Short: "Make a disk of a repository one that holds nothing",
		Long: `Make a disk of a repository one that holds nothing: boot records, records and
configurations become zero. The cluster's configuration is lost if this is its only
disk; each node then has its local copy only. What is no repository is refused, and
so is one that an agent of this machine uses; those of other machines can not be seen
from here, so stop them first.

It asks at a terminal; elsewhere --force is needed.`,
		Example: "  belfry repository wipe /dev/sdb\n  belfry repository wipe old.belfry --force",
		Args:    exactly(1, "the device"),
		RunE:    func(_ *cobra.Command, args []string) error { return a.wipe(args[0], force) },
	}
	wipe.Flags().BoolVar(&force, "force", false, "without asking")
	return wipe
}

func (a *app) wipe(path string, force bool) error {
	s, err := disk.Examine(path)
	if err != nil {
		return err
	}
	v := wipeView{Device: path, Repository: s.Header.Repository.String(), Cluster: s.Header.Cluster.String()}
	if s.Newest >= 0 {
		v.Generation = s.Records[s.Newest].Record.Generation
	}
	if !force {
		question := fmt.Sprintf("%s holds generation %d of repository %s", printable(path), v.Generation, v.Repository)
		if s.Document != nil {
			question += fmt.Sprintf(" of cluster %s (%s)", printable(s.Document.Cluster.Name), strings.Join(summaryOf(s.Document).Nodes, " "))
		}
		if err := a.confirm(question + "; wipe it"); err != nil {
			return err
		}
	}
	if err := disk.Wipe(path); err != nil {
		return err
	}
	return a.show(document{value: v, table: func(o *output, _ bool) {
		fmt.Fprintf(o, "%s is no disk of repository %s any more\n", printable(v.Device), v.Repository)
	}})
}

// confirm asks a person, who must answer yes.
func (a *app) confirm(question string) error {
	in, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usagef("nobody can be asked here: standard input is no terminal; add --force")
	}
	fmt.Fprintf(a.errOut, "%s? yes or no: ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return failf(belfry.ErrRestricted, "not confirmed; nothing was changed")
	}
	return nil
}
