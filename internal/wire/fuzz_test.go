package wire

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// FuzzOpen feeds bytes to an endpoint in two ways: as a datagram off the
// network, which changes nothing, and as the sealed body of a member, after
// the key.
func FuzzOpen(f *testing.F) {
	a, b := pair(f)
	for _, d := range [][]byte{
		seal(f, a, start, 2, 1), sealLong(f, a, 2, 1), seal(f, node(f, 1, 6, 0xa2), start, 2, 1),
		seal(f, node(f, 3, 1, 0xc1), start, 2, 1),
	} {
		clear(d[len(d)-tagSize:]) // with a tag that is a few bits away, the search would find the genuine one
		f.Add(d)
	}
	for _, body := range bodies() {
		data, err := AppendBody(nil, body.body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{formAnnounce << 4, b.tag, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := pair(t) // anew, so that an input does the same each time
		before := stateOf(b)
		if got, reason := b.Open(start, data, nil); reason == Accepted || got != (Opened{}) {
			t.Fatalf("%v: %+v", reason, got)
		}
		if after := stateOf(b); after != before {
			t.Fatalf("unauthenticated input changed the state (-before +after):\n%s", cmp.Diff(before, after))
		}
		if wants := b.Wants(); len(wants) != 0 {
			t.Fatalf("unauthenticated input makes this node send to %v", wants)
		}
		if len(data) > maxBody {
			return
		}
		got, reason := b.Open(start, sealRaw(t, a, b, data), nil)
		want, err := DecodeBody(data)
		if (reason == Accepted) != (err == nil) {
			t.Fatalf("%v, and the body alone: %v", reason, err)
		}
		if reason == Accepted {
			if diff := cmp.Diff(want, got.Body); diff != "" || !got.Proven || got.From != a.self {
				t.Fatalf("from %v, proven %v (-want +got):\n%s", got.From, got.Proven, diff)
			}
		}
	})
}

// modelWindow is a window as the words say it.
type modelWindow struct {
	accepted map[uint32]bool
	highest  uint32
}

func (m *modelWindow) take(counter uint32) bool {
	if counter == 0 || m.accepted[counter] || uint64(counter)+windowSize <= uint64(m.highest) {
		return false
	}
	m.accepted[counter], m.highest = true, max(m.highest, counter)
	return true
}

// FuzzReplayWindow holds the window against the model. Each 2 bytes are a
// counter relative to the highest one; 0x7fff is a jump across the range.
func FuzzReplayWindow(f *testing.F) {
	f.Add([]byte{1, 0, 1, 0, 0, 0, 0xff, 0xff})
	f.Add([]byte{0x00, 0x04, 0x01, 0xfc, 0x00, 0xfc, 0xff, 0x03, 0x01, 0xfc, 0x02, 0xfc})
	f.Add([]byte{0, 0, 0, 0})                               // counter 0
	f.Add([]byte{0, 8, 0xff, 0xfb, 0x00, 0xfc, 0x01, 0xfc}) // 2048, then 1025, 1024 and 1023 behind it
	f.Add([]byte{0xff, 0x7f, 0x10, 0x00, 0xf0, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, data []byte) {
		var w window
		m := modelWindow{accepted: map[uint32]bool{}}
		for ; len(data) >= 2; data = data[2:] {
			step := int64(int16(binary.LittleEndian.Uint16(data)))
			if step == 0x7fff {
				step = 1 << 30
			}
			counter := uint32(min(max(int64(m.highest)+step, 0), max32))
			want := m.take(counter)
			got := w.fresh(counter)
			if got {
				w.mark(counter)
			}
			if got != want {
				t.Fatalf("counter %d after highest %d: fresh %v, want %v", counter, m.highest, got, want)
			}
			if w.highest != m.highest {
				t.Fatalf("highest %d, want %d", w.highest, m.highest)
			}
		}
		if full := w.expand(w.highest & max24); w.highest != 0 && full != w.highest {
			t.Fatalf("highest %#x is restored as %#x", w.highest, full)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	sender, receiver := pair(b)
	heartbeat, buffer := &Heartbeat{Echo: true, EchoOf: 1, Hold: 1}, make([]byte, 0, MaxSize)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sender.Seal(start, buffer, receiver.self, heartbeat); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	sender, receiver := pair(b)
	d := seal(b, sender, start, 2, 1)
	session := receiver.peers[sender.self].present
	b.ReportAllocs()
	for b.Loop() {
		session.short = window{}
		if _, reason := receiver.Open(start, d, nil); reason != Accepted {
			b.Fatal(reason)
		}
	}
}

func BenchmarkReject(b *testing.B) {
	sender, receiver := pair(b)
	forge := func(d []byte, at int) []byte {
		d = append(d, make([]byte, 200-len(d))...)
		d[at] ^= 1
		return d
	}
	newBoot := seal(b, node(b, 1, 6, 0xa2), start, 2, 1)
	for _, bench := range []struct {
		name string
		d    []byte
		want Reason
	}{
		{"unknown-sender", forge(seal(b, sender, start, 2, 1), 3), RejectSender},
		{"short", forge(seal(b, sender, start, 2, 1), 20), RejectOpen},
		{"long", forge(sealLong(b, sender, 2, 1), 30), RejectOpen},
		{"long-unknown-boot", forge(newBoot, 30), RejectOpen},
	} {
		b.Run(bench.name, func(b *testing.B) {
			source := func(belfry.NodeID) Reason { return Accepted }
			b.ReportAllocs()
			for b.Loop() {
				if _, reason := receiver.Open(start, bench.d, source); reason != bench.want {
					b.Fatal(reason)
				}
			}
		})
	}
}
