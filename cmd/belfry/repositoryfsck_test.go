package main

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/internal/repository/disk"
)

// What a host is writing while it is looked at is no problem.
func TestFsckOfABusyRepositoryFindsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "one.belfry")
	if err := newKeptRepository(1, 1).write([]string{path}, filepath.Join(dir, "copies")); err != nil {
		t.Fatal(err)
	}
	cfg := newKeptRepository(1, 1).config(0)
	cfg.Incarnation = 2
	host, err := disk.OpenHost(disk.HostConfig{Repository: cfg, Paths: []string{path}, Deadline: time.Minute, Patience: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	stop := make(chan struct{})
	commits, first := 0, 0 // problems that a first look has found
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := host.Load(); err != nil { // which commits what is there
				t.Error(err)
				return
			}
			commits++
		}
	})
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		once, err := disk.Examine(path)
		if err != nil {
			t.Error(err)
		}
		first += len(once.Problems)
		s, err := examineTwice(path)
		if err != nil {
			t.Error(err)
		}
		for _, p := range s.Problems {
			t.Errorf("%s: %v", p.Place, p.Err)
		}
	}
	close(stop)
	writing.Wait()
	if err := host.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d commits; a first look has found %d problems", commits, first)
	if commits == 0 {
		t.Error("nothing was written meanwhile")
	}
}
