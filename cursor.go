package belfry

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"
)

// A Cursor is a place in the journal of a node: everything up to it has been
// read. To users it is opaque. The zero value is none.
type Cursor struct {
	Node        NodeID
	Incarnation Incarnation // of the agent that gave it out
	Position    uint64
}

// IsZero tells whether it is none.
func (c Cursor) IsZero() bool { return c == Cursor{} }

// String is the form that ParseCursor reads; empty for the zero value.
func (c Cursor) String() string {
	if c.IsZero() {
		return ""
	}
	b := append([]byte(nil), c.Node[:]...)
	b = binary.AppendUvarint(b, uint64(c.Incarnation))
	b = binary.AppendUvarint(b, c.Position)
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseCursor reads the form that String writes. The error wraps ErrUsage.
func ParseCursor(s string) (c Cursor, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil && len(b) > len(c.Node) {
		copy(c.Node[:], b)
		b = b[len(c.Node):]
		incarnation, n := binary.Uvarint(b)
		if n > 0 {
			var m int
			c.Incarnation = Incarnation(incarnation)
			if c.Position, m = binary.Uvarint(b[n:]); m > 0 && n+m == len(b) && uint64(c.Incarnation) == incarnation && c.String() == s {
				return c, nil
			}
		}
	}
	return Cursor{}, fmt.Errorf("%w: %q is no cursor; take one from a notification", ErrUsage, s)
}

// Since is where in the past a registration begins. At most one of its fields
// is set; none: with what happens from now on.
type Since struct {
	Cursor Cursor
	Time   time.Time
	// Sequence is the last number that is not wanted. It takes a registration
	// for one event of one node, and counts within that node's present incarnation.
	Sequence    uint64
	HasSequence bool
}

// IsZero tells whether it begins now.
func (s Since) IsZero() bool { return s.Cursor.IsZero() && s.Time.IsZero() && !s.HasSequence }
