package disk

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry/internal/repository"
)

// Suffix is what names of repository files end in.
const Suffix = ".belfry"

// atOnce is how many devices are read at a time.
const atOnce = 16

// FinderConfig says where to look. The zero value is this machine, without files.
type FinderConfig struct {
	Sysfs    string        // empty: /sys
	Dev      string        // folder of the device nodes; empty: /dev
	Folders  []string      // whose files *.belfry are looked at
	Least    int64         // bytes that a device must have; zero: the smallest repository
	Deadline time.Duration // of one device; zero: [Deadline]
}

// Found is one disk of a repository.
type Found struct {
	Path     string
	Header   repository.Header
	Identity Identity
}

// A Clone is one disk of a repository that is there more than once. None of
// the copies may be used: they would become two repositories.
type Clone struct {
	Disk    repository.UUID
	Paths   []string            // sorted
	Headers []repository.Header // of each of them
}

// Result is what was found. It is sorted by path.
type Result struct {
	Disks    []Found
	Clones   []Clone // refused
	Problems []error // of folders and devices that could not be read
}

// Repository are the disks of one repository.
func (r Result) Repository(id repository.UUID) []Found {
	return slices.DeleteFunc(slices.Clone(r.Disks), func(f Found) bool { return f.Header.Repository != id })
}

// A Finder looks for disks by what is on them: names of devices change. It is
// safe for concurrent use; who looks waits for who looks already.
type Finder struct {
	cfg  FinderConfig
	open opener

	turn sync.Mutex // held by who looks; before mu

	mu    sync.Mutex
	known map[Identity]repository.Header // disks that were read before
	stuck map[Identity]bool              // have not answered yet: they are not asked again
}

// NewFinder has found nothing yet.
func NewFinder(cfg FinderConfig) *Finder { return newFinder(cfg, openNode) }

func newFinder(cfg FinderConfig, open opener) *Finder {
	cfg.Sysfs, cfg.Dev = cmp.Or(cfg.Sysfs, "/sys"), cmp.Or(cfg.Dev, "/dev")
	cfg.Deadline = cmp.Or(cfg.Deadline, Deadline)
	cfg.Least = cmp.Or(cfg.Least, repository.CompactLayout(1, repository.BlockSize, 3*repository.BlockSize).Size())
	return &Finder{cfg: cfg, open: open, known: map[Identity]repository.Header{}, stuck: map[Identity]bool{}}
}

// Forget is for a block uevent: what is on a device that has been read before
// may be something else now.
func (f *Finder) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.known)
}

// Find looks for the disks of a repository. First it reads again only what had
// one before; if that is not enough of them it reads all, because a device
// that held nothing may have been formatted by another machine.
func (f *Finder) Find(id repository.UUID) Result {
	f.turn.Lock()
	defer f.turn.Unlock()
	all, problems := f.candidates()
	f.mu.Lock()
	likely := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool {
		h, ok := f.known[c.key]
		return !ok || h.Repository != id
	})
	// A device that is new could be a clone of one that is known.
	seen := f.seen(all)
	maps.DeleteFunc(f.known, func(key Identity, _ repository.Header) bool { // is gone
		return !slices.ContainsFunc(all, func(c candidate) bool { return c.key == key })
	})
	f.mu.Unlock()
	if len(likely) > 0 && seen {
		r := f.look(likely)
		if disks := r.Repository(id); len(disks) > 0 && len(disks) == len(disks[0].Header.Disks) {
			r.Problems = append(problems, r.Problems...)
			return r
		}
	}
	r := f.look(all)
	r.Problems = append(problems, r.Problems...)
	return r
}

// All reads all devices and files.
func (f *Finder) All() Result {
	f.Forget()
	return f.Find(repository.UUID{})
}

// seen tells whether each of them has been read before. The mutex is held.
func (f *Finder) seen(all []candidate) bool {
	return !slices.ContainsFunc(all, func(c candidate) bool {
		_, known := f.known[c.key]
		return !known
	})
}

// candidates are all that is worth reading. Of several names of one thing the
// first counts.
func (f *Finder) candidates() ([]candidate, []error) {
	all, problems := f.blocks()
	files, more := f.files()
	all = append(all, files...)
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.path, b.path) })
	seen := map[Identity]bool{}
	all = slices.DeleteFunc(all, func(c candidate) bool {
		named := seen[c.key]
		seen[c.key] = true
		return named
	})
	return all, append(problems, more...)
}

// look reads the first block of each, so many at once.
func (f *Finder) look(all []candidate) (r Result) {
	type answer struct {
		candidate
		header repository.Header
		err    error
	}
	answers := make([]answer, len(all))
	var readers sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i, c := range all {
		turns <- struct{}{}
		readers.Go(func() {
			h, err := f.read(c)
			answers[i] = answer{c, h, err}
			<-turns
		})
	}
	readers.Wait()

	f.mu.Lock()
	defer f.mu.Unlock()
	copies := map[repository.UUID][]answer{}
	for _, a := range answers {
		if a.err != nil {
			r.Problems = append(r.Problems, a.err)
			continue
		}
		f.known[a.key] = a.header
		if a.header.Epoch > 0 {
			copies[a.header.Disk()] = append(copies[a.header.Disk()], a)
		}
	}
	for id, group := range copies {
		slices.SortFunc(group, func(a, b answer) int {
			// A file before loop devices that show it: all agents must lock the same.
			return cmp.Or(cmp.Compare(a.backing.Inode, b.backing.Inode), cmp.Compare(a.path, b.path))
		})
		var distinct []answer
		for _, a := range group {
			if !slices.ContainsFunc(distinct, func(b answer) bool { return same(a.candidate, b.candidate) }) {
				distinct = append(distinct, a)
			}
		}
		if len(distinct) == 1 {
			r.Disks = append(r.Disks, Found{distinct[0].path, distinct[0].header, distinct[0].key})
			continue
		}
		clone := Clone{Disk: id}
		slices.SortFunc(distinct, func(a, b answer) int { return cmp.Compare(a.path, b.path) })
		for _, a := range distinct {
			clone.Paths, clone.Headers = append(clone.Paths, a.path), append(clone.Headers, a.header)
		}
		r.Clones = append(r.Clones, clone)
	}
	slices.SortFunc(r.Disks, func(a, b Found) int { return cmp.Compare(a.Path, b.Path) })
	slices.SortFunc(r.Clones, func(a, b Clone) int { return slices.Compare(a.Paths, b.Paths) })
	return r
}
