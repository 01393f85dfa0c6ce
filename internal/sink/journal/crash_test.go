package journal

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/belfry-ha/belfry"
)

// TestKilledAtEveryByteOfACommit: whatever was written of a commit when the
// power went, the commits before it are there, and the log goes on. Segments
// of one commit make the first bytes those of a header, a head and a start.
func TestKilledAtEveryByteOfACommit(t *testing.T) {
	t.Parallel()
	for _, segment := range []int64{1, DefaultSegment} {
		for _, power := range []bool{false, true} {
			for at := 0; ; at++ {
				if killedAt(t, segment, power, at) {
					break
				}
				if t.Failed() {
					t.Fatalf("segment %d, power %v, byte %d", segment, power, at)
				}
			}
		}
	}
}

// killedAt tells whether the commit was over before the byte was reached.
func killedAt(t *testing.T, segment int64, power bool, at int) (over bool) {
	t.Helper()
	r := newRig(t, Options{Segment: segment})
	r.append(r.on("x", 1, 1), r.on("y", 1, 1))
	last := []belfry.Notification{r.on("x", 2, 2), r.on("x", 3, 4), r.on("z", 1, 1)}
	r.fs.left = at
	over = r.Append(last) == nil
	if want := uint64(3); !over && r.Durable() != want {
		t.Errorf("durable %d after a commit that failed, want %d", r.Durable(), want)
	}
	r.troubles = nil
	r.again(r.fs.crash(power))
	if len(r.troubles) > 0 {
		t.Errorf("troubles: %q", r.troubles)
	}
	kept := strings.Count(r.read(Query{From: 3}), " a/1 ") // of the three, from the first on
	switch want := r.read(Query{From: 1, Until: 3}); {
	case want != "2 a/1 x 1-1\n3 a/1 y 1-1":
		t.Errorf("before: %s", want)
	case over && kept != 3, power && !over && kept != 0:
		t.Errorf("%d of the commit are there (over: %v)", kept, over)
	}
	// It goes on where it is, and takes the same commit again.
	if err := r.Append(last); err != nil {
		t.Fatal(err)
	}
	rest := "4 a/1 x 2-2\n5 a/1 x 3-4\n6 a/1 z 1-1"
	lines := strings.Split(rest, "\n")
	boundary := fmt.Sprintf("%d boundary 12:00:00 to 12:00:00 complete false", 4+kept)
	want := append(append(slices.Clone(lines[:kept]), boundary), lines[kept:]...)
	for i := kept + 1; i < len(want); i++ {
		want[i] = fmt.Sprintf("%d%s", i+4, want[i][1:])
	}
	r.expect(Query{From: 3}, strings.Join(want, "\n"))
	return over
}

// TestATornTailIsCutOff: what a crash left behind the last record goes from
// the disk.
func TestATornTailIsCutOff(t *testing.T) {
	t.Parallel()
	for name, tail := range map[string]string{"text": "garbage", "zeros": strings.Repeat("\x00", 70_000), "one byte": "\x01"} {
		r := newRig(t, Options{})
		r.append(r.on("x", 1, 1))
		f := r.fs.files[r.files[0].segmentName()]
		whole := len(f.data)
		f.data = append(f.data, tail...)
		r.again(r.fs.crash(false))
		if got := len(r.fs.files[r.files[0].segmentName()].data); got != whole {
			t.Errorf("%s: %d bytes, want %d", name, got, whole)
		}
		r.expect(Query{}, `2 a/1 x 1-1
			3 boundary 12:00:00 to 12:00:00 complete false`)
	}
}

// TestAFlippedBitAnywhere: each bit of three segments once. Whatever it hits,
// nothing is lost without its number: what was posted of each event is
// delivered or in a gap, and nothing else is.
func TestAFlippedBitAnywhere(t *testing.T) {
	t.Parallel()
	build := func() *rig {
		r := newRig(t, Options{Segment: 400})
		for i := range uint64(3) {
			r.append(r.on("x", i+1, i+1), r.on("y", 2*i+1, 2*i+2))
			r.append(happened(nodeB, "b", 7, "x", i+11, i+11, begin), r.on("x", i+4, i+4)) // x jumps
		}
		return r
	}
	pristine := build()
	if len(pristine.files) < 3 {
		t.Fatalf("%d segments, want several", len(pristine.files))
	}
	newest := pristine.files[len(pristine.files)-1].segmentName()
	for name := range pristine.fs.files {
		size := len(pristine.fs.files[name].data)
		for bit := range size * 8 {
			fs := pristine.fs.crash(false)
			fs.files[name].data[bit/8] ^= 1 << (bit % 8)
			r := &rig{t: t, fs: fs, clock: &clock{begin}, options: Options{Incarnation: 1, Segment: 400}}
			r.again(fs)
			got := account(r, t)
			// What is damaged behind the last sound record of all looks as if it had
			// not been written yet.
			if last := (name == newest); got != want(last, got) {
				t.Fatalf("%s, bit %d of %d: %s", name, bit, size*8, got)
			}
		}
	}
}

