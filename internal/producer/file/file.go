// Package file serves file.modify, file.attribute and dir.modify: a file was
// written, removed or replaced; its mode, owner or ACL changed; an entry of a
// directory came or went.
//
// It uses inotify and watches what a path names together with the directory
// that holds the name, so a registration survives editors that write a new
// file and rename it, and services that delete and create theirs.
package file

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// The classes of this producer.
const (
	FileClass      belfry.Class = "file.modify"
	AttributeClass belfry.Class = "file.attribute" // of a file or a directory
	DirClass       belfry.Class = "dir.modify"
)

// inotify says nothing of a directory further up that is renamed, of a file
// system that is mounted over a path, and nothing at all where the directory
// is missing or not ours to read. So paths are looked at again, more often
// where nothing else would tell.
const (
	verifyEvery = 5 * time.Second
	searchEvery = time.Second
)

// endAfter is how long the entry of a subject that only a pattern found stays
// when the subject is gone. Editors and services bring it back before.
const endAfter = 5 * time.Second

// A Producer has no state between two calls of Run and is safe for concurrent use.
type Producer struct{}

// New makes a Producer.
func New() *Producer { return &Producer{} }

// Name is the folder's.
func (*Producer) Name() string { return "file" }

// Classes is file.modify, file.attribute and dir.modify.
func (*Producer) Classes() []belfry.ClassInfo {
	class := func(c belfry.Class, summary, data string) belfry.ClassInfo {
		return belfry.ClassInfo{
			Class:    c,
			Kind:     belfry.Happening,
			Summary:  summary,
			Subject:  "/PATH, * within a directory, ** below it",
			Data:     "belfry.v1." + data,
			Globs:    true,
			Remote:   true,
			Volatile: true,
		}
	}
	return []belfry.ClassInfo{
		class(FileClass, "a file was written, truncated, removed, renamed, replaced or created", "FileModify"),
		class(AttributeClass, "mode, owner or ACL of a file or directory changed", "FileAttribute"),
		class(DirClass, "an entry of a directory was created, removed or renamed", "DirModify"),
	}
}

// CheckSubject refuses a path that is not absolute: the agent's working
// directory is not the user's.
func (*Producer) CheckSubject(class belfry.Class, path string) error {
	return checkSubject(class, path)
}

func checkSubject(class belfry.Class, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: %q is not absolute; write %s:/full/path/%s", belfry.ErrUsage, path, class, path)
	}
	return nil
}

// Run serves watches until ctx ends.
func (*Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	in, err := newInotify()
	if err != nil {
		return fmt.Errorf("file: %w; raise fs.inotify.max_user_instances", err)
	}
	inner, cancel := context.WithCancel(ctx)
	events := make(chan []rawEvent)
	failed := make(chan error, 1)
	var group sync.WaitGroup
	group.Go(func() { in.read(inner, events, failed) })
	defer group.Wait()
	defer in.close() // ends read
	defer cancel()
	return newSession(in, send).loop(ctx, requests, events, failed)
}

func (s *session) loop(ctx context.Context, requests <-chan producer.Request, events <-chan []rawEvent, failed <-chan error) error {
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
		case err := <-failed:
			return fmt.Errorf("file: %w", err)
		case batch := <-events:
			for _, e := range batch {
				if err = s.handle(time.Now(), e); err != nil {
					break
				}
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
			return fmt.Errorf("file: %w", err)
		}
	}
}
