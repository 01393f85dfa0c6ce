package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
	"github.com/belfry-ha/belfry/internal/repository/etcd"
)

// A spare is a disk that is reserved (repository.Reservation), so that every
// member finds it by its UUID, and listed in the document.

// maxSpares is how many there may be, as in AIX's replacement of its repository disk.
const maxSpares = 6

// maxAsked is of how many disks one question to a member is.
const maxAsked = 16

// getRepository answers a member that wants a spare to take the place of a disk. It
// reads one block of each disk, as for any scan.
func (a *Agent) getRepository(_ context.Context, req *belfryv1.GetRepositoryRequest) (*belfryv1.GetRepositoryResponse, error) {
	if a.storage == nil {
		return nil, fmt.Errorf("%w: the members keep the configuration among themselves", belfry.ErrUnsupported)
	}
	wanted, err := uuidsFrom(req.GetDisks())
	if err != nil {
		return nil, err
	}
	held, state := a.storage.held(), a.storage.state.Load()
	resp := &belfryv1.GetRepositoryResponse{
		State: state.mode.Word(state.why), Epoch: held.Epoch, Generation: held.Generation, Digest: held.Digest[:],
		Away: uuidBytes(*a.storage.away.Load()),
	}
	if at := held.Document.Repository.Etcd; at != nil && state.mode == repository.Ready {
		resp.Place = etcd.URL(at.Endpoints, at.Prefix)
	}
	if len(wanted) == 0 {
		return resp, nil
	}
	for _, d := range a.storage.finder.All().Disks {
		if slices.Contains(wanted, d.Header.Disk()) {
			id := d.Header.Disk()
			resp.Seen = append(resp.Seen, id[:])
		}
	}
	return resp, nil
}

func uuidBytes(ids []repository.UUID) (all [][]byte) {
	for _, u := range ids {
		all = append(all, slices.Clone(u[:]))
	}
	return all
}

func uuidsFrom(all [][]byte) (ids []repository.UUID, err error) {
	if len(all) > maxAsked {
		return nil, fmt.Errorf("%w: %d disks; at most %d", belfry.ErrUsage, len(all), maxAsked)
	}
	for _, b := range all {
		if len(b) != len(repository.UUID{}) {
			return nil, fmt.Errorf("%w: a disk's UUID of %d bytes; want %d", belfry.ErrUsage, len(b), len(repository.UUID{}))
		}
		ids = append(ids, repository.UUID(b))
	}
	return ids, nil
}

// A diskReport is what a member says of the repository's disks.
type diskReport struct {
	state  string
	epoch  uint64
	digest repository.Digest // of the generation in force
	place  string
	seen   []repository.UUID
	away   []repository.UUID
}

// askDisks asks the members that are up which of the disks they see, this node too.
// Who does not answer in time is not in the result.
func (a *Agent) askDisks(ctx context.Context, disks []repository.UUID) map[belfry.NodeID]diskReport {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	req := &belfryv1.GetRepositoryRequest{Disks: uuidBytes(disks)}
	var mu sync.Mutex
	reports := map[belfry.NodeID]diskReport{}
	note := func(id belfry.NodeID, resp *belfryv1.GetRepositoryResponse) error {
		seen, err := uuidsFrom(resp.GetSeen())
		if err != nil {
			return err
		}
		away, err := uuidsFrom(resp.GetAway())
		if err != nil {
			return err
		}
		r := diskReport{state: resp.GetState(), epoch: resp.GetEpoch(), place: resp.GetPlace(), seen: seen, away: away}
		copy(r.digest[:], resp.GetDigest())
		mu.Lock()
		defer mu.Unlock()
		reports[id] = r
		return nil
	}
	if own, err := a.getRepository(ctx, req); err == nil {
		_ = note(a.id.node.ID, own) // as it was made
	}
	a.askAll(ctx, a.members.Table(), func(id belfry.NodeID) error {
		resp := new(belfryv1.GetRepositoryResponse)
		if err := a.ask(ctx, id, belfryv1.MemberPeerService_GetRepository_FullMethodName, req, resp); err != nil {
			return err
		}
		return note(id, resp)
	})
	return reports
}

