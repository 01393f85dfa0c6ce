package user_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
	"github.com/belfry-ha/belfry/internal/producer/user"
)

func TestAnEventOfAUserIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, class, subject string
		data, repeat         int
		want                 error
		text                 string
	}{
		{"the least", "user.a", "", 0, 0, nil, ""},
		{"words and dots", "user.build.web-2", "job: 7/é", 0, 1, nil, ""},
		{"the greatest", "user." + strings.Repeat("n", 123), strings.Repeat("s", 4096), 4096, 1_000_000_000, nil, ""},
		{"another noun", "process.exit", "pid=1", 0, 1, belfry.ErrUsage, `class "process.exit" is not for users; write user.NAME`},
		{"no name", "user.", "", 0, 1, belfry.ErrUsage, "user.NAME is words"},
		{"a pattern", "user.*", "", 0, 1, belfry.ErrUsage, "user.NAME is words"},
		{"an empty word", "user.a..b", "", 0, 1, belfry.ErrUsage, "user.NAME is words"},
		{"a capital", "user.Build", "", 0, 1, belfry.ErrUsage, "user.NAME is words"},
		{"a long class", "user." + strings.Repeat("n", 124), "", 0, 1, belfry.ErrLimit, "at most 128"},
		{"a long subject", "user.a", strings.Repeat("s", 4097), 0, 1, belfry.ErrLimit, "4097 bytes; at most 4096"},
		{"a line feed", "user.a", "a\nb", 0, 1, belfry.ErrUsage, "control character at byte 1"},
		{"no UTF-8", "user.a", "\xff", 0, 1, belfry.ErrUsage, "not UTF-8"},
		{"much data", "user.a", "", 4097, 1, belfry.ErrLimit, "data has 4097 bytes"},
		{"many", "user.a", "", 0, 1_000_000_001, belfry.ErrLimit, "repeat 1000000001"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := user.Validate(belfry.Class(test.class), test.subject, make([]byte, test.data), uint64(test.repeat))
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %q does not say %q", err, test.text)
			}
		})
	}
}

func FuzzValidateLetsOnlyWellFormedEventsThrough(f *testing.F) {
	f.Add("user.build", "web")
	f.Add("user..", "\x00")
	f.Add("users.a", "\xc3")
	f.Fuzz(func(t *testing.T, class, subject string) {
		if user.Validate(belfry.Class(class), subject, nil, 1) != nil {
			return
		}
		if !strings.HasPrefix(class, "user.") || strings.ContainsAny(class, "*:/ ") || strings.HasSuffix(class, ".") {
			t.Errorf("class %q was let through", class)
		}
		if !utf8.ValidString(subject) || strings.ContainsFunc(subject, unicode.IsControl) || len(subject) > 4096 {
			t.Errorf("subject %q was let through", subject)
		}
	})
}

func TestAnEventIsThereAsSoonAsSomebodyAsks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := producertest.Start(t, user.New())
		d.Watch(event.Watch{Class: "user.build", Subject: "*", Entry: producertest.NoEntry})
		d.Quiet(time.Second)
		w := d.Watch(event.Watch{Class: "user.build", Subject: "web"})
		if got, want := producertest.NextOf[event.Associate](d), (event.Associate{Entry: w.Entry}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		d.Unwatch(w.ID)
		d.Quiet(time.Second)
	})
}
