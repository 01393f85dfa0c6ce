package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/file"
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/security"
)

// owns tells whether what a class and subject name is the caller's own. If
// there is an identifier it is that object which is asked, whatever the name
// stands for now. What can not be told is nobody's own: patterns, processes
// named by what they are called with, and the classes of which nothing is
// known here.
func (a *Agent) owns(s api.Subject, class, subject string) bool {
	if s.Client != "" || s.Web || strings.ContainsAny(subject, `*\`) {
		return false
	}
	instance := a.identified.instance(eventKey{belfry.Class(class), subject})
	switch belfry.Class(class) {
	case file.FileClass, file.AttributeClass, file.DirClass:
		return ownsFile(callerOf(s), subject, instance)
	case process.Class:
		return ownsProcess(callerOf(s), subject, instance)
	}
	return false
}

func ownsFile(c security.Caller, path, instance string) bool {
	if !filepath.IsAbs(path) {
		return false
	}
	trail, fd, err := walkTrail(filepath.Clean(path)) // as the producer does
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if instance != "" {
		now, err := file.InstanceOf(fd)
		if err != nil || trail.Missing || now != instance {
			return false
		}
	}
	return trail.Own(c)
}

// ownsProcess asks for the process that an identifier names, else for what the
// subject names: a process, or an executable by its path.
func ownsProcess(c security.Caller, subject, instance string) bool {
	pid, exe, ok := process.Named(subject)
	if !ok {
		return false
	}
	var running process.Running
	if instance != "" || pid != 0 {
		var err error
		if running, err = lookAt(pid, instance); err != nil {
			return false
		}
		if own := security.OwnProcess(c, running.UIDs); own || pid != 0 {
			return own
		}
	}
	trail, fd, err := walkTrail(exe)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if instance != "" {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || running.Ino != st.Ino || running.Dev != uint64(st.Dev) {
			return false
		}
	}
	return trail.Own(c)
}

// lookAt finds the process that an identifier names, else the one of a number.
func lookAt(pid int, instance string) (r process.Running, err error) {
	if instance != "" {
		number, _, _ := strings.Cut(instance, "@")
		if pid, err = strconv.Atoi(number); err != nil {
			return r, err
		}
	}
	if r, err = process.LookAt(pid); err == nil && instance != "" && r.Instance != instance {
		err = fmt.Errorf("%w: process %s is gone", belfry.ErrUnknown, instance)
	}
	return r, err
}

// An eventKey names one event of this node.
type eventKey struct {
	class   belfry.Class
	subject string
}

// identifiers are the present ones of all entries whose owner is asked for.
// Safe for concurrent use.
type identifiers struct {
	mu      sync.Mutex
	entries map[event.EntryID]*identified
	watches map[event.WatchID]event.EntryID
	current map[eventKey]*identified
}

type identified struct {
	eventKey
	instance string // empty: none is in force
}

// watch learns what entries name.
func (i *identifiers) watch(watches []event.Watch) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, w := range watches {
		switch w.Class {
		case file.FileClass, file.AttributeClass, file.DirClass, process.Class:
		default:
			continue
		}
		if w.Entry == 0 || i.entries[w.Entry] != nil {
			continue
		}
		if i.entries == nil {
			i.entries, i.watches = map[event.EntryID]*identified{}, map[event.WatchID]event.EntryID{}
			i.current = map[eventKey]*identified{}
		}
		one := &identified{eventKey: eventKey{w.Class, w.Subject}}
		i.entries[w.Entry], i.watches[w.ID], i.current[one.eventKey] = one, w.Entry, one
	}
}

// unwatch forgets entries. A new one may have taken the place already.
func (i *identifiers) unwatch(unwatches []event.Unwatch) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, u := range unwatches {
		entry := i.watches[u.ID]
		if one := i.entries[entry]; one != nil && i.current[one.eventKey] == one {
			delete(i.current, one.eventKey)
		}
		delete(i.entries, entry)
		delete(i.watches, u.ID)
	}
}

// note reads what producers say on its way to the event machine, and answers
// the events that have a new identifier.
func (i *identifiers) note(messages []event.Message) (changed []eventKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range messages {
		switch m := m.(type) {
		case event.Associate:
			if one := i.entries[m.Entry]; one != nil {
				one.instance = m.Instance
				changed = append(changed, one.eventKey)
			}
		case event.Invalidate:
			if one := i.entries[m.Entry]; one != nil && one.instance == m.Instance {
				one.instance = ""
			}
		}
	}
	return changed
}

// instance is the identifier that is in force, or about to be; empty: none.
func (i *identifiers) instance(k eventKey) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if one := i.current[k]; one != nil {
		return one.instance
	}
	return ""
}

// produced takes what producers say. Whoever may observe only its own is judged
// again before the event machine hears of a new identifier, so that nothing
// that happens under it reaches somebody whose own it is not.
func (a *Agent) produced(ctx context.Context, messages ...event.Message) error {
	changed := a.identified.note(messages)
	if o := a.observers.Load(); o != nil {
		o.poke(messages)
	}
	for _, k := range changed {
		a.server.RejudgeEvent(string(k.class), k.subject)
	}
	return a.events.send(ctx, messages...)
}
