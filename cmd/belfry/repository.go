package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
)

// defaultSearch is where repository files are looked for, as the agent does.
const defaultSearch = "/var/lib/belfry"

// scanView is repository scan in JSON.
type scanView struct {
	Disks    []scannedView     `json:"disks" doc:"what was found, by device"`
	Problems []scanProblemView `json:"problems" doc:"devices and folders that could not be read"`
}

// scannedView is one disk of a repository.
type scannedView struct {
	Device     string   `json:"device" doc:"path of the block device or file"`
	Repository string   `json:"repository" doc:"UUID"`
	Cluster    string   `json:"cluster" doc:"UUID"`
	Label      string   `json:"label" doc:"that it was given; may be empty"`
	Epoch      uint64   `json:"epoch" doc:"of the set of disks"`
	Disk       string   `json:"disk" doc:"UUID of this disk"`
	Number     uint32   `json:"number" doc:"of this disk among those of its epoch, from 1"`
	Count      uint32   `json:"count" doc:"disks of its epoch"`
	State      string   `json:"state" doc:"ok; incomplete: other disks of its epoch were not found; old: the repository has moved to others; clone: the same disk is there more than once, and no copy is used"`
	Clones     []string `json:"clones" doc:"devices with the same disk"`
}

// scanProblemView is a place that could not be read.
type scanProblemView struct {
	Device string `json:"device" doc:"path"`
	Text   string `json:"text" doc:"what is wrong; what would be right"`
}

func newRepositoryCommand(a *app) *cobra.Command {
	return newGroup(a, "repository", "Look at the disks that hold the configuration, and repair them",
		newRepositoryScan(a), newRepositoryShow(a), newRepositoryFsck(a), newRepositoryMove(a), newRepositoryReplace(a), newRepositoryMirror(a), newRepositorySpare(a), newRepositoryWipe(a))
}

// searchFlag says where files are looked for.
func searchFlag(cmd *cobra.Command, folders *[]string) {
	cmd.Flags().StringArrayVar(folders, "search", nil, "folder whose files *.belfry are looked at; may be given several times (default "+defaultSearch+")")
}

func newRepositoryScan(a *app) *cobra.Command {
	var folders []string
	scan := &cobra.Command{
		Use:   "scan",
		Short: "Find the disks of repositories on this machine",
		Long: `Find the disks of repositories among the block devices of this machine and the
files *.belfry of some folders, by what is on them. Nothing is written, and no
agent is asked. A device that does not answer within 2 s is named.

The exit status is 1 if no disk is found, or if one disk is there more than once:
then no copy is used, because they would become two repositories.`,
		Example: "  belfry repository scan\n  belfry repository scan --search ./dev -o json",
		Args:    none,
		RunE:    func(*cobra.Command, []string) error { return a.repositoryScan(folders) },
	}
	searchFlag(scan, &folders)
	return scan
}

// scan looks at all devices and files.
func (a *app) scan(folders []string) (scanView, error) {
	if len(folders) == 0 {
		if _, err := os.Stat(defaultSearch); err == nil {
			folders = []string{defaultSearch}
		}
	}
	for _, folder := range folders {
		if info, err := os.Stat(folder); err != nil {
			return scanView{}, err
		} else if !info.IsDir() {
			return scanView{}, usagef("--search %s: is not a folder; name one, or the device itself to belfry repository show", folder)
		}
	}
	found := disk.NewFinder(disk.FinderConfig{Folders: folders}).All()
	v := scanView{Disks: scannedDisks(found), Problems: []scanProblemView{}}
	for _, err := range found.Problems {
		p := scanProblemView{Text: withoutSentinel(err)}
		var e *belfry.Error
		if errors.As(err, &e) {
			p = scanProblemView{e.Subject, withoutSentinel(e.Err)}
		}
		v.Problems = append(v.Problems, p)
	}
	a.tellProblems(found.Problems, v.Problems)
	return v, nil
}

