package wire

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

func TestViewsOfOtherLinksAreOfLinksThatCanBe(t *testing.T) {
	t.Parallel()
	h := &Heartbeat{Seq: 7, NumOthers: 2, Others: [3]belfry.LinkView{{Link: 1, State: belfry.LinkUp}, {Link: 2, State: belfry.LinkOneWayIn, Loss: 9}}}
	data, err := AppendBody(nil, h)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"a state that there is not": func(b []byte) []byte { b[heartbeatSize+2] |= 0xf0; return b },
		"half a view":               func(b []byte) []byte { b[heartbeatSize+1] = 3; return b[:len(b)-1] },
		"more than a pair has":      func(b []byte) []byte { b[heartbeatSize+1] = 8; return append(b, 1, 1, 1, 1) },
		"twice":                     func(b []byte) []byte { return append(b, sectionLinks, 0) },
	} {
		if got, err := DecodeBody(change(bytes.Clone(data))); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
	for name, wrong := range map[string]*Heartbeat{
		"too many":                  {NumOthers: 4},
		"a link that there is not":  {NumOthers: 1, Others: [3]belfry.LinkView{{Link: 16}}},
		"a state that there is not": {NumOthers: 1, Others: [3]belfry.LinkView{{State: belfry.LinkFlapping + 1}}},
	} {
		if _, err := AppendBody(nil, wrong); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestOneWayLinksAreWholeAndOnce(t *testing.T) {
	t.Parallel()
	data, err := AppendBody(nil, &Heartbeat{Seq: 7, OneWays: make([]belfry.OneWay, 2)})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"half an entry": func(b []byte) []byte { b[heartbeatSize+1] = 12; return b[:len(b)-4] },
		"twice":         func(b []byte) []byte { return append(b, sectionOneWays, 0) },
	} {
		if got, err := DecodeBody(change(bytes.Clone(data))); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
	if _, err := AppendBody(nil, &Heartbeat{OneWays: make([]belfry.OneWay, MaxOneWays+1)}); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("one more than fits: %v, want %v", err, belfry.ErrLimit)
	}
}

// What a later version may add is skipped.
func TestUnknownSectionsAreSkipped(t *testing.T) {
	t.Parallel()
	data, err := AppendBody(nil, &Heartbeat{Seq: 7, ExactPause: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	pause := data[heartbeatSize:]
	later := append([]byte{}, data[:heartbeatSize]...)
	later = append(later, 9, 3, 'x', 'y', 'z', 9, 0)
	later = append(later, pause...)
	got, err := DecodeBody(later)
	if diff := cmp.Diff(Body(&Heartbeat{Seq: 7, ExactPause: time.Second}), got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
