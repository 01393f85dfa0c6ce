package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
	"github.com/belfry-ha/belfry/internal/repository/etcd"
)

// moveTimeout is how long a move is waited for. It goes on by itself.
const moveTimeout = 15 * time.Second

// A relocator brings the repository to other disks, or to etcd and back.
type relocator struct {
	*Agent
	held *heldTable
	how  api.Relocation

	kind  string
	disks []api.RelocatedDisk
	areas *repository.Areas
	etcd  *repository.Etcd
}

// Relocate is api.Relocator. The node that is asked reserves the new disks, commits
// the generation that begins the move, and completes it; every other member can.
func (a *Agent) Relocate(ctx context.Context, how api.Relocation, author string) (api.Relocated, error) {
	if a.storage == nil {
		return api.Relocated{}, fmt.Errorf("%w: the members keep the configuration among themselves; a repository is made by belfry init", belfry.ErrUnsupported)
	}
	if err := a.storage.fit(); err != nil {
		return api.Relocated{}, err
	}
	r := &relocator{Agent: a, held: a.storage.held(), how: how}
	if to := r.held.Document.Moving; to != nil {
		return api.Relocated{}, fmt.Errorf("%w: the repository moves to epoch %d; wait until it is there", belfry.ErrConflict, to.Epoch)
	}
	if how.Mode == api.RelocateSpare {
		return r.changeSpares(ctx, author)
	}
	if err := r.plan(ctx); err != nil {
		return api.Relocated{}, err
	}
	done := api.Relocated{Kind: r.kind, Disks: r.disks, Epoch: r.held.Epoch + 1, Generation: r.held.Generation}
	if r.etcd != nil {
		done.Place = etcd.URL(r.etcd.Endpoints, r.etcd.Prefix)
	}
	if how.DryRun {
		return done, nil
	}
	if err := r.reserve(); err != nil {
		return api.Relocated{}, errors.Join(err, r.release())
	}
	generation, err := r.begin(ctx, author)
	if err != nil {
		if !errors.Is(err, belfry.ErrUnknown) { // else it may have begun
			err = errors.Join(err, r.release())
		}
		return api.Relocated{}, err
	}
	wait, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	a.awaitHeld(wait, generation+1)
	done.Generation = a.storage.held().Generation
	if done.Generation <= generation {
		return done, fmt.Errorf("%w: the move has begun, with generation %d, and is not completed yet; it goes on by itself, see the logs of the agents", belfry.ErrUnknown, generation)
	}
	a.awaitReports(wait, r.held.table, generation+1)
	return done, nil
}

// plan looks at everything, and writes nothing.
func (r *relocator) plan(ctx context.Context) error {
	if len(r.how.To) == 1 && strings.Contains(r.how.To[0], "://") {
		if r.how.Mode != api.RelocateAll {
			return fmt.Errorf("%w: etcd has its own copies; only belfry repository move goes there", belfry.ErrUsage)
		}
		return r.planEtcd()
	}
	stay, err := r.staying()
	if err != nil {
		return err
	}
	if n := len(stay) + len(r.how.To); n < 1 || n > repository.MaxDisks {
		return fmt.Errorf("%w: %d disks; 1 to %d", belfry.ErrUsage, n, repository.MaxDisks)
	}
	if err := r.planDisks(stay); err != nil {
		return err
	}
	if r.kind == repository.KindFile {
		return r.onThisMachine()
	}
	return ctx.Err()
}

// planEtcd wants an etcd that answers, and a key of nobody.
func (r *relocator) planEtcd() error {
	plan, err := planEtcd(r.how.To[0], Place{Etcd: r.opts.Config.Repository.Etcd}, r.how.Force)
	if err != nil {
		return err
	}
	if was := r.held.Document.Repository.Etcd; was != nil && slices.Equal(was.Endpoints, plan.place.Endpoints) && was.Prefix == plan.place.Prefix {
		return fmt.Errorf("%w: the repository is there", belfry.ErrUsage)
	}
	r.kind, r.etcd = repository.KindEtcd, &plan.place
	return nil
}

