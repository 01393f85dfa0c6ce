package sink

import (
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/belfry-ha/belfry"
)

// TestAPlaceIsKept over another start, until its handler is gone.
func TestAPlaceIsKept(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.db")
	open := func() *Store {
		t.Helper()
		s, err := OpenStore(file)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	at := belfry.Cursor{Node: belfry.NodeID{1}, Incarnation: 2, Position: 3}
	for _, handler := range []string{"page", "gone"} {
		if err := s.SetPlace(handler, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	if err := s.KeepPlaces([]string{"page", "new"}); err != nil {
		t.Fatal(err)
	}
	for handler, want := range map[string]belfry.Cursor{"page": at, "gone": {}, "new": {}} {
		if got, err := s.Place(handler); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", handler, got, err, want)
		}
	}
}

// TestAFileWithoutPlaces, of an agent before there were any, is taken on.
func TestAFileWithoutPlaces(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.db")
	db, err := bolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets[:3] {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		b, err := tx.Bucket(bucketDead).CreateBucket([]byte("page"))
		if err != nil {
			return err
		}
		return b.Put(idBytes(1), []byte("{}"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(file)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Place("page"); err != nil || !got.IsZero() {
		t.Errorf("%+v, %v; want none", got, err)
	}
	if got := s.Dead("page"); got != 1 {
		t.Errorf("%d dead letters, want the 1 that was there", got)
	}
}
