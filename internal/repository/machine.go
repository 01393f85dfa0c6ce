package repository

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// Times of the machine (repository.md, From message to member).
const (
	pollDefault   = 5 * time.Second
	readGap       = 100 * time.Millisecond // between two reads, however many notices come that nothing follows from
	lostAfter     = 15 * time.Second       // without a successful read
	scanFirst     = 5 * time.Second        // after a scan that found nothing; it doubles
	scanRarely    = time.Minute
	scanUnknown   = 10 * time.Second // between two scans because of notices
	undecidedMax  = 2                // polls that see a value which nobody says is committed
	rollbackRetry = 5 * time.Second
	rollbackOther = 15 * time.Second // after the deadline, by whoever does not lead
)

// A Machine is the way from a message to a member: when this node looks for the
// repository, when it reads it, which generation it takes over, whom it tells.
// It does no I/O itself: it asks for jobs, one at a time.
//
// It is not safe for concurrent use; its driver owns it.
type Machine struct {
	cfg  MachineConfig
	rng  *rand.Rand
	mode Mode
	why  error // of the mode
	held Held

	job    *Job // that runs
	jobs   JobID
	during jobNotes // what came while it runs

	open      bool      // the driver has the disks
	reopening bool      // it had them, and opens them anew
	good      time.Time // last successful read; the start counts
	failed    error     // of the last read since
	read      time.Time // last read that began
	poll      time.Time // next one
	wake      time.Time // a read is due because something was said; zero: none
	scan      time.Time // next one
	scanWait  time.Duration
	scanAsked time.Time // last one because of a notice

	waiting   []Noticed // that wait for a read
	unknown   []Noticed // that wait for a scan
	doubt     doubt
	queue     []Propose
	swap      attempt
	move      relocation
	taking    *taking // a generation whose local copy is being written
	telling   telling
	answered  map[belfry.NodeID]time.Time // last report to each asker
	away      away
	leads     bool
	ahead     time.Duration
	rolled    time.Time // when the rollback was asked for last
	rolledFor uint64    // of this generation
	outcomes  [len(outcomeNames)]uint64
	out       Output
}

// New is a machine that has not looked for the repository yet.
func New(cfg MachineConfig, now time.Time, rng *rand.Rand) *Machine {
	m := &Machine{cfg: cfg, rng: rng, held: cfg.Held, good: now, scan: now, scanWait: scanFirst, answered: map[belfry.NodeID]time.Time{}}
	if cfg.Held.Generation > 0 {
		m.mode = Searching
		m.relocate(now, false)
	}
	return m
}

// Receive takes one input.
func (m *Machine) Receive(now time.Time, msg Message) {
	switch msg := msg.(type) {
	case Noticed:
		m.noticed(now, msg)
	case Done:
		m.done(now, msg)
	case Propose:
		m.propose(msg)
	case Lead:
		m.leads = msg.On
	case Clock:
		m.ahead = msg.Ahead
	case Appeared:
		if m.open && len(m.away.since) > 0 && m.job == nil {
			m.close(now) // it may be one of those that are away
		} else if !m.open {
			m.scan, m.scanWait = now, scanFirst
		}
	case Hint:
		m.wake = now
	case Greeted:
		m.greeted(now, msg)
	}
}

// Advance does what is due.
func (m *Machine) Advance(now time.Time) {
	if m.mode == Blank || m.mode == Leaving {
		return
	}
	if m.mode == Ready && now.Sub(m.good) >= lostAfter {
		m.restrict(lost(m.failed))
	}
	m.advanceTelling(now)
	m.advanceRollback(now)
	m.advanceReplacement(now)
	if m.job == nil {
		m.begin(now)
	}
}

// begin starts the job that is due first.
func (m *Machine) begin(now time.Time) {
	switch {
	case m.taking != nil:
		m.start(Job{Kind: JobKeep, Snapshot: m.taking.snapshot})
	case len(m.unknown) > 0:
		m.start(Job{Kind: JobScan, Repository: m.unknown[0].Notice.Repository})
	case m.moveDue(now):
		m.start(Job{Kind: JobMove})
	case !m.open:
		if m.scan.After(now) {
			return
		}
		m.start(Job{Kind: JobScan, Repository: m.held.Repository})
	case m.swapDue(now):
		p := m.queue[0]
		if m.swap.times == 0 {
			m.swap.begun = now
		}
		m.start(Job{Kind: JobSwap, Base: p.Base, Document: p.Document, Op: p.Op})
	case now.Before(m.read.Add(readGap)) || m.readDue().After(now):
	case m.leads && m.doubt.times >= undecidedMax:
		m.reads(now)
		m.start(Job{Kind: JobLoad})
	case m.lookDue(now):
		m.scanAsked = now
		m.close(now)
		m.start(Job{Kind: JobScan, Repository: m.held.Repository})
	default:
		m.move.looked = false
		m.reads(now)
		m.start(Job{Kind: JobPoll, Named: m.named()})
	}
}

func (m *Machine) start(j Job) {
	m.jobs++
	j.ID = m.jobs
	m.job, m.during = &j, jobNotes{waiting: len(m.waiting)}
	m.out.Jobs = append(m.out.Jobs, j)
}

// reads notes that a read begins, and when the next one is due: the interval of
// the document, plus or minus a tenth, so that members do not read in step.
func (m *Machine) reads(now time.Time) {
	m.read, m.wake = now, time.Time{}
	every := pollDefault
	if d, err := time.ParseDuration(m.held.Document.Repository.Poll); err == nil {
		every = min(max(d, pollMin), pollMax)
	}
	m.poll = now.Add(every - every/10 + time.Duration(m.rng.Int64N(int64(every/5)+1)))
}

// readDue is when the next read is wanted.
func (m *Machine) readDue() time.Time {
	if !m.wake.IsZero() && m.wake.Before(m.poll) {
		return m.wake
	}
	return m.poll
}

// NextTimeout is when Advance has something to do without new input. The zero
// time: never, as for a node that is no member.
func (m *Machine) NextTimeout() time.Time {
	if m.mode == Blank || m.mode == Leaving {
		return time.Time{}
	}
	all := []time.Time{m.telling.next, m.rollbackDue(), m.replacementDue()}
	if m.job == nil {
		all = append(all, m.move.next)
	}
	if m.mode == Ready {
		all = append(all, m.good.Add(lostAfter))
	}
	switch {
	case m.job != nil:
	case m.taking != nil || len(m.unknown) > 0:
		all = append(all, m.good) // at once
	case !m.open:
		all = append(all, m.scan)
	default:
		due := m.readDue()
		if gap := m.read.Add(readGap); due.Before(gap) {
			due = gap
		}
		all = append(all, due)
		if len(m.queue) > 0 {
			all = append(all, m.swap.next)
		}
	}
	all = slices.DeleteFunc(all, time.Time.IsZero)
	if len(all) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(all, time.Time.Compare)
}

// Take gives away what has come together since the last call.
func (m *Machine) Take() Output {
	out := m.out
	m.out = Output{}
	return out
}

// Mode is how this node stands to the repository, and why if changes are
// refused.
func (m *Machine) Mode() (Mode, error) { return m.mode, m.why }

// Held is the generation in force.
func (m *Machine) Held() Held { return m.held }

// Good is when the repository was read last, successfully; at first the start.
func (m *Machine) Good() time.Time { return m.good }

// Outcome counts the notices with that outcome.
func (m *Machine) Outcome(o Outcome) uint64 { return m.outcomes[o] }

func (m *Machine) count(o Outcome) { m.outcomes[o]++ }