// staying are the disks of now that are those of the next epoch too.
func (r *relocator) staying() ([]disk.Found, error) {
	if r.how.Mode == api.RelocateAll {
		return nil, nil
	}
	if r.held.Document.Repository.Areas == nil {
		return nil, fmt.Errorf("%w: the repository is in etcd; belfry repository move brings it to disks", belfry.ErrUsage)
	}
	found := r.storage.finder.All()
	var stay []disk.Found
	replaced := r.how.Mode != api.RelocateReplace
	for _, id := range r.held.Document.Repository.Areas.Disks {
		i := slices.IndexFunc(found.Disks, func(d disk.Found) bool {
			return d.Header.Disk() == id && d.Header.Epoch == r.held.Epoch && d.Header.Repository == r.held.Repository
		})
		path := ""
		if i >= 0 {
			path = found.Disks[i].Path
		}
		switch {
		case !replaced && (r.how.From == id.String() || path != "" && sameFile(r.how.From, path)):
			replaced = true
		case i < 0:
			return nil, fmt.Errorf("%w: disk %s of the repository is not on this machine; replace that one, or ask a node that sees it", belfry.ErrNotFound, id)
		default:
			stay = append(stay, found.Disks[i])
		}
	}
	if !replaced {
		return nil, fmt.Errorf("%w: %s is no disk of the repository; name one by its path or UUID: belfry repository scan -o wide lists them", belfry.ErrNotFound, r.how.From)
	}
	return stay, nil
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return a == b || errX == nil && errY == nil && os.SameFile(x, y)
}

// planDisks finds one layout for all of them.
// Spares are reserved already, and found by every member.
func (r *relocator) planDisks(stay []disk.Found, spares ...disk.Found) error {
	now, err := r.presentLayout()
	if err != nil {
		return err
	}
	document, err := repository.Encode(r.held.Document)
	if err != nil {
		return err
	}
	l, least := repository.LayoutAt(repository.BlockSize, now.Hosts, now.SlotSize), int64(0)
	for _, d := range stay {
		if least == 0 || d.Identity.Size < least {
			least = d.Identity.Size
		}
	}
	if least > 0 {
		if l, err = repository.NextLayout(now, least, len(document)); err != nil {
			return err
		}
	}
	var ids []repository.UUID
	for _, d := range stay {
		ids = append(ids, d.Header.Disk())
		r.disks = append(r.disks, api.RelocatedDisk{Path: d.Path, Disk: d.Header.Disk().String(), Stays: true})
	}
	if len(stay)+len(spares) > 0 {
		r.kind = r.held.Document.Repository.Kind
	}
	for _, d := range spares {
		if d.Identity.Size < l.Size() {
			return fmt.Errorf("%w: the spare %s has %d bytes; want %d at least", belfry.ErrLimit, d.Path, d.Identity.Size, l.Size())
		}
		ids = append(ids, d.Header.Disk())
		r.disks = append(r.disks, api.RelocatedDisk{Path: d.Path, Disk: d.Header.Disk().String(), Stays: true})
	}
	for _, path := range r.how.To {
		kind, err := r.planDisk(path, l)
		if err != nil {
			return &belfry.Error{Op: "repository." + string(r.how.Mode), Subject: path, Err: err}
		}
		if r.kind != "" && r.kind != kind {
			return fmt.Errorf("%w: %s is a %s beside a %s; all are block devices, or all files", belfry.ErrUsage, path, kind, r.kind)
		}
		id := newUUID()
		r.kind, ids = kind, append(ids, id)
		r.disks = append(r.disks, api.RelocatedDisk{Path: path, Disk: id.String()})
	}
	r.areas = areasOf(l, ids)
	return nil
}

// presentLayout is that of the disks, or of those that the first one from etcd gets.
func (r *relocator) presentLayout() (repository.Layout, error) {
	if a := r.held.Document.Repository.Areas; a != nil {
		return a.Layout(), nil
	}
	if len(r.how.To) == 0 {
		return repository.Layout{}, fmt.Errorf("%w: no disk to move to", belfry.ErrUsage)
	}
	info, err := os.Stat(r.how.To[0])
	if err != nil || info.Mode().IsRegular() {
		return repository.DefaultLayout(max(fileHosts, len(r.held.Document.Nodes)), fileSlot), nil
	}
	size, _, err := disk.Look(r.how.To[0], true)
	return deviceLayout(size), err
}

// planDisk looks at one that is to come.
func (r *relocator) planDisk(path string, l repository.Layout) (kind string, err error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%w: write the path from / on: it is looked at by the agent", belfry.ErrUsage)
	}
	if slices.ContainsFunc(r.disks, func(d api.RelocatedDisk) bool { return sameFile(d.Path, path) }) {
		return "", fmt.Errorf("%w: it is a disk of the repository already", belfry.ErrUsage)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Mode().IsRegular():
		kind = repository.KindFile
		if kindErr := r.findable(path); kindErr != nil || err != nil {
			return kind, kindErr
		}
	case err != nil:
		return "", err
	case info.Mode().Type()&fs.ModeDevice == 0:
		return "", fmt.Errorf("%w: neither a block device nor a file; name one of these", belfry.ErrUsage)
	default:
		kind = repository.KindDisk
	}
	size, h, err := disk.Look(path, r.how.Force)
	switch {
	case err != nil:
		return kind, err
	case h.Repository == r.held.Repository && h.Epoch == r.held.Epoch:
		return kind, fmt.Errorf("%w: it is a disk of the repository already", belfry.ErrUsage)
	case h.Epoch > 0 && !h.Reserved() && !r.how.Force:
		return kind, fmt.Errorf("%w: it holds a Belfry repository; name another one, or use --force to destroy it", belfry.ErrExist)
	case size < l.Size():
		return kind, fmt.Errorf("%w: %d bytes; want %d at least", belfry.ErrLimit, size, l.Size())
	}
	return kind, nil
}

