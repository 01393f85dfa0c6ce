package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
)

// A Membership says who is a member of the cluster. The authority is the
// committed document; until a repository holds it, a file beside the keys
// does (OpenMembers). What drops in later implements the same.
type Membership interface {
	// Table is the newest generation. It is safe for concurrent use and the
	// result is shared: nobody writes to it.
	Table() *Table
	// Change edits a copy of the newest table. If that changes it, the copy is
	// the next generation, with by as its origin; it is durable when Change
	// returns. dryRun checks and keeps nothing. Not to be called concurrently,
	// nor with Take.
	Change(by belfry.NodeID, dryRun bool, edit func(*Table) error) (changed bool, err error)
	// Take keeps another node's table, if it is newer than this one's; it is
	// durable when Take returns. The error says why it can not be this
	// cluster's.
	Take(document []byte) (taken bool, err error)
}

// memberFile is the member table of a cluster without repository: written by
// whoever made the cluster, and replaced with each change.
const memberFile = "members.json"

// maxMemberFile is security.md's limit of a document, in bytes.
const maxMemberFile = 1 << 20

// fileMembership is the table in a file of the state directory.
type fileMembership struct {
	state string
	table atomic.Pointer[Table]
}

func (m *fileMembership) Table() *Table { return m.table.Load() }

func (m *fileMembership) Change(by belfry.NodeID, dryRun bool, edit func(*Table) error) (changed bool, err error) {
	old := m.table.Load()
	next := old.clone()
	if err := edit(next); err != nil {
		return false, err
	}
	same, err := old.equal(next)
	if err != nil || same {
		return false, err
	}
	next.Generation, next.Origin = old.Generation+1, by
	if err := errors.Join(next.Validate(), next.fits(old)); err != nil {
		return false, fmt.Errorf("member table: %w", err)
	}
	if dryRun {
		return true, nil
	}
	return true, m.keep(next)
}

func (m *fileMembership) Take(document []byte) (taken bool, err error) {
	old := m.table.Load()
	next, err := decodeTable(document)
	if err != nil {
		return false, fmt.Errorf("member table: %w", err)
	}
	if err := next.follows(old); err != nil {
		return false, fmt.Errorf("member table of generation %d: %w", next.Generation, err)
	}
	if err := old.disowns(next); err != nil {
		return false, fmt.Errorf("member table of generation %d: %w", next.Generation, err)
	}
	if !next.newer(old) {
		return false, nil
	}
	// Who leaves writes the generation without itself; who was removed before
	// writes none any more, whoever brings it.
	_, was := old.Node(next.Origin)
	if _, is := next.Node(next.Origin); !was && !is && !next.Origin.IsZero() {
		return false, fmt.Errorf("member table of generation %d: %w: written by %s, which is not listed", next.Generation, belfry.ErrNotMember, next.Origin)
	}
	return true, m.keep(next)
}

// keep makes a table the newest one once it is durable.
func (m *fileMembership) keep(t *Table) error {
	if err := WriteMembers(m.state, t); err != nil {
		return notKept{err}
	}
	m.table.Store(t)
	return nil
}

// notKept says that a table is in order and could not be written: a full disk.
type notKept struct{ error }

func (n notKept) Unwrap() error { return n.error }

// OpenMembers reads the member table in a state directory: from the local copy of
// the document, where there is one.
func OpenMembers(state string) (Membership, error) {
	if _, err := os.Stat(copyOf(state)); err == nil {
		return openDocument(state)
	}
	path := filepath.Join(state, memberFile)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &belfry.Error{Op: "agent", Subject: state, Err: fmt.Errorf("%w: this directory belongs to no cluster; make one with belfry init or belfry up, or enter one with belfry join", belfry.ErrNotMember)}
	}
	if err != nil {
		return nil, fmt.Errorf("member table: %w", err)
	}
	if info.Size() > maxMemberFile {
		return nil, fmt.Errorf("member table %s: %w: %d bytes; at most %d", path, belfry.ErrLimit, info.Size(), maxMemberFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("member table: %w", err)
	}
	table, err := decodeTable(data)
	if err != nil {
		return nil, fmt.Errorf("member table %s: %w; stop the agent and copy the file from another member, which has the same", path, err)
	}
	m := &fileMembership{state: state}
	m.table.Store(table)
	return m, nil
}

// WriteMembers puts the table into a state directory, whole or not at all.
func WriteMembers(state string, t *Table) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("member table: %w", err)
	}
	data, err := t.encode()
	if err != nil {
		return err
	}
	return security.ReplaceFile(filepath.Join(state, memberFile), data)
}

// encode is the form of the file and of the wire.
func (t *Table) encode() ([]byte, error) {
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("member table: %w", err)
	}
	return append(data, '\n'), nil
}

// spareTable is what a table leaves free in its file, in bytes: who writes it,
// and as which generation, is filled in after fits.
const spareTable = 4 << 10

// fits refuses a table that no agent could read again, unless it is one that
// has become smaller.
func (t *Table) fits(old *Table) error {
	data, err := t.encode()
	if err != nil || len(data) <= maxMemberFile-spareTable {
		return err
	}
	before, err := old.encode()
	if err == nil && len(data) > len(before) {
		err = fmt.Errorf("%w: the configuration would have %d bytes, at most %d; remove clients, roles or tokens that nobody needs", belfry.ErrLimit, len(data), maxMemberFile-spareTable)
	}
	return err
}

// decodeTable is the inverse of encode; the table is valid.
func decodeTable(data []byte) (*Table, error) {
	if len(data) > maxMemberFile {
		return nil, fmt.Errorf("%w: %d bytes; at most %d", belfry.ErrLimit, len(data), maxMemberFile)
	}
	table := new(Table)
	if err := json.Unmarshal(data, table); err != nil {
		return nil, err
	}
	return table, table.Validate()
}
