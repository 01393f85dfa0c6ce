package belfry

import (
	"errors"
	"testing"
	"time"
)

func TestCursorIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, c := range []Cursor{
		{Node: NodeID{1, 2}, Incarnation: 1, Position: 1},
		{Node: NodeID{15: 9}, Incarnation: 1<<32 - 1, Position: 1<<64 - 1},
		{Node: NodeID{1}},
	} {
		got, err := ParseCursor(c.String())
		if err != nil || got != c {
			t.Errorf("%+v became %+v, %v", c, got, err)
		}
	}
	if text := (Cursor{}).String(); text != "" {
		t.Errorf("the zero cursor is %q, want nothing", text)
	}
}

func TestWhatIsNoCursorIsRefused(t *testing.T) {
	t.Parallel()
	whole := Cursor{Node: NodeID{1}, Incarnation: 300, Position: 300}.String()
	for _, text := range []string{"", "yesterday", "1h", whole[:len(whole)-2], whole + "AA", whole + "=", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		if c, err := ParseCursor(text); !errors.Is(err, ErrUsage) {
			t.Errorf("%q is %+v, %v; want ErrUsage", text, c, err)
		}
	}
}

func TestSinceIsZeroWithoutAnything(t *testing.T) {
	t.Parallel()
	if !(Since{}).IsZero() {
		t.Error("nothing is something")
	}
	for _, s := range []Since{{Time: time.Unix(1, 0)}, {Cursor: Cursor{Position: 1}}, {HasSequence: true}} {
		if s.IsZero() {
			t.Errorf("%+v is nothing", s)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(Cursor{Node: NodeID{1}, Incarnation: 300, Position: 300}.String())
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseCursor(text); err == nil && c.String() != text {
			t.Errorf("%q is read as %+v, which is written %q", text, c, c)
		}
	})
}
