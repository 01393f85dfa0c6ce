package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// bodies are one of each kind, every field with a value of its own.
func bodies() []struct {
	name string
	body Body
} {
	claims := []belfry.Claim{
		{
			Subject: 0x0102, Incarnation: 0x03040506, Turn: 0x0708, Verdict: belfry.VerdictDown, Cause: belfry.CauseSilent,
			Observers: 9, Age: 25700 * time.Millisecond, Origin: 0x0c0d,
		},
		{Subject: 2, Incarnation: 1, Turn: 1, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect, Observers: 1, Origin: 1},
	}
	heartbeat := Heartbeat{
		Link: 3, LinkState: belfry.LinkUp, Seq: 0x0203, SentAt: 0x040506, Announced: 0x0708 * time.Millisecond, Loss: 9,
		View: 0x101112, Health: 3, Pause: 14,
		Fresh: belfry.Freshness{Subject: 0x1415, Verdict: belfry.VerdictStalled, Age: 0x161 * 10 * time.Millisecond},
	}
	echo := heartbeat
	echo.Echo, echo.EchoOf, echo.Hold = true, 0x0a0b0c, 0x0d0e0f*4*time.Microsecond
	probe, answer, sections, links := heartbeat, echo, echo, heartbeat
	probe.Probe = true
	answer.Answer = true
	sections.Claims, sections.ExactPause = claims, 0x01020304*time.Millisecond
	links.NumOthers, links.Others[0] = 1, belfry.LinkView{Link: 4, State: belfry.LinkOneWayIn, Loss: 5}
	links.OneWays = []belfry.OneWay{
		{Hearer: 0x0102, Heard: 0x0304, Links: 0x0506, Age: 0x0708 * 10 * time.Millisecond},
		{Hearer: 1, Heard: 2, Links: 1},
	}
	return []struct {
		name string
		body Body
	}{
		{"heartbeat", &heartbeat},
		{"heartbeat.echo", &echo},
		{"heartbeat.probe", &probe},
		{"heartbeat.answer", &answer},
		{"heartbeat.sections", &sections},
		{"heartbeat.links", &links},
		{"relay-ask", &RelayAsk{Link: 1, LinkState: belfry.LinkOneWayIn, Seq: 0x0203, Subject: 0x0405, Burst: 0x0607}},
		{"relay-result", &RelayResult{
			Link: 1, LinkState: belfry.LinkDegraded, Seq: 0x0203, Subject: 0x0405, Burst: 0x0607,
			Unanswered: 8, Loss: 9, HeardAgo: 0x0a0b * time.Millisecond, KernelAnswers: true,
		}},
		{"claims", &Claims{Link: 15, LinkState: belfry.LinkFlapping, Seq: 0x0203, Claims: claims}},
		{"notice", &Notice{Link: 15, LinkState: belfry.LinkInit, Seq: 0x0203, Data: []byte("opaque")}},
		{"view", &View{Link: 15, LinkState: belfry.LinkInit, Seq: 0x0203, First: 0x0405, Buckets: []uint32{0x060708, 0x090a0b}}},
	}
}

