package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Patience is how long an operation is tried again, unless HostConfig says
// otherwise. The last attempt may take the deadline of its calls longer.
const Patience = 2 * time.Second

// HostConfig says how one node works with the repository.
type HostConfig struct {
	Repository repository.Config
	Paths      []string      // of the disks, in any order; a majority must be there
	Deadline   time.Duration // of one call of a device; zero: [Deadline]
	Patience   time.Duration // of one operation; zero: [Patience]
}

// A Host is the [repository.Backend] of one node on disks. Several hosts of one
// machine share a file or device, each in its own slot, which it locks. It is
// safe for concurrent use; operations wait for each other.
type Host struct {
	cfg     HostConfig
	devices []*Device
	disks   []repository.UUID // of the devices, in their order; zero: it has no boot record
	opened  time.Time
	sealing sync.WaitGroup

	mu    sync.Mutex
	store *repository.Store
	rng   *rand.Rand // spreads hosts that preempt each other
}

var _ repository.Backend = (*Host)(nil)

// OpenHost opens the disks and locks the slot on them. Cloned: another process
// of this machine has it.
func OpenHost(cfg HostConfig) (*Host, error) { return openHost(cfg, openNode) }

func openHost(cfg HostConfig, open opener) (*Host, error) {
	if cfg.Patience <= 0 {
		cfg.Patience = Patience
	}
	h := &Host{cfg: cfg, opened: time.Now(), rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	var problems []error
	var devices []repository.Device
	for _, path := range cfg.Paths {
		d, err := openDevice(path, Options{ReadOnly: cfg.Repository.Host < 0, Deadline: cfg.Deadline}, open)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		h.devices = append(h.devices, d)
		h.disks = append(h.disks, repository.UUID{})
		err = h.admit(d)
		switch {
		case err == nil:
			devices = append(devices, d)
		case errors.Is(err, repository.Cloned), errors.Is(err, belfry.ErrUnsupported):
			return nil, errors.Join(err, h.close())
		default: // without its lock it is not used
			problems = append(problems, err)
		}
	}
	var err error
	if h.store, err = repository.Open(cfg.Repository, devices...); err != nil {
		return nil, errors.Join(append(problems, err, h.close())...)
	}
	return h, nil
}

// admit refuses a cache that other machines do not see, and locks the slot.
func (h *Host) admit(d *Device) error {
	if d.Buffered() && !h.cfg.Repository.Local {
		return fail("open", d.path, fmt.Errorf(
			"%w: its file system refuses direct I/O, so that machines would not see each other's writes; use a block device", belfry.ErrUnsupported))
	}
	header, err := repository.ReadHeader(d)
	if err != nil {
		return err
	}
	h.disks[len(h.disks)-1] = header.Disk()
	host, l := h.cfg.Repository.Host, header.Layout
	if host < 0 || host >= l.Hosts {
		return nil // it only reads; or the store refuses it
	}
	return d.Lock(l.Record(host, 0), 2*repository.BlockSize)
}

// Load is as in [repository.Backend]. What it has committed anew is sealed afterwards,
// so that polls of others find it.
func (h *Host) Load() (found repository.Snapshot, err error) {
	err = h.try(func() error { found, err = h.store.Load(); return err })
	if err == nil {
		h.seal()
	}
	return found, err
}

// seal says that what was committed last is chosen, while nobody waits.
func (h *Host) seal() {
	h.sealing.Go(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		_ = h.store.Seal() // the next operation finds what is wrong, and others can claim
	})
}

// Poll is as in [repository.Backend]. A value of a named digest counts as well:
// an authenticated notice has told of it.
func (h *Host) Poll() (repository.Snapshot, error) { return h.PollNamed() }

// PollNamed is Poll that also takes a value with one of these digests: those
// that an authenticated notice has told of.
func (h *Host) PollNamed(named ...repository.Digest) (found repository.Snapshot, err error) {
	err = h.try(func() error { found, err = h.store.Poll(named...); return err })
	if err == nil {
		h.addStrayed(&found)
	}
	return found, err
}

