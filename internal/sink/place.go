package sink

import (
	"slices"

	"github.com/belfry-ha/belfry"
)

// A place is how far a handler is in the journal: it is done with everything
// up to there. Beyond it some may be done as well; that is known by event.

// Place is the zero Cursor for a handler that has none.
func (s *Store) Place(handler string) (c belfry.Cursor, err error) {
	tx, err := s.db.Begin(false)
	if err != nil {
		return c, err
	}
	defer func() { _ = tx.Rollback() }() // of a reader, which changes nothing
	b := tx.Bucket(bucketPlaces)
	if b == nil {
		return c, nil
	}
	if text := b.Get([]byte(handler)); text != nil {
		return belfry.ParseCursor(string(text))
	}
	return c, nil
}

// SetPlace keeps a handler's place.
func (s *Store) SetPlace(handler string, c belfry.Cursor) error {
	return s.update(func(w *write) error {
		b, err := w.CreateBucketIfNotExists(bucketPlaces)
		if err != nil {
			return err
		}
		return b.Put([]byte(handler), []byte(c.String()))
	})
}

// KeepPlaces forgets the places of all other handlers: one that comes back
// begins anew.
func (s *Store) KeepPlaces(handlers []string) error {
	return s.update(func(w *write) error {
		b := w.Bucket(bucketPlaces)
		if b == nil {
			return nil
		}
		var gone [][]byte
		err := b.ForEach(func(k, _ []byte) error {
			if !slices.Contains(handlers, string(k)) {
				gone = append(gone, slices.Clone(k))
			}
			return nil
		})
		for _, k := range gone {
			if err == nil {
				err = b.Delete(k)
			}
		}
		return err
	})
}
