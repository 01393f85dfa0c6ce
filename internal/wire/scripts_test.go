package wire

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// TestScripts plays testdata/scripts/*.txt: blocks of one command, a line
// "----", and what it prints. `go test ./internal/wire -run Scripts -update`
// rewrites the output; read the difference before committing it.
//
//	start a 5 a1       node a starts: incarnation 5, boot a1. its member table is a, b, c, d (numbers 1 to 4)
//	members abc        every running node gets this member table
//	send a b           a seals a heartbeat and b opens it
//	seal a b NAME      a seals one, it is kept as NAME
//	open b NAME        b opens what was kept, as often as it is asked
//	wants b            to whom b should show its boot
//	run 60s            time passes
//	reboot a a2        a draws a new boot
//	learn a 8          a takes the secret of epoch 8
//	rotate a 8 60s     a sends under epoch 8, the one before stays open for 60 s
//	know a b           which boots a knows of b
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := string(script)
			got := play(t, want)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// A stage is what a script plays on.
type stage struct {
	t     *testing.T
	now   time.Time
	nodes map[string]*Endpoint
	kept  map[string][]byte
	seq   uint16
}

// play runs the commands of a script and returns it with the output as it is.
func play(t *testing.T, script string) string {
	t.Helper()
	s := &stage{t: t, now: start, nodes: map[string]*Endpoint{}, kept: map[string][]byte{}}
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimSpace(script), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		for line := range strings.Lines(block + "\n") {
			line = strings.TrimSuffix(line, "\n")
			if line == "----" {
				break
			}
			out.WriteString(line + "\n")
			if !strings.HasPrefix(line, "#") {
				out.WriteString("----\n" + s.command(strings.Fields(line)))
			}
		}
	}
	return out.String()
}

func (s *stage) command(f []string) string {
	s.t.Helper()
	switch f[0] {
	case "start":
		return s.start(f[1], s.number(f[2], 10), s.number(f[3], 16))
	case "members":
		var table []Member
		for _, n := range []byte(f[1]) {
			table = append(table, Member{ID: nodeOf(n - 'a' + 1), Number: belfry.NodeNumber(n - 'a' + 1)})
		}
		for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
			s.must(s.nodes[name].SetMembers(table))
		}
		return ""
	case "send":
		d, text := s.seal(f[1], f[2])
		return text + s.open(f[2], d)
	case "seal":
		d, text := s.seal(f[1], f[2])
		s.kept[f[3]] = d
		return text
	case "open":
		return s.open(f[1], s.kept[f[2]])
	case "wants":
		var names []string
		for _, id := range s.nodes[f[1]].Wants() {
			names = append(names, nameOf(id))
		}
		if names == nil {
			names = []string{"nobody"}
		}
		return fmt.Sprintf("%s shows its boot to %s\n", f[1], strings.Join(names, " "))
	case "run":
		d, err := time.ParseDuration(f[1])
		s.must(err)
		s.now = s.now.Add(d)
		return ""
	case "reboot":
		return failure(s.nodes[f[1]].Reboot(belfry.Boot(s.number(f[2], 16))))
	case "learn":
		epoch := s.number(f[2], 10)
		return failure(s.nodes[f[1]].Learn(epoch, secretOf(epoch)))
	case "rotate":
		grace, err := time.ParseDuration(f[3])
		s.must(err)
		return failure(s.nodes[f[1]].Rotate(s.now, s.number(f[2], 10), grace))
	case "know":
		return s.know(f[1], f[2])
	}
	s.t.Fatalf("unknown command %q", f)
	return ""
}

func (s *stage) start(name string, incarnation, boot uint32) string {
	s.nodes[name] = nodeAt(s.t, s.now, name[0]-'a'+1, belfry.Incarnation(incarnation), belfry.Boot(boot))
	return ""
}

func (s *stage) seal(from, to string) ([]byte, string) {
	s.seq++
	d, err := s.nodes[from].Seal(s.now, nil, nodeOf(to[0]-'a'+1), &Heartbeat{Seq: s.seq})
	if err != nil {
		return nil, failure(err)
	}
	h, _ := parseHeader(d, d[1])
	if h.form == formShort {
		return d, fmt.Sprintf("short, epoch %d, counter %d\n", h.epoch, h.counter)
	}
	return d, fmt.Sprintf("long, epoch %d, counter %d, boot %x, shows %x\n", h.epoch, h.counter, uint32(h.boot), uint32(h.peerBoot))
}

func (s *stage) open(at string, d []byte) string {
	if d == nil {
		return ""
	}
	got, reason := s.nodes[at].Open(s.now, d, nil)
	switch {
	case reason == RejectDuplicate:
		return fmt.Sprintf("dropped: %v of %s\n", reason, nameOf(got.From))
	case reason != Accepted:
		return fmt.Sprintf("dropped: %v\n", reason)
	case got.Proven:
		return fmt.Sprintf("accepted from %s, incarnation %d, boot %x, proven\n", nameOf(got.From), got.Incarnation, uint32(got.Boot))
	}
	return fmt.Sprintf("accepted from %s, incarnation %d, boot %x\n", nameOf(got.From), got.Incarnation, uint32(got.Boot))
}

func (s *stage) know(at, of string) string {
	p := s.nodes[at].peers[nodeOf(of[0]-'a'+1)]
	var b bytes.Buffer
	for _, known := range []struct {
		what string
		s    *session
	}{{"present", p.present}, {"candidate", p.candidate}, {"previous", p.previous}} {
		if known.s != nil {
			fmt.Fprintf(&b, "%s: incarnation %d, boot %x\n", known.what, known.s.incarnation, uint32(known.s.boot))
		}
	}
	return b.String()
}

func (s *stage) number(text string, base int) uint32 {
	s.t.Helper()
	n, err := strconv.ParseUint(text, base, 32)
	s.must(err)
	return uint32(n)
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func nameOf(id belfry.NodeID) string { return string('a' + id[0] - 1) }

func failure(err error) string {
	if err == nil {
		return ""
	}
	return err.Error() + "\n"
}