// addStrayed counts disks as away whose path leads elsewhere by now: they go on to
// work here, and nobody else will find them.
func (h *Host) addStrayed(found *repository.Snapshot) {
	for i, d := range h.devices {
		if id := h.disks[i]; id != (repository.UUID{}) && !slices.Contains(found.Away, id) && d.Strayed() != nil {
			found.Away = append(found.Away, id)
		}
	}
}

// CAS is as in [repository.Backend]. What was committed is sealed afterwards,
// while nobody waits.
func (h *Host) CAS(base repository.Version, doc []byte, op repository.OpID) (v repository.Version, err error) {
	err = h.try(func() error { v, err = h.store.CAS(base, doc, op); return err })
	if err == nil {
		h.seal()
	}
	return v, err
}

// Hints is nil: a disk tells nobody.
func (h *Host) Hints() <-chan repository.Version { return nil }

// Settling tells that nothing is written yet because this machine has started
// anew; it ends by itself after [repository.SettleTime].
func (h *Host) Settling() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.store.Settling()
}

// Forget is for a change of who counts: see [repository.Store.Forget].
func (h *Host) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.store.Forget()
}

// Strayed tells that the paths of too many disks lead elsewhere by now: they have
// to be found and opened anew. What is open must not be written any more, for
// it is what no other agent will find.
func (h *Host) Strayed() error {
	h.mu.Lock()
	total := len(h.store.Header().Disks)
	h.mu.Unlock()
	var strayed []error
	for _, d := range h.devices {
		if err := d.Strayed(); err != nil {
			strayed = append(strayed, err)
		}
	}
	if 2*(len(h.devices)-len(strayed)) > total {
		return nil
	}
	return errors.Join(strayed...)
}

// Close seals what was committed and gives the slot back.
func (h *Host) Close() error {
	h.sealing.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.store.Seal(), h.close())
}

func (h *Host) close() (err error) {
	for _, d := range h.devices {
		err = errors.Join(err, d.Close())
	}
	return err
}

// try calls until the outcome is known, or nothing but waiting would help. Once
// an attempt may have happened, only an answer of the store says that it did not.
func (h *Host) try(operation func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := time.Now().Add(h.cfg.Patience)
	var open error // of an attempt whose outcome is not known
	for attempt := 1; ; attempt++ {
		err := h.mend()
		if err == nil {
			err = operation()
		}
		if errors.Is(err, belfry.ErrUnknown) {
			open = err
		}
		wait, again := h.again(err, attempt)
		if !again || time.Now().Add(wait).After(end) {
			if err != nil && open != nil && !conclusive(err) && !errors.Is(err, belfry.ErrUnknown) {
				err = fmt.Errorf("%w; then: %w", open, err)
			}
			return err
		}
		<-time.After(wait)
	}
}

// conclusive tells whether the store says that an update has not happened and
// will not.
func conclusive(err error) bool {
	return errors.Is(err, belfry.ErrConflict) && !errors.Is(err, repository.Preempted)
}

// again tells whether the same call may succeed, and after which time.
func (h *Host) again(err error, attempt int) (time.Duration, bool) {
	switch {
	case err == nil, conclusive(err), errors.Is(err, repository.Cloned), errors.Is(err, repository.Moved):
		return 0, false
	case errors.Is(err, repository.Preempted), errors.Is(err, repository.Lost):
		return repository.BackOff(attempt, h.rng), true
	}
	// A device that can be reopened may go on; one that hangs does not.
	for _, d := range h.devices {
		if d.Suspect() != nil {
			return repository.BackOff(attempt, h.rng), true
		}
	}
	return 0, false
}

// mend reopens the devices that must be, and then the store, so that the next
// claim includes them. A device that can not be reopened is left to the store,
// which goes on without it if it has a majority.
func (h *Host) mend() error {
	var mended bool
	for _, d := range h.devices {
		if d.Suspect() != nil && d.Reopen() == nil {
			mended = true
		}
	}
	if mended {
		return h.store.Reopen()
	}
	if h.store.Settling() && time.Since(h.opened) >= repository.SettleTime {
		return h.store.Settled()
	}
	return nil
}