// replaceBySpare has the first spare that all members see take the place of a disk
// that has been away for long. It is an ordinary move: a majority of the disks
// is left, and decides (repository.md, Mirrors, spares, moving). What fails is
// tried again by the machine.
func (a *Agent) replaceBySpare(lost repository.UUID) {
	ctx, cancel := context.WithTimeout(a.ended, moveTimeout)
	defer cancel()
	if !a.storage.begin() {
		return // a move or change of spares is being made by an operator
	}
	defer a.storage.end()
	r := &relocator{Agent: a, held: a.storage.held(), how: api.Relocation{Mode: api.RelocateReplace, From: lost.String()}}
	spare, err := r.chooseSpare(ctx, lost)
	if err == nil {
		err = r.useSpare(ctx, spare)
	}
	if err != nil {
		a.log.Warn("no spare takes the place of a disk; it is tried again", "disk", lost.String(), "err", err)
		return
	}
	a.log.Info("a spare takes the place of a disk", "disk", lost.String(), "spare", spare.Header.Disk().String(), "path", spare.Path)
}

// chooseSpare is the first one that all who answer see. A disk that somebody still
// reads is not lost: then the path to it from here is, and a mirror less for all
// would not mend that.
func (r *relocator) chooseSpare(ctx context.Context, lost repository.UUID) (disk.Found, error) {
	spares := r.held.Document.Repository.Spares
	reports := r.askDisks(ctx, append(slices.Clone(spares), lost))
	for id, report := range reports {
		works := report.state == repository.Ready.String() || report.state == repository.Ready.Word(errors.New(""))
		if works && report.epoch == r.held.Epoch && !slices.Contains(report.away, lost) {
			return disk.Found{}, fmt.Errorf("%w: node %s reads disk %s; look at the path to it from the others", belfry.ErrRestricted, r.nameOf(id), lost)
		}
	}
	found := r.storage.finder.All()
	for _, spare := range spares {
		everywhere := seenByAll(reports, spare)
		i := slices.IndexFunc(found.Disks, func(d disk.Found) bool { return d.Header.Disk() == spare && d.Header.Reserved() })
		if everywhere && i >= 0 {
			return found.Disks[i], nil
		}
	}
	return disk.Found{}, fmt.Errorf("%w: none of the %d spares is seen by all of the %d members that answer; attach one to all of them", belfry.ErrNotFound, len(spares), len(reports))
}

func seenByAll(reports map[belfry.NodeID]diskReport, u repository.UUID) bool {
	for _, d := range reports { // the order can not be seen
		if !slices.Contains(d.seen, u) {
			return false
		}
	}
	return true
}

// useSpare begins the move; the machine completes it.
func (r *relocator) useSpare(ctx context.Context, spare disk.Found) error {
	stay, err := r.staying()
	if err != nil {
		return err
	}
	if err := r.planDisks(stay, spare); err != nil {
		return err
	}
	_, err = r.begin(ctx, "node "+r.id.node.Name)
	return err
}

