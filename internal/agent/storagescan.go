package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
)

// errClonedDisk refuses copies of one disk: they would become two repositories.
func errClonedDisk(c disk.Clone) error {
	return fmt.Errorf("%w: disk %s is there more than once, %s; take all copies but one away", belfry.ErrRestricted, c.Disk, strings.Join(c.Paths, " and "))
}

// lookEvery is how often it is looked whether devices or files came, while the
// repository is away. That takes no read of a device.
const lookEvery = 2 * time.Second

// local tells whether disks of that epoch are of the agents of one machine: the
// document of the epoch says so, and of one that this node does not know yet what
// they are.
func (s *storage) local(disks []disk.Found, epoch uint64) bool {
	held := s.held()
	switch {
	case epoch == held.Document.Repository.Epoch:
		return held.Document.Repository.Kind == repository.KindFile
	case held.Document.Moving != nil && epoch == held.Document.Moving.Epoch:
		return held.Document.NextKind() == repository.KindFile
	}
	for _, d := range disks {
		if info, err := os.Stat(d.Path); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// surroundings is a text that changes when a block device, its medium or a file
// comes or goes.
func (s *storage) surroundings() string {
	var b strings.Builder
	for _, folder := range s.agent.opts.Config.Repository.Search {
		files, _ := filepath.Glob(filepath.Join(folder, "*"+disk.Suffix)) // the only error is that of the pattern
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				fmt.Fprintln(&b, f, info.Size())
			}
		}
	}
	devices, _ := os.ReadDir("/sys/class/block") // none, where there is no such folder
	for _, d := range devices {
		size, _ := os.ReadFile(filepath.Join("/sys/class/block", d.Name(), "size")) // gone meanwhile: another text as well
		fmt.Fprintln(&b, d.Name(), string(size))
	}
	return b.String()
}

// scan looks for a repository, and opens it if it is this node's own.
func (s *storage) scan(id repository.UUID) error {
	own := id == s.held().Repository
	if own {
		_ = s.close() // it is opened anew; what could not be sealed is found by the next poll
	}
	seen := s.surroundings()
	s.seen.Store(&seen)
	disks, err := s.disks(id)
	if !own {
		return err
	}
	return s.open(disks, err)
}

// inEtcd tells whether the repository is there, as far as this node knows.
func (s *storage) inEtcd() bool { return s.held().Document.Repository.Kind == repository.KindEtcd }

// disks finds those of a repository on this machine. ErrNotFound: there are none.
func (s *storage) disks(id repository.UUID) ([]disk.Found, error) {
	found := s.finder.Find(id)
	s.tellClones(id, found.Clones)
	disks := found.Repository(id)
	switch {
	case len(disks) > 0:
		return disks, nil
	case len(found.Clones) > 0:
		return nil, errClonedDisk(found.Clones[0])
	}
	err := fmt.Errorf("%w: no device has repository %s, and no file %s in %s", belfry.ErrNotFound, id, "*"+disk.Suffix, folders(s.agent.opts.Config.Repository.Search))
	if n := len(found.Problems); n > 0 {
		err = fmt.Errorf("%w; %d could not be read, the last of them: %s", err, n, found.Problems[n-1].Error())
	}
	return nil, err
}

// tellClones posts repository.clone, once for each set of copies.
func (s *storage) tellClones(id repository.UUID, clones []disk.Clone) {
	text := fmt.Sprint(clones)
	if text == s.clones {
		return
	}
	s.clones = text
	for _, c := range clones {
		if c.Headers[0].Repository != id || id != s.held().Repository {
			continue
		}
		s.agent.notices.Tell(node.RepositoryClone, id.String(), time.Now(), belfry.EdgeNone, &belfryv1.RepositoryClone{
			Node: s.agent.id.node.Name, Repository: id.String(), Disk: c.Disk.String(), Paths: c.Paths, Reason: errClonedDisk(c).Error(),
		})
	}
}

// open opens the newest epoch of this node's repository that there is. Disks say
// which epoch they are of; a place in etcd is known by the document, and counts
// as long as there is no disk of a later epoch.
func (s *storage) open(disks []disk.Found, none error) error {
	r := &s.held().Document.Repository
	var newest uint64
	for _, d := range disks {
		newest = max(newest, d.Header.Epoch)
	}
	if s.openNewPlace(newest) {
		return nil
	}
	inEtcd := r.Kind == repository.KindEtcd && newest <= r.Epoch
	if len(disks) == 0 && !inEtcd || inEtcd && s.state.Load().mode == repository.Restricted {
		if s.openTold(max(newest, r.Epoch)) {
			return nil
		}
	}
	if inEtcd {
		return s.openEtcd(*r.Etcd, r.Epoch)
	}
	if len(disks) == 0 {
		return none
	}
	return s.openDisks(disks, newest)
}

func (s *storage) openDisks(disks []disk.Found, epoch uint64) error {
	if s.next.fences(epoch) {
		return s.next.waits()
	}
	var paths []string
	for _, d := range disks {
		if d.Header.Epoch == epoch { // one of before is none of ours any more, and locked by nobody
			paths = append(paths, d.Path)
		}
	}
	cfg := s.config()
	cfg.Local = s.local(disks, epoch)
	h, err := disk.OpenHost(disk.HostConfig{Repository: cfg, Paths: paths})
	if err != nil {
		return err
	}
	s.use(h, epoch)
	s.settling.Store(h.Settling())
	s.agent.log.Info("repository found", "repository", s.held().Repository, "paths", paths, "epoch", epoch)
	return nil
}

func folders(search []string) string {
	if len(search) == 0 {
		return "no folder (the setting repository.search is empty)"
	}
	return strings.Join(search, ", ")
}
