package belfry

import (
	"errors"
	"strings"
)

// The sentinel errors. An error of this project is compared with [errors.Is],
// never by its text; the client library turns the codes of the API back into
// these values (ecosystem.md 2).
var (
	ErrUsage       = errors.New("wrong use")
	ErrNoThreshold = errors.New("this class needs a threshold")
	ErrNoEvent     = errors.New("no such event")
	ErrUnsupported = errors.New("not supported")
	ErrNotFound    = errors.New("not found")
	ErrPermission  = errors.New("permission denied")
	ErrExist       = errors.New("already exists")
	ErrLimit       = errors.New("limit reached")
	ErrStale       = errors.New("stale")
	ErrNotBlocked  = errors.New("not blocked")
	ErrConflict    = errors.New("conflict")
	ErrRestricted  = errors.New("restricted")
	ErrNotMember   = errors.New("not a member")
	ErrUnknown     = errors.New("outcome unknown")
	ErrNoAgent     = errors.New("no agent") // nobody answers, or the one that did is stopping
)

// How a connection of the client library's ResourceDialer ends before its time. They
// do not travel.
var (
	ErrResourceUnavailable = errors.New("resource unavailable")
	ErrResourceMoved       = errors.New("resource moved")
)

// Error says which operation failed on what. Err is, or wraps, one of the
// sentinels of this package.
type Error struct {
	Op      string // "watch", "event.send"
	Node    NodeID // zero: this node
	Subject string // path, class:subject, peer/network; may be empty
	Err     error
}

// Error is "OP: SUBJECT: what is wrong; what would be right".
func (e *Error) Error() string {
	parts := make([]string, 0, 4)
	if e.Op != "" {
		parts = append(parts, e.Op)
	}
	if !e.Node.IsZero() {
		parts = append(parts, e.Node.String())
	}
	if e.Subject != "" {
		parts = append(parts, e.Subject)
	}
	return strings.Join(append(parts, e.Err.Error()), ": ")
}

// Unwrap makes errors.Is see the sentinel.
func (e *Error) Unwrap() error { return e.Err }

// codes are the names that travel in JSON and in google.rpc.ErrorInfo.
var codes = []struct {
	err  error
	code string
}{
	{ErrUsage, "USAGE"},
	{ErrNoThreshold, "NO_THRESHOLD"},
	{ErrNoEvent, "NO_EVENT"},
	{ErrUnsupported, "UNSUPPORTED"},
	{ErrNotFound, "NOT_FOUND"},
	{ErrPermission, "PERMISSION"},
	{ErrExist, "EXIST"},
	{ErrLimit, "LIMIT"},
	{ErrStale, "STALE"},
	{ErrNotBlocked, "NOT_BLOCKED"},
	{ErrConflict, "CONFLICT"},
	{ErrRestricted, "RESTRICTED"},
	{ErrNotMember, "NOT_MEMBER"},
	{ErrUnknown, "UNKNOWN"},
	{ErrNoAgent, "NO_AGENT"},
}

// Code is the name of the sentinel that err wraps, as it stands in JSON
// ("NO_EVENT"); "UNKNOWN" if it wraps none.
func Code(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return "UNKNOWN"
}

// Sentinel is the inverse of [Code]; ErrUnknown for a code it does not know.
func Sentinel(code string) error {
	for _, c := range codes {
		if c.code == code {
			return c.err
		}
	}
	return ErrUnknown
}
