package repository

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

func TestNoticeIsIdentifiersOnly(t *testing.T) { // C1
	t.Parallel()
	n := Notice{Kind: NoticeHeld, Cluster: belfry.ClusterID{1, 2}, Repository: UUID{3, 4}, Epoch: 5, Generation: 0x0607, Digest: Digest{8, 31: 9}}
	data := n.Append(nil)
	want := "03" + "0102" + strings.Repeat("00", 14) + "0304" + strings.Repeat("00", 14) + "0500000000000000" + "0706000000000000" + "08" + strings.Repeat("00", 30) + "09"
	if got := hex.EncodeToString(data); got != want || len(data) != NoticeSize {
		t.Errorf("%d bytes %s, want %s", len(data), got, want)
	}
	again, err := DecodeNotice(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(n, again); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestNoticeOfAnotherFormIsRefused(t *testing.T) {
	t.Parallel()
	data := Notice{Kind: NoticeConfiguration}.Append(nil)
	for _, wrong := range [][]byte{nil, data[:NoticeSize-1], append(data, 0)} {
		if _, err := DecodeNotice(wrong); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%d bytes: %v, want ErrUsage", len(wrong), err)
		}
	}
	for _, kind := range []byte{0, 4, 255} {
		data[0] = kind
		if _, err := DecodeNotice(data); !errors.Is(err, belfry.ErrUnsupported) {
			t.Errorf("kind %d: %v, want ErrUnsupported", kind, err)
		}
	}
}

func FuzzNotice(f *testing.F) {
	f.Add(Notice{Kind: NoticeUnlock, Generation: 7}.Append(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := DecodeNotice(data)
		if err != nil {
			return
		}
		if diff := cmp.Diff(data, n.Append(nil)); diff != "" {
			t.Errorf("written again (-want +got):\n%s", diff)
		}
	})
}