// account sums up what a reader gets of each event, and refuses overlaps and
// holes.
func account(r *rig, t *testing.T) string {
	t.Helper()
	in, err := r.Read(Query{})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	last := map[string]uint64{}
	for {
		item, err := in.Next()
		if err != nil {
			break
		}
		n := item.Notification
		if item.Boundary != nil {
			continue
		}
		who := n.NodeName + n.Event.Subject
		if n.Event.Class == "" || n.Incarnation == 0 {
			t.Errorf("unexpected %s", item)
			continue
		}
		if n.First != last[who]+1 && last[who] != 0 {
			t.Errorf("%s follows %d", item, last[who])
		}
		last[who] = n.Last
	}
	return fmt.Sprintf("x %d y %d b %d", last["ax"], last["ay"], last["bx"])
}

// want is everything, or in the newest segment any earlier state.
func want(newest bool, got string) string {
	all := []string{"x 6 y 6 b 13"}
	if newest {
		all = append(all, "x 5 y 6 b 13", "x 5 y 6 b 12", "x 5 y 4 b 12", "x 6 y 6 b 12", "x 3 y 6 b 12", "x 5 y 4 b 13", "x 6 y 4 b 13", "x 6 y 4 b 12")
	}
	if slices.Contains(all, got) {
		return got
	}
	return all[0]
}

func TestAFailedSyncIsFinalForItsSegment(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.append(r.on("x", 1, 1))
	r.fs.failSync = os.NewSyscallError("fdatasync", syscall.EIO)
	first := r.fs.files[r.files[0].segmentName()]
	if err := r.Append([]belfry.Notification{r.on("x", 2, 2)}); err == nil {
		t.Fatal("a commit that could not be made durable was taken")
	}
	if first.failed != 1 {
		t.Errorf("%d syncs of the segment failed, want 1: no second one on the same descriptor", first.failed)
	}
	if len(r.troubles) != 3 || r.Durable() != 2 { // the segment, its index, the next segment
		t.Errorf("troubles %q, durable %d", r.troubles, r.Durable())
	}
	r.fs.failSync = nil
	r.append(r.on("x", 2, 2), r.on("y", 1, 1))
	want := "2 a/1 x 1-1\n3 a/1 x 2-2\n4 a/1 y 1-1"
	r.expect(Query{}, want)
	if len(r.files) != 2 || r.files[1].base != 3 {
		t.Errorf("files %+v, want a second one that begins at 3", r.files)
	}
	// What the failed sync left at the end of the first one does not count.
	r.again(r.fs.crash(false))
	r.expect(Query{Until: 4}, want)
}

func TestAFailedSyncOfTheDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Segment: 1})
	r.fs.failDir = syscall.EIO
	if err := r.Append([]belfry.Notification{r.on("x", 1, 1)}); err == nil {
		t.Fatal("a segment whose name could vanish was taken for durable")
	}
	r.fs.failDir = nil
	r.append(r.on("x", 1, 1))
	r.again(r.fs.crash(true))
	r.expect(Query{Until: 2}, "2 a/1 x 1-1")
}

// TestAFullDisk: the oldest segments go, and what is written is complete.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Segment: 300})
	r.fs.room = 4000
	for i := range uint64(100) {
		r.append(r.on("x", i+1, i+1))
	}
	if len(r.troubles) == 0 {
		t.Error("nobody was told")
	}
	if got := r.fs.used(); got > 4000 {
		t.Errorf("%d bytes on a disk of 4000", got)
	}
	read := r.read(Query{})
	if !strings.HasSuffix(read, "100 a/1 x 99-99\n101 a/1 x 100-100") || strings.Contains(read, "gap") {
		t.Errorf("the newest are not there:\n%s", read)
	}
	r.expect(Query{From: 95}, "96 a/1 x 95-95\n97 a/1 x 96-96\n98 a/1 x 97-97\n99 a/1 x 98-98\n100 a/1 x 99-99\n101 a/1 x 100-100")
}

// TestADiskWithoutRoomForOneCommit: nothing is left that could go; when there
// is room again the same commit is taken.
func TestADiskWithoutRoomForOneCommit(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Segment: 300})
	for i := range uint64(10) {
		r.append(r.on("x", i+1, i+1))
	}
	r.fs.room = 10
	batch := []belfry.Notification{r.on("x", 11, 11)}
	for range 3 {
		if err := r.Append(batch); err == nil {
			t.Fatal("a commit was taken that there was no room for")
		}
	}
	if len(r.fs.files) != 0 {
		t.Errorf("%d files on the disk, want none", len(r.fs.files))
	}
	r.fs.room = -1
	r.append(r.on("x", 11, 12)) // what came meanwhile coalesced
	r.expect(Query{From: 11, Incarnation: 1}, "11 unknown\n12 a/1 x 11-12")
}

// TestAJournalThatCanNotBegin: the agent starts all the same.
func TestAJournalThatCanNotBegin(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, fs: newFaultFS(), clock: &clock{begin}, options: Options{Incarnation: 1}}
	r.fs.room = 0
	r.open()
	if len(r.troubles) == 0 || r.Durable() != 0 {
		t.Errorf("troubles %q, durable %d", r.troubles, r.Durable())
	}
	r.expect(Query{}, "")
	r.fs.room = -1
	r.append(r.on("x", 1, 1))
	r.expect(Query{}, "2 a/1 x 1-1")
}