// findable wants a file's name and folder to be where agents look.
func (r *relocator) findable(path string) error {
	if !strings.HasSuffix(path, disk.Suffix) {
		return fmt.Errorf("%w: agents look at files *%s only; give it such a name", belfry.ErrUsage, disk.Suffix)
	}
	search := r.opts.Config.Repository.Search
	if !slices.ContainsFunc(search, func(folder string) bool { return sameFolder(folder, filepath.Dir(path)) }) {
		return fmt.Errorf("%w: its folder is not in the setting repository.search, so that no agent would find it", belfry.ErrUsage)
	}
	return nil
}

// onThisMachine refuses a file where members are elsewhere: they would not see it.
func (r *relocator) onThisMachine() error {
	if r.held.Document.Repository.Kind == repository.KindFile {
		return nil
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, n := range r.held.table.Nodes {
		ip := net.IP(n.Streams.Addr().AsSlice())
		here := ip.IsLoopback() || slices.ContainsFunc(own, func(a net.Addr) bool {
			network, ok := a.(*net.IPNet)
			return ok && network.IP.Equal(ip)
		})
		if !here {
			return fmt.Errorf("%w: node %s is on another machine, and would not see a file; name a block device, or etcd", belfry.ErrUsage, n.Name)
		}
	}
	return nil
}

// reserve makes the new disks ones that every member finds by their UUID.
func (r *relocator) reserve() error {
	for i := range r.disks {
		d := &r.disks[i]
		if d.Stays {
			continue
		}
		if _, err := os.Stat(d.Path); errors.Is(err, fs.ErrNotExist) {
			if err := disk.Create(d.Path, roomFor(r.areas.Layout())); err != nil {
				return err
			}
		}
		h := repository.Reservation(r.held.Document.Cluster.UUID, r.areas.Disks[i], r.areas.Layout(), time.Now())
		if err := disk.Reserve(d.Path, r.how.Force, h); err != nil {
			return err
		}
	}
	return nil
}

// release gives back what was reserved for a move that does not begin.
func (r *relocator) release() error {
	var problems []error
	for _, d := range r.disks {
		if d.Stays {
			continue
		}
		err := disk.Release(d.Path)
		if err != nil && !errors.Is(err, belfry.ErrNotFound) && !errors.Is(err, belfry.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// begin commits the generation after which nothing but the completion follows. All
// members get a host slot with it, where it goes from etcd to disks.
func (r *relocator) begin(ctx context.Context, author string) (generation uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	completion := newOp()
	return r.change(ctx, author, func(d repository.Document, now time.Time) (repository.Document, error) {
		to, err := repository.MoveTo(d, r.kind, r.areas, r.etcd, completion)
		return withSlots(to, r.areas, now), err
	})
}

// change commits an edit of the document in this epoch, made anew if another
// generation comes before.
func (r *relocator) change(ctx context.Context, author string, edit func(repository.Document, time.Time) (repository.Document, error)) (generation uint64, err error) {
	for attempt := 1; ; attempt++ {
		held, changed := r.storage.held(), r.storage.changed()
		if held.Epoch != r.held.Epoch {
			return 0, fmt.Errorf("%w: the repository has moved meanwhile", belfry.ErrConflict)
		}
		now, op := r.entryTime(), newOp()
		to, err := edit(held.Document, now)
		if err != nil {
			return 0, err
		}
		document, err := r.next(held, op, to, repository.Entry{Time: now, Author: author})
		if err != nil {
			return 0, err
		}
		result, err := r.storage.propose(ctx, held.Version, op, document, repository.NoticeConfiguration)
		if err == nil {
			return result.Version.Generation, nil
		}
		if !isConflict(err) || attempt == commitAttempts || !r.awaitNewer(ctx, held, changed) {
			return 0, err
		}
	}
}

// withSlots gives a host slot to each member that has none, as long as there are
// any.
func withSlots(d repository.Document, areas *repository.Areas, now time.Time) repository.Document {
	if areas == nil {
		return d
	}
	d.Nodes = slices.Clone(d.Nodes)
	as := d
	as.Repository.Areas = areas
	for i := range d.Nodes {
		if d.Nodes[i].Slot == nil {
			d.Nodes[i].Slot = freeSlot(&as, now)
		}
	}
	return d
}
