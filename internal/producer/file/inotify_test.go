package file

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func record(wd int32, mask uint32, name string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(wd))
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(name)))
	return append(b, name...)
}

func TestRecordsAreTakenApart(t *testing.T) {
	t.Parallel()
	b := append(record(1, 2, "name\x00\x00\x00\x00"), record(-1, 0x4000, "")...)
	got, err := parse(b)
	want := []rawEvent{{1, 2, "name"}, {-1, 0x4000, ""}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(rawEvent{})); diff != "" || err != nil {
		t.Errorf("records (-want +got), error %v:\n%s", err, diff)
	}
	for n := 1; n < len(b); n++ {
		if _, err := parse(b[:n]); err == nil && n != 24 {
			t.Errorf("the first %d bytes are accepted", n)
		}
	}
}

func FuzzParseTakesAnything(f *testing.F) {
	f.Add(record(1, 2, "name\x00\x00\x00"))
	f.Add(append(record(1, 2, ""), 1, 2, 3))
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := parse(b)
		size := 0
		for _, e := range events {
			size += headerSize + len(e.name)
		}
		if size > len(b) || err == nil && len(b) > 0 && len(events) == 0 {
			t.Errorf("%x gives %d events of %d bytes, error %v", b, len(events), size, err)
		}
	})
}