// TestGoldenBytes holds the format: what is in testdata/golden.txt was sent by
// some release, and must be read and written like that by all later ones.
func TestGoldenBytes(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, b := range bodies() {
		data, err := AppendBody(nil, b.body)
		if err != nil {
			t.Fatalf("%s: %v", b.name, err)
		}
		fmt.Fprintf(&got, "%s %x\n", b.name, data)
	}
	a, b := node(t, 1, 0x01020305, 0xa1a2a3a4), node(t, 2, 0x01020306, 0xb1b2b3b4)
	for i, name := range []string{"datagram.long.first", "datagram.long.shows", "datagram.short"} {
		d := seal(t, a, start, 2, uint16(i))
		if i == 1 {
			if _, reason := b.Open(start, d, nil); reason != Accepted {
				t.Fatalf("%s: %v", name, reason)
			}
			back := seal(t, b, start, 1, 1)
			fmt.Fprintf(&got, "%s %x\n", name, back)
			if _, reason := a.Open(start, back, nil); reason != Accepted {
				t.Fatalf("%s: %v", name, reason)
			}
			continue
		}
		fmt.Fprintf(&got, "%s %x\n", name, d)
	}
	const file = "testdata/golden.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestGoldenBytesAreRead(t *testing.T) {
	t.Parallel()
	golden, err := os.ReadFile("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Body{}
	for _, b := range bodies() {
		want[b.name] = b.body
	}
	for line := range strings.Lines(string(golden)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, "datagram.") {
			continue
		}
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeBody(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestBodyIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawBody(t)
		data, err := AppendBody([]byte("before"), want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(data, []byte("before")) || len(data)-6 > maxBody {
			t.Fatalf("%d bytes: %x", len(data), data)
		}
		got, err := DecodeBody(data[6:])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// Durations take the steps of their field: deadlines and pauses up, ages and
// holds down, and what is out of range the nearest value in it.
func TestDurationsTakeTheStepsOfTheirField(t *testing.T) {
	t.Parallel()
	const ns, us, ms, s = time.Nanosecond, time.Microsecond, time.Millisecond, time.Second
	heartbeat := func(set func(*Heartbeat, time.Duration), get func(*Heartbeat) time.Duration) func(time.Duration) time.Duration {
		return func(d time.Duration) time.Duration {
			h := &Heartbeat{Echo: true, Claims: []belfry.Claim{{}}}
			set(h, d)
			return get(again(t, h).(*Heartbeat))
		}
	}
	announced := heartbeat(func(h *Heartbeat, d time.Duration) { h.Announced = d }, func(h *Heartbeat) time.Duration { return h.Announced })
	hold := heartbeat(func(h *Heartbeat, d time.Duration) { h.Hold = d }, func(h *Heartbeat) time.Duration { return h.Hold })
	fresh := heartbeat(func(h *Heartbeat, d time.Duration) { h.Fresh.Age = d }, func(h *Heartbeat) time.Duration { return h.Fresh.Age })
	claim := heartbeat(func(h *Heartbeat, d time.Duration) { h.Claims[0].Age = d }, func(h *Heartbeat) time.Duration { return h.Claims[0].Age })
	pause := heartbeat(func(h *Heartbeat, d time.Duration) { h.ExactPause = d }, func(h *Heartbeat) time.Duration { return h.ExactPause })
	heard := func(d time.Duration) time.Duration {
		return again(t, &RelayResult{HeardAgo: d}).(*RelayResult).HeardAgo
	}
	for _, test := range []struct {
		name      string
		send      func(time.Duration) time.Duration
		sent, got time.Duration
	}{
		{"announced", announced, 1 * ns, 1 * ms},
		{"announced", announced, 1 * ms, 1 * ms},
		{"announced", announced, -1 * s, 0},
		{"announced", announced, 65535*ms - 1, 65535 * ms},
		{"announced", announced, 66 * s, 65535 * ms},
		{"hold", hold, 7 * us, 4 * us},
		{"hold", hold, 60 * s, 60 * s},
		{"hold", hold, -1, 0},
		{"fresh", fresh, 19 * ms, 10 * ms},
		{"fresh", fresh, 41 * s, 40950 * ms},
		{"claim", claim, 19 * ms, 10 * ms},
		{"claim", claim, 1<<63 - 1, 655350 * ms},
		{"pause", pause, 1 * ns, 1 * ms},
		{"pause", pause, -1, 0},
		{"pause", pause, 1<<63 - 1, max32 * ms},
		{"heard ago", heard, 1999 * us, 1 * ms},
		{"heard ago", heard, 1<<63 - 1, 65535 * ms},
	} {
		if got := test.send(test.sent); got != test.got {
			t.Errorf("%s of %v arrives as %v, want %v", test.name, test.sent, got, test.got)
		}
	}
}

func TestEchoOlderThan60SecondsIsLeftOut(t *testing.T) {
	t.Parallel()
	got := again(t, &Heartbeat{Echo: true, EchoOf: 5, Hold: time.Minute + clockUnit})
	if diff := cmp.Diff(&Heartbeat{}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The same from a sender that does not keep the rule.
	data, err := AppendBody(nil, &Heartbeat{Echo: true, EchoOf: 5})
	if err != nil {
		t.Fatal(err)
	}
	copy(data[13:], []byte{0xff, 0xff, 0xff})
	if got, err := DecodeBody(data); err != nil || got.(*Heartbeat).Echo {
		t.Errorf("hold of 67 s: %+v, %v; want no echo", got, err)
	}
}

func again(t *testing.T, b Body) Body {
	t.Helper()
	data, err := AppendBody(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeBody(data)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestBodiesOutOfRangeAreNotWritten(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		body Body
		is   error
		want string
	}{
		{&Heartbeat{Link: 16}, belfry.ErrUsage, "link index 16; at most 15"},
		{&Heartbeat{LinkState: belfry.LinkFlapping + 1}, belfry.ErrUsage, "link state 10; at most 9"},
		{&Heartbeat{SentAt: 1 << 24}, belfry.ErrUsage, "send clock 16777216; at most 16777215"},
		{&Heartbeat{Echo: true, EchoOf: 1 << 24}, belfry.ErrUsage, "echo 16777216; at most 16777215"},
		{&Heartbeat{View: 1 << 24}, belfry.ErrUsage, "view hash 16777216; at most 16777215"},
		{&Heartbeat{Health: 9}, belfry.ErrUsage, "health score 9; at most 8"},
		{&Heartbeat{Pause: 16}, belfry.ErrUsage, "pause 16; at most 15"},
		{&Heartbeat{Fresh: belfry.Freshness{Verdict: 6}}, belfry.ErrUsage, "verdict 6; at most 5"},
		{&Heartbeat{Claims: make([]belfry.Claim, 19)}, belfry.ErrLimit, "19 claims; at most 18"},
		{&Claims{Claims: make([]belfry.Claim, 83)}, belfry.ErrLimit, "83 claims; at most 82"},
		{&Claims{}, belfry.ErrUsage, "no claims; 1 to 82"},
		{&Claims{Link: 16, Claims: make([]belfry.Claim, 1)}, belfry.ErrUsage, "link index"},
		{&Claims{Claims: []belfry.Claim{{Verdict: 6}}}, belfry.ErrUsage, "verdict 6; at most 5"},
		{&Claims{Claims: []belfry.Claim{{Cause: 11}}}, belfry.ErrUsage, "cause 11; at most 10"},
		{&RelayAsk{Link: 16}, belfry.ErrUsage, "link index"},
		{&RelayResult{Link: 16}, belfry.ErrUsage, "link index"},
		{&Notice{Link: 16, Data: []byte{1}}, belfry.ErrUsage, "link index"},
		{&Notice{}, belfry.ErrUsage, "notice without bytes"},
		{&Notice{Data: make([]byte, MaxNotice+1)}, belfry.ErrLimit, "notice of 1161 bytes; at most 1160"},
		{nil, belfry.ErrUsage, "body of type <nil>"},
	} {
		got, err := AppendBody([]byte("before"), test.body)
		if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) || string(got) != "before" {
			t.Errorf("%+v: %q, %v; want %q", test.body, got, err, test.want)
		}
	}
}

func TestMalformedBodiesAreRefused(t *testing.T) {
	t.Parallel()
	encoded := map[string]string{}
	for _, b := range bodies() {
		data, err := AppendBody(nil, b.body)
		if err != nil {
			t.Fatal(err)
		}
		encoded[b.name] = string(data)
	}
	set := func(name string, at int, b byte) string {
		data := []byte(encoded[name])
		data[at] = b
		return string(data)
	}
	more := set("heartbeat", 0, kindHeartbeat|flagMore)
	for _, test := range []struct {
		name, data string
		is         error
		want       string
	}{
		{"empty", "", belfry.ErrUsage, "body of 0 bytes"},
		{"three bytes", "\x01\x00\x00", belfry.ErrUsage, "body of 3 bytes"},
		{"kind 0", "\x00\x00\x00\x00", belfry.ErrUnsupported, "body of kind 0; 1 to 6"},
		{"kind 7", "\x07\x00\x00\x00", belfry.ErrUnsupported, "body of kind 7; 1 to 6"},
		{"unknown link state", set("relay-ask", 1, 0xa0), belfry.ErrUsage, "link state 10"},
		{"short heartbeat", encoded["heartbeat"][:23], belfry.ErrUsage, "heartbeat of 23 bytes"},
		{"heartbeat with a tail", encoded["heartbeat"] + "\x09\x00", belfry.ErrUsage, "heartbeat without sections of 26 bytes"},
		{"health score", set("heartbeat", 19, 9), belfry.ErrUsage, "health score 9"},
		{"unknown verdict of a third node", set("heartbeat", 22, 6), belfry.ErrUsage, "verdict 6"},
		{"half a section head", more + "\x09", belfry.ErrUsage, "section is cut off"},
		{"half a section", more + "\x09\x02x", belfry.ErrUsage, "section is cut off"},
		{"section of half a claim", more + "\x01\x07abcdefg", belfry.ErrUsage, "section of claims of 7 bytes"},
		{"section of a short pause", more + "\x02\x03abc", belfry.ErrUsage, "exact pause of 3 bytes"},
		{"two pauses", more + "\x02\x04abcd\x02\x04abcd", belfry.ErrUsage, "section 2 comes twice"},
		{"claims twice", more + "\x01\x00\x01\x00", belfry.ErrUsage, "section 1 comes twice"},
		{"short relay ask", encoded["relay-ask"][:7], belfry.ErrUsage, "relay ask of 7 bytes"},
		{"long relay ask", encoded["relay-ask"] + "x", belfry.ErrUsage, "relay ask of 9 bytes"},
		{"short relay result", encoded["relay-result"][:12], belfry.ErrUsage, "relay result of 12 bytes"},
		{"long relay result", encoded["relay-result"] + "x", belfry.ErrUsage, "relay result of 14 bytes"},
		{"claims without count", encoded["claims"][:4], belfry.ErrUsage, "do not fit their count"},
		{"no claims", "\x04\x00\x00\x00\x00", belfry.ErrUsage, "do not fit their count"},
		{"fewer claims than counted", encoded["claims"][:5+14], belfry.ErrUsage, "do not fit their count"},
		{"more claims than counted", encoded["claims"] + "x", belfry.ErrUsage, "do not fit their count"},
		{"too many claims", "\x04\x00\x00\x00\x53" + strings.Repeat("\x00", 83*14), belfry.ErrUsage, "do not fit their count"},
		{"unknown verdict", set("claims", 5+8, 6), belfry.ErrUsage, "verdict 6"},
		{"unknown cause", set("claims", 5+8, 0xb0), belfry.ErrUsage, "cause 11"},
		{"view without hashes", encoded["view"][:6], belfry.ErrUsage, "view of 6 bytes"},
		{"view of half a hash", encoded["view"] + "x", belfry.ErrUsage, "view of 13 bytes"},
		{"view of too many hashes", encoded["view"] + strings.Repeat("xyz", 385), belfry.ErrUsage, "view of 1167 bytes"},
		{"empty notice", encoded["notice"][:4], belfry.ErrUsage, "notice of 0 bytes"},
	} {
		got, err := DecodeBody([]byte(test.data))
		if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) || got != nil {
			t.Errorf("%s: %+v, %v; want an error with %q", test.name, got, err, test.want)
		}
	}
}

func FuzzBody(f *testing.F) {
	for _, b := range bodies() {
		data, err := AppendBody(nil, b.body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-1])
	}
	f.Add([]byte("\x41\x00\x00\x00" + strings.Repeat("\x00", 20) + "\x01\x0e" + strings.Repeat("\xff", 14)))
	f.Add([]byte("\x41\x00\x00\x00" + strings.Repeat("\x00", 20) + "\x09\x03xyz\x02\x04\x01\x00\x00\x00\x09\x00")) // sections to skip
	f.Fuzz(func(t *testing.T, data []byte) {
		kept := bytes.Clone(data)
		var b Body
		var err error
		most := mostAllocated(data)
		if n := allocated(most, func() { b, err = DecodeBody(data) }); n > most {
			t.Fatalf("%d bytes of input allocate %d bytes; at most %d", len(data), n, most)
		}
		if !bytes.Equal(kept, data) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		encoded, err := AppendBody(nil, b)
		if err != nil {
			t.Fatalf("%+v was read and can not be written: %v", b, err)
		}
		if len(encoded) > len(data) {
			t.Fatalf("%d bytes were read, %d written", len(data), len(encoded))
		}
		clear(data) // the body must not share it
		again, err := DecodeBody(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, again); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
	})
}

// mostAllocated is 4 times the datagram that the body comes in, and room for
// the words of an error.
func mostAllocated(body []byte) uint64 { return 4*uint64(len(body)+shortSize+tagSize) + 256 }

// allocated is how many bytes f allocates. What else runs in the process
// counts too, so a result over the limit is looked at again.
func allocated(limit uint64, f func()) (least uint64) {
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; least == 0 || n < least {
			least = n
		}
		if least <= limit {
			break
		}
	}
	return least
}

// At most 4 times the input is allocated. Not parallel: it reads the counters
// of the whole process.
func TestDecodingAllocatesInProportion(t *testing.T) {
	largest := []Body{
		&Heartbeat{Claims: make([]belfry.Claim, MaxHeartbeatClaims)},
		&Claims{Claims: make([]belfry.Claim, MaxClaims)},
		&Notice{Data: make([]byte, MaxNotice)},
	}
	for _, b := range bodies() {
		largest = append(largest, b.body)
	}
	for _, b := range largest {
		data, err := AppendBody(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		const rounds = 1000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			if _, err := DecodeBody(data); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		perBody := int(after.TotalAlloc-before.TotalAlloc) / rounds
		if most := 4*(len(data)+shortSize+tagSize) + 16; perBody > most {
			t.Errorf("%T of %d bytes allocates %d bytes; at most %d", b, len(data), perBody, most)
		}
	}
}
