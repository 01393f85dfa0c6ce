package repository

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// replaceRetry is between two attempts to have a spare take the place of a disk.
const replaceRetry = 10 * time.Second

// away is which disks of the repository do not answer while the others do, and
// since when.
type away struct {
	since map[UUID]time.Time
	asked time.Time // when a replacement was asked for last
}

// why says that there are fewer disks than there should be; nil: there are not.
func (a *away) why(of int) error {
	if len(a.since) == 0 {
		return nil
	}
	var names []string
	for u := range a.since { // sorted below
		names = append(names, u.String())
	}
	slices.Sort(names)
	return fmt.Errorf("%d of %d disks do not answer: %s; all goes on with the others; bring them back, or replace them with `belfry repository replace`",
		len(names), of, strings.Join(names, ", "))
}

// disks are those of the epoch that is in force; of etcd none.
func (m *Machine) disks() []UUID {
	if a := m.held.Document.Repository.Areas; a != nil {
		return a.Disks
	}
	return nil
}

// missing notes what a read says of the disks.
func (m *Machine) missing(now time.Time, gone []UUID) {
	since := map[UUID]time.Time{}
	for _, u := range gone {
		if !slices.Contains(m.disks(), u) { // of an epoch that is not in force here yet
			continue
		}
		since[u] = now
		if at, ok := m.away.since[u]; ok {
			since[u] = at
		}
	}
	m.away.since = since
}

// replacementDue is when a spare is to take the place of a disk. Whoever leads has
// it done. A disk that only was restarted, or whose cable was changed, has
// time to come back.
func (m *Machine) replacementDue() time.Time {
	d := &m.held.Document
	if m.mode != Ready || !m.leads || len(m.away.since) == 0 || len(d.Repository.Spares) == 0 || d.Moving != nil {
		return time.Time{}
	}
	_, at := m.away.longest(m.disks())
	due := at.Add(lostAfter)
	if again := m.away.asked.Add(replaceRetry); again.After(due) {
		return again
	}
	return due
}

// longest is the disk that has been away for longest, of those in the order of the
// document.
func (a *away) longest(disks []UUID) (longest UUID, at time.Time) {
	for _, u := range disks {
		if since, ok := a.since[u]; ok && (at.IsZero() || since.Before(at)) {
			longest, at = u, since
		}
	}
	return longest, at
}

func (m *Machine) advanceReplacement(now time.Time) {
	due := m.replacementDue()
	if due.IsZero() || due.After(now) {
		return
	}
	m.away.asked = now
	u, _ := m.away.longest(m.disks())
	m.out.Replace = &Replacement{Disk: u}
}
