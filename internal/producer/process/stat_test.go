package process

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const line = "17676 (a) b) Z 17675 17665 12295 0 -1 4227148 20 0 0 0 0 0 0 0 20 0 1 0 212344 0 0 18446744073709551615" +
	" 0 0 0 0 0 0 0 0 0 1 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 1792\n"

func TestAStatLineIsReadWhateverTheProgramIsCalled(t *testing.T) {
	t.Parallel()
	got, err := parseStat([]byte(line))
	want := stat{pid: 17676, comm: "a) b", state: 'Z', ppid: 17675, start: 212344, status: 1792}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(stat{})); diff != "" || err != nil {
		t.Errorf("stat (-want +got), error %v:\n%s", err, diff)
	}
	for _, broken := range []string{"", "1 (x", "1 (x) S 1", "x (x) S" + line[14:], strings.Replace(line, "212344", "-1", 1)} {
		if s, err := parseStat([]byte(broken)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", broken, s)
		}
	}
}

func TestAStatusTellsCodeOrSignal(t *testing.T) {
	t.Parallel()
	for status, want := range map[uint32]exit{
		0:           {source: "pidfd"},
		7 << 8:      {source: "pidfd", code: 7},
		255 << 8:    {source: "pidfd", code: 255},
		9:           {source: "pidfd", signal: "KILL"},
		11 | 1<<7:   {source: "pidfd", signal: "SEGV", coreDumped: true},
		6:           {source: "pidfd", signal: "ABRT"},
		34:          {source: "pidfd", signal: "34"},
		15 | 0<<7:   {source: "pidfd", signal: "TERM"},
		0x80 | 3<<0: {source: "pidfd", signal: "QUIT", coreDumped: true},
	} {
		if diff := cmp.Diff(want, decode(status, "pidfd"), cmp.AllowUnexported(exit{})); diff != "" {
			t.Errorf("status %#x (-want +got):\n%s", status, diff)
		}
	}
}

func TestATextIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"abc": "abc", "abcdef": "abcd", "abcé": "abc", "ab\xffd": "ab?d", "éééé": "éé"} {
		if got := limit(text, 4); got != want {
			t.Errorf("limit(%q, 4) = %q, want %q", text, got, want)
		}
	}
}

func FuzzParsersTakeAnything(f *testing.F) {
	f.Add([]byte(line))
	f.Add([]byte("Name:\tsh\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"))
	f.Add([]byte("4711\n"))
	f.Add([]byte("sh\x00-c\x00\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && (s.pid < 0 && !strings.Contains(string(b), "-") || s.state == ' ') {
			t.Errorf("%q gives %+v", b, s)
		}
		parseUIDs(b)
		parseCapabilities(b)
		if n, err := parsePidfile(b); err == nil && (n < 1 || n > maxPID) {
			t.Errorf("%q gives process %d", b, n)
		}
		if got := limit(joinCmdline(b), 64); len(got) > 64 || !utf8.ValidString(got) {
			t.Errorf("%q is cut to %q", b, got)
		}
	})
}

func FuzzASubjectIsReadOrRefused(f *testing.F) {
	for _, s := range []string{"pid=1", "exe=/bin/sh", "cmdline=nginx: master", "pidfile=/run/x.pid", "unit=x", "=", "pid=-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parse(text)
		if err != nil {
			return
		}
		if s.kind == byPID && (s.pid < 1 || s.pid > maxPID) || (s.kind == byExe || s.kind == byPidfile) && s.path[0] != '/' ||
			s.kind == byCmdline && s.matches(text) {
			t.Errorf("%q gives %+v", text, s)
		}
	})
}
