package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
	"github.com/belfry-ha/belfry/internal/repository/etcd"
)

// complete brings the repository to where the generation in force says that it
// moves. Several members may do so at a time, each as often as it likes.
func (s *storage) complete(d *repository.Done) {
	held := s.held()
	move, err := repository.MoveOf(held.Document)
	if err != nil {
		d.Err = err
		return
	}
	var v repository.Version
	if to := held.Document.Moving; to.Etcd != nil {
		v, err = s.completeInEtcd(*to.Etcd, to.Epoch, move)
	} else {
		v, err = s.completeOnDisks(move, held.Document.NextKind())
	}
	if d.Err = err; err != nil {
		s.agent.log.Warn("the repository's move is not completed; it is tried again", "epoch", held.Document.Moving.Epoch, "err", err)
		return
	}
	s.agent.log.Info("the repository has moved", "epoch", v.Epoch, "generation", v.Generation)
	if v.Digest == digestOf(move.Document) {
		d.Snapshot = repository.Snapshot{Version: v, Document: move.Document, Previous: move.Previous, Op: move.Op, Writer: s.agent.id.node.ID}
	}
}

func (s *storage) completeInEtcd(place repository.Etcd, epoch uint64, move repository.Move) (repository.Version, error) {
	cfg, err := s.etcdConfig(place, epoch)
	if err != nil {
		return repository.Version{}, err
	}
	return etcd.Complete(cfg, move)
}

func (s *storage) completeOnDisks(move repository.Move, kind string) (repository.Version, error) {
	cfg := s.config()
	cfg.Local = kind == repository.KindFile
	cfg.Settled = time.Since(s.agent.started) >= repository.SettleTime
	if cfg.Host < 0 {
		return repository.Version{}, fmt.Errorf("%w: this node has no host slot there; another member completes the move", belfry.ErrRestricted)
	}
	found := s.finder.All()
	paths := make([]string, len(move.Headers))
	var missing []error
	for i := range move.Headers {
		for _, d := range found.Disks {
			if d.Header.Disk() == move.Headers[i].Disk() {
				paths[i] = d.Path
			}
		}
		if paths[i] == "" {
			missing = append(missing, fmt.Errorf("%w: disk %s is not on this machine; attach it", belfry.ErrNotFound, move.Headers[i].Disk()))
		}
	}
	v, err := disk.Complete(cfg, move, paths)
	if err != nil {
		err = errors.Join(append(missing, err)...)
	}
	return v, err
}

// openTold opens the place in etcd that members name who read the repository there in
// a later epoch than this node knows of: it was down through the move, and the old
// place is gone. Their word is only where to look. What is there is judged as always.
func (s *storage) openTold(epoch uint64) bool {
	place := ""
	for _, r := range s.agent.askDisks(s.agent.ended, nil) { // all of one epoch say the same
		if r.epoch > epoch && r.place != "" {
			epoch, place = r.epoch, r.place
		}
	}
	if place == "" {
		return false
	}
	endpoints, prefix, err := etcd.ParseURL(place)
	if err != nil {
		return false
	}
	if err := s.openEtcd(repository.Etcd{Endpoints: endpoints, Prefix: prefix}, epoch); err != nil {
		return false
	}
	if _, err := s.backend.Poll(); err != nil {
		s.agent.log.Warn("members name another place of the repository, which is not read", "place", place, "epoch", epoch, "err", err)
		_ = s.close()
		return false
	}
	return true
}

// openNewPlace tells whether a repository that moves is where it moves to: then that
// is opened, else where it was.
func (s *storage) openNewPlace(newest uint64) bool {
	to := s.held().Document.Moving
	if to == nil || to.Etcd == nil || newest >= to.Epoch {
		return false
	}
	if err := s.openEtcd(*to.Etcd, to.Epoch); err != nil {
		return false
	}
	_, err := s.backend.Poll()
	if err == nil {
		return true
	}
	_ = s.close() // it holds nothing yet, or does not answer
	return false
}
