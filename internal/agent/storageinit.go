package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
	"github.com/belfry-ha/belfry/internal/repository/etcd"
	"github.com/belfry-ha/belfry/internal/security"
)

// A storagePlan is where a first generation is to be written.
type storagePlan struct {
	path   string
	create bool // the file is not there yet
	force  bool // whatever is there is destroyed
	kind   string
	layout repository.Layout

	etcd  *etcd.Config    // of kind etcd: how this machine reaches it
	place repository.Etcd // and where it lies
}

// Sizes of repositories (repository.md, On-disk format).
const (
	fileHosts   = 8
	fileSlot    = 256 << 10
	deviceHosts = 64
	deviceSlot  = 1 << 20
)

// planStorage looks at a path before anything is written: a block device, or a
// file for the agents of one machine. Others find it by what is on it, so that a
// file's name and folder have to be what they look at.
func planStorage(path string, p Place, force bool) (storagePlan, error) {
	refuse := func(err error) (storagePlan, error) {
		return storagePlan{}, &belfry.Error{Op: "init", Subject: path, Err: err}
	}
	if strings.Contains(path, "://") {
		return planEtcd(path, p, force)
	}
	plan := storagePlan{path: path, force: force, kind: repository.KindFile, layout: repository.DefaultLayout(fileHosts, fileSlot)}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		plan.create = true
	case err != nil:
		return refuse(fmt.Errorf("%w: %w", belfry.ErrNotFound, err))
	case info.Mode().Type()&fs.ModeDevice != 0:
		plan.kind = repository.KindDisk
		return plan, plan.inspect()
	case !info.Mode().IsRegular():
		return refuse(fmt.Errorf("%w: neither a block device nor a file; name one of these", belfry.ErrUsage))
	}
	if !strings.HasSuffix(path, disk.Suffix) {
		return refuse(fmt.Errorf("%w: agents look at files *%s only; give it such a name", belfry.ErrUsage, disk.Suffix))
	}
	if !slices.ContainsFunc(p.Search, func(folder string) bool { return sameFolder(folder, filepath.Dir(path)) }) {
		return refuse(fmt.Errorf("%w: its folder is not in the setting repository.search, so that no agent would find it; write repository: {search: [%s]} into the agent's settings", belfry.ErrUsage, filepath.Dir(path)))
	}
	if plan.create {
		return plan, nil
	}
	return plan, plan.inspect()
}

// inspect refuses what holds something, before any key is made. It writes
// nothing; the formatting looks again.
func (plan *storagePlan) inspect() error {
	d, err := disk.Open(plan.path, disk.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	if plan.kind == repository.KindDisk {
		plan.layout = deviceLayout(d.Size())
	}
	if !plan.force {
		err = repository.Inspect(d, plan.layout)
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return &belfry.Error{Op: "init", Subject: plan.path, Err: err}
	}
	return nil
}

func sameFolder(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// deviceLayout is the largest of the usual ones that fits.
func deviceLayout(size int64) repository.Layout {
	for _, l := range []repository.Layout{
		repository.DefaultLayout(deviceHosts, deviceSlot), repository.DefaultLayout(deviceHosts, fileSlot),
	} {
		if l.Size() <= size {
			return l
		}
	}
	return repository.DefaultLayout(fileHosts, fileSlot)
}

// found makes the repository, with what the table says as generation 1, and the
// local copies of its nodes, whose state directories these are. The first of them
// is the founder.
func (plan storagePlan) found(states []string, table *Table, now time.Time) error {
	for i, state := range states {
		keys, err := security.Load(filepath.Join(state, keysDir))
		if err != nil {
			return err
		}
		table.Nodes[i].Certificate = keys.Certificate.Leaf.Raw
	}
	keys, err := security.Load(filepath.Join(states[0], keysDir))
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	id, disks, op := newUUID(), []repository.UUID{newUUID()}, newOp()
	first := repository.Document{
		Schema: repository.Schema, Cluster: repository.Cluster{UUID: table.Cluster, Created: now},
		Repository: repository.Storage{Kind: plan.kind, UUID: id, Epoch: 1},
	}
	if plan.etcd != nil {
		first.Repository.Etcd = &plan.place
	} else {
		first.Repository.Areas = areasOf(plan.layout, disks)
	}
	first = table.written(first, now)
	first.Ops = []repository.Operation{{Node: keys.Node, ID: op, Generation: 1}}
	first.History = []repository.Entry{{Generation: 1, Time: now, Author: whoRuns(table.Nodes[0].Name), Node: keys.Node, Text: "made"}}
	if err := first.Validate(judgeTunables); err != nil {
		return err
	}
	document, err := repository.Encode(first)
	if err != nil {
		return err
	}
	founder := repository.Founder{
		Node: keys.Node, Host: slotIn(&first, keys.Node), Boot: boot,
		Sign: func(m []byte) []byte { return ed25519.Sign(keys.Certificate.PrivateKey.(ed25519.PrivateKey), m) },
	}
	v := repository.Version{Repository: id, Epoch: 1, Generation: 1, Digest: digestOf(document)}
	if plan.etcd != nil {
		v, err = plan.putIntoEtcd(table, id, founder, document, op)
	} else {
		v.Ballot = repository.FounderBallot(founder.Host)
		err = plan.format(states[0], repository.Header{
			Repository: id, Cluster: table.Cluster, Epoch: 1, Sequence: 1, Disks: disks, Layout: plan.layout,
			Created: now.Truncate(time.Second), Label: table.Name, CA: repository.Digest(table.CA[0].Digest()),
		}, founder, document, op)
	}
	if err != nil {
		return err
	}
	for _, state := range states {
		if err := writeCopy(state, v, document); err != nil {
			return err
		}
	}
	return nil
}

// roomFor is how large a new file is made: the areas of the next epoch have room
// beside those of this one. It is sparse.
func roomFor(l repository.Layout) int64 { return 2*l.Used + repository.BlockSize }

// areasOf is a layout on disks, as the document has it.
func areasOf(l repository.Layout, disks []repository.UUID) *repository.Areas {
	return &repository.Areas{Hosts: l.Hosts, SlotSize: l.SlotSize, RecordOffset: l.RecordOffset, PayloadOffset: l.PayloadOffset, Disks: disks}
}

func (plan storagePlan) format(state string, h repository.Header, founder repository.Founder, document []byte, op repository.OpID) (err error) {
	if plan.create {
		if err := disk.Create(plan.path, roomFor(plan.layout)); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, os.Remove(plan.path))
			}
		}()
	}
	if err := disk.Format(plan.path, plan.force, h, founder, document, op); err != nil {
		return err
	}
	if !plan.create || os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(state)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t) // as whom the agent will run
	if !ok || owner.Uid == 0 {
		return nil
	}
	return os.Chown(plan.path, int(owner.Uid), int(owner.Gid))
}

func newUUID() (id repository.UUID) {
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // RFC 9562 5.4
	return id
}

// whoRuns is the user of this command, for the first generation.
func whoRuns(host string) string { return "uid " + strconv.Itoa(os.Getuid()) + " on " + host }
