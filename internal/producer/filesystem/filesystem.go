// Package filesystem serves filesystem.usage: how full a mounted file system
// is, in percent of its space or of its inodes.
//
// It asks statfs(2), more often the sooner a threshold can be reached, and
// hears of mounts from the kernel.
package filesystem

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// Class is the one class of this producer.
const Class belfry.Class = "filesystem.usage"

// A Producer has no state between two calls of Run and is safe for concurrent use.
type Producer struct{}

// New makes a Producer.
func New() *Producer { return &Producer{} }

// Name is the folder's.
func (*Producer) Name() string { return "filesystem" }

// Classes is filesystem.usage.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{
		Class:   Class,
		Kind:    belfry.Value,
		Summary: "how full a mounted file system is, of what unprivileged users can have",
		Subject: "/MOUNTPOINT | inodes:/MOUNTPOINT, * within a directory, ** below it",
		Unit:    "%",
		Data:    "belfry.v1.FilesystemUsage",
		Globs:   true,
		Remote:  true,
	}}
}

// CheckSubject refuses a mount point that is not absolute: the agent's working
// directory is not the user's.
func (*Producer) CheckSubject(_ belfry.Class, subject string) error {
	return checkSubject(subject)
}

func checkSubject(subject string) error {
	if !filepath.IsAbs(strings.TrimPrefix(subject, inodePrefix)) {
		return fmt.Errorf("%w: %q is not absolute; write %s:/MOUNTPOINT or %s:%s/MOUNTPOINT", belfry.ErrUsage, subject, Class, Class, inodePrefix)
	}
	return nil
}

// Run serves watches until ctx ends.
func (*Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	table, err := openTable()
	if err != nil {
		return fmt.Errorf("filesystem: %w", err)
	}
	inner, cancel := context.WithCancel(ctx)
	changed := make(chan error)
	var group sync.WaitGroup
	group.Go(func() { table.wait(inner, changed) })
	defer group.Wait()
	defer table.close() // ends wait
	defer cancel()

	s := newSession(send)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next := s.nextTimeout(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case err = <-changed:
			if err == nil {
				err = s.mounted(time.Now())
			}
		case r := <-requests:
			if r.Watch != nil {
				err = s.watch(time.Now(), *r.Watch)
			} else {
				s.unwatch(r.Unwatch)
			}
		case <-timer.C:
			err = s.advance(time.Now())
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("filesystem: %w", err)
		}
	}
}