// tellProblems names what could not be read; what needs another user at once.
func (a *app) tellProblems(problems []error, views []scanProblemView) {
	var forbidden []string
	for i, p := range views {
		if errors.Is(problems[i], fs.ErrPermission) && !a.verbose {
			forbidden = append(forbidden, p.Device)
			continue
		}
		a.notef("warning: %s: %s", printable(p.Device), printable(p.Text))
	}
	switch {
	case len(forbidden) == 1:
		a.notef("warning: %s: permission denied; run as root, or with the right to read it", printable(forbidden[0]))
	case len(forbidden) > 1:
		a.notef("warning: %s and %s: permission denied; run as root, or with the right to read them", printable(forbidden[0]), plural(len(forbidden)-1, "other device"))
	}
}

func scannedDisks(found disk.Result) []scannedView {
	newest, there := map[repository.UUID]uint64{}, map[repository.UUID]int{}
	for _, d := range found.Disks {
		switch h := d.Header; {
		case h.Epoch > newest[h.Repository]:
			newest[h.Repository], there[h.Repository] = h.Epoch, 1
		case h.Epoch == newest[h.Repository]:
			there[h.Repository]++
		}
	}
	views := []scannedView{}
	for _, d := range found.Disks {
		h, state := d.Header, "ok"
		switch {
		case h.Epoch < newest[h.Repository]:
			state = "old"
		case there[h.Repository] < len(h.Disks):
			state = "incomplete"
		}
		views = append(views, scanned(d.Path, h, state, nil))
	}
	for _, c := range found.Clones {
		for i, path := range c.Paths {
			others := slices.DeleteFunc(slices.Clone(c.Paths), func(p string) bool { return p == path })
			views = append(views, scanned(path, c.Headers[i], "clone", others))
		}
	}
	slices.SortFunc(views, func(a, b scannedView) int { return strings.Compare(a.Device, b.Device) })
	return views
}

func scanned(path string, h repository.Header, state string, clones []string) scannedView {
	return scannedView{
		Device: path, Repository: h.Repository.String(), Cluster: h.Cluster.String(), Label: h.Label, Epoch: h.Epoch, Disk: h.Disk().String(),
		Number: uint32(h.Index) + 1, Count: uint32(len(h.Disks)), State: state, Clones: append([]string{}, clones...),
	}
}

func (a *app) repositoryScan(folders []string) error {
	v, err := a.scan(folders)
	if err != nil {
		return err
	}
	err = a.show(document{value: v, rows: rowsOf(v.Disks), table: func(o *output, wide bool) {
		if len(v.Disks) > 0 {
			scanTable(v.Disks, wide).write(o)
		}
	}})
	if err == nil {
		err = a.out.flush() // what was found comes before what is wrong with it
	}
	if err != nil {
		return err
	}
	if len(v.Disks) == 0 {
		return failf(belfry.ErrNotFound, "no repository is on this machine's devices or in the folders; name a folder with --search, or make one with belfry init")
	}
	return cloneError(v.Disks)
}

// cloneError names the first disk that is there more than once; nil: there is none.
func cloneError(disks []scannedView) error {
	for _, d := range disks {
		if d.State == "clone" {
			return failf(belfry.ErrExist, "%s and %s are the same disk of repository %s, and neither is used; take the copy away, or wipe it with belfry repository wipe",
				printable(d.Device), printable(strings.Join(d.Clones, ", ")), d.Repository)
		}
	}
	return nil
}

func scanTable(disks []scannedView, wide bool) *table {
	head := "DEVICE REPOSITORY CLUSTER EPOCH DISK LABEL STATE CLONES"
	if wide {
		head += " DISK-UUID"
	}
	t := newTable(head)
	colors := map[string]color{"ok": green, "incomplete": yellow, "old": yellow, "clone": red}
	for _, d := range disks {
		row := []cell{
			{text: d.Device},
			{text: d.Repository},
			{text: d.Cluster},
			{text: fmt.Sprint(d.Epoch)},
			{text: fmt.Sprintf("%d/%d", d.Number, d.Count)},
			{text: d.Label},
			{d.State, colors[d.State]},
			{text: strings.Join(d.Clones, ",")},
		}
		if wide {
			row = append(row, cell{text: d.Disk})
		}
		t.addCells(row...)
	}
	return t
}