// changeSpares is for `belfry repository spare`: it reserves the disks that become
// spares, and gives back the one that is none any more.
func (r *relocator) changeSpares(ctx context.Context, author string) (api.Relocated, error) {
	areas := r.held.Document.Repository.Areas
	if areas == nil {
		return api.Relocated{}, fmt.Errorf("%w: the repository is in etcd, which has its own copies; only disks have spares", belfry.ErrUsage)
	}
	spares := r.held.Document.Repository.Spares
	found := r.storage.finder.All().Disks
	gone, err := r.noSpare(spares, found)
	if err != nil {
		return api.Relocated{}, err
	}
	l := repository.LayoutAt(repository.BlockSize, areas.Hosts, areas.SlotSize)
	r.kind, r.areas = r.held.Document.Repository.Kind, areasOf(l, nil)
	for _, path := range r.how.To {
		kind, err := r.planDisk(path, l)
		if err == nil && kind != r.kind {
			err = fmt.Errorf("%w: it is a %s, and the repository is on a %s", belfry.ErrUsage, kind, r.kind)
		}
		if err == nil && slices.ContainsFunc(found, func(d disk.Found) bool {
			return slices.Contains(spares, d.Header.Disk()) && sameFile(d.Path, path)
		}) {
			err = fmt.Errorf("%w: it is a spare already", belfry.ErrExist)
		}
		if err != nil {
			return api.Relocated{}, &belfry.Error{Op: "repository.spare", Subject: path, Err: err}
		}
		id := newUUID()
		r.disks, r.areas.Disks = append(r.disks, api.RelocatedDisk{Path: path, Disk: id.String()}), append(r.areas.Disks, id)
	}
	next := func(now []repository.UUID) []repository.UUID {
		left := slices.DeleteFunc(slices.Clone(now), func(u repository.UUID) bool { return u == gone })
		return append(left, r.areas.Disks...)
	}
	if n := len(next(spares)); n > maxSpares {
		return api.Relocated{}, fmt.Errorf("%w: %d spares; at most %d", belfry.ErrLimit, n, maxSpares)
	}
	done := api.Relocated{Kind: r.kind, Epoch: r.held.Epoch, Generation: r.held.Generation}
	if !r.how.DryRun && (len(r.how.To) > 0 || r.how.From != "") {
		if done.Generation, err = r.commitSpares(ctx, author, next); err != nil {
			return api.Relocated{}, err
		}
		if i := slices.IndexFunc(found, func(d disk.Found) bool { return d.Header.Disk() == gone && d.Header.Reserved() }); i >= 0 {
			if err := disk.Release(found[i].Path); err != nil {
				r.log.Warn("a disk that is no spare any more stays reserved", "disk", gone.String(), "path", found[i].Path, "err", err)
			}
		}
		spares = r.storage.held().Document.Repository.Spares
	} else {
		spares = next(spares)
	}
	for _, u := range spares {
		d := api.RelocatedDisk{Disk: u.String(), Stays: true}
		for _, f := range append(found, r.storage.finder.All().Disks...) {
			if f.Header.Disk() == u {
				d.Path = f.Path
			}
		}
		if i := slices.IndexFunc(r.disks, func(is api.RelocatedDisk) bool { return is.Disk == d.Disk }); i >= 0 {
			d = r.disks[i]
		}
		done.Disks = append(done.Disks, d)
	}
	return done, nil
}

// noSpare is the spare that is to be none any more; zero: none was named.
func (r *relocator) noSpare(spares []repository.UUID, found []disk.Found) (repository.UUID, error) {
	if r.how.From == "" {
		return repository.UUID{}, nil
	}
	for _, u := range spares {
		here := slices.ContainsFunc(found, func(d disk.Found) bool { return d.Header.Disk() == u && sameFile(d.Path, r.how.From) })
		if u.String() == r.how.From || here {
			return u, nil
		}
	}
	return repository.UUID{}, fmt.Errorf("%w: %s is no spare; belfry repository spare lists them", belfry.ErrNotFound, r.how.From)
}

// commitSpares reserves, commits, and gives back what was reserved for nothing.
func (r *relocator) commitSpares(ctx context.Context, author string, next func([]repository.UUID) []repository.UUID) (uint64, error) {
	if !r.storage.begin() {
		return 0, fmt.Errorf("%w: a spare is taking the place of a disk; try again when it has", belfry.ErrConflict)
	}
	defer r.storage.end()
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	if err := r.reserve(); err != nil {
		return 0, errors.Join(err, r.release())
	}
	generation, err := r.change(ctx, author, func(d repository.Document, _ time.Time) (repository.Document, error) {
		if d.Moving != nil {
			return d, fmt.Errorf("%w: the repository moves to epoch %d; wait until it is there", belfry.ErrConflict, d.Moving.Epoch)
		}
		d.Repository.Spares = next(d.Repository.Spares)
		return d, nil
	})
	if err != nil {
		if !errors.Is(err, belfry.ErrUnknown) {
			err = errors.Join(err, r.release())
		}
		return 0, err
	}
	r.awaitReports(ctx, r.held.table, generation)
	return generation, nil
}

// begin claims what only one at a time does here; end gives it back.
func (s *storage) begin() bool { return s.relocating.CompareAndSwap(false, true) }

func (s *storage) end() { s.relocating.Store(false) }
