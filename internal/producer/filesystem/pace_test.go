package filesystem

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

func TestTheSoonerAThresholdCanBeReachedTheSoonerIsTheNextSample(t *testing.T) {
	t.Parallel()
	over := func(v float64) belfry.Threshold { return belfry.Threshold{Hi: v, HasHi: true} }
	under := func(v float64) belfry.Threshold { return belfry.Threshold{Lo: v, HasLo: true} }
	start := time.Unix(0, 0)
	tests := []struct {
		name      string
		old, now  float64 // a second apart
		burst     float64
		threshold belfry.Threshold
		want      time.Duration
	}{
		{"nothing moves on a large disk", 50, 50, 0.01, over(90), 10 * time.Second},
		{"a large disk fills", 50, 54, 0.01, over(90), 4500 * time.Millisecond},
		{"it is about to be full", 88, 89, 0.01, over(90), 500 * time.Millisecond},
		{"faster than this it is not asked", 85, 89.9, 0.01, over(90), 250 * time.Millisecond},
		{"a small one is full at once", 10, 10, 1000, over(90), 250 * time.Millisecond},
		{"past the threshold another may be near", 95, 95, 0.01, over(90), time.Second},
		{"it empties towards the lower one", 40, 36, 0.01, under(20), 2 * time.Second},
		{"below the lower one", 10, 10, 0.01, under(20), time.Second},
		{"it comes back towards the hysteresis", 89.9, 89.5, 0.01, belfry.Threshold{Hi: 90, HasHi: true, Hysteresis: 2}, 625 * time.Millisecond},
		{"no threshold", 0, 0, 0, belfry.Threshold{}, 10 * time.Second},
	}
	for _, test := range tests {
		got := pace(sample{start, test.old}, sample{start.Add(time.Second), test.now}, test.burst, test.threshold).Round(time.Millisecond)
		if got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestThePaceIsAlwaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		percent := rapid.Float64Range(0, 100)
		start := time.Unix(0, 0)
		got := pace(
			sample{start, percent.Draw(t, "old")},
			sample{start.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "elapsed"))), percent.Draw(t, "now")},
			rapid.Float64Range(0, 1e6).Draw(t, "burst"),
			belfry.Threshold{
				HasHi: rapid.Bool().Draw(t, "has hi"), Hi: percent.Draw(t, "hi"), Hysteresis: percent.Draw(t, "hysteresis"),
				HasLo: rapid.Bool().Draw(t, "has lo"), Lo: percent.Draw(t, "lo"),
			})
		if got < fastest || got > slowest {
			t.Fatalf("pace %v is not between %v and %v", got, fastest, slowest)
		}
	})
}

const mountinfo = `29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 29 0:5 / /proc rw - proc proc rw
41 29 0:40 / /mnt/with\040blank rw - tmpfs tmp\134fs rw,size=64k
42 41 0:41 / /mnt/with\040blank rw master:1 propagate_from:2 - ext4 /dev/vdb rw
`

func TestTheMountTableIsReadAndTheTopmostMountIsSeen(t *testing.T) {
	t.Parallel()
	got, err := parseMounts([]byte(mountinfo))
	want := []mount{
		{29, "254:0", "/", "ext4", "/dev/vda"},
		{30, "0:5", "/proc", "proc", "proc"},
		{42, "0:41", "/mnt/with blank", "ext4", "/dev/vdb"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); diff != "" || err != nil {
		t.Fatalf("mounts (-want +got), error %v:\n%s", err, diff)
	}
	for path, want := range map[string]string{
		"/": "/", "/etc": "/", "/proc": "/proc", "/process": "/", "/mnt/with blank/x": "/mnt/with blank", "/mnt": "/",
	} {
		if m, ok := under(got, path); !ok || m.point != want {
			t.Errorf("%s lies on %q, want %q", path, m.point, want)
		}
	}
	for _, broken := range []string{"x\n", "a b c d e f - g h\n", "1 2 3 4 5 6 7\n"} {
		if m, err := parseMounts([]byte(broken)); err == nil {
			t.Errorf("%q gives %+v, want an error", broken, m)
		}
	}
}

func TestPercentIsThatOfUnprivilegedUsers(t *testing.T) {
	t.Parallel()
	u := usage{total: 100, used: 45, available: 45, inodes: 200, usedInodes: 50} // 10 are root's
	if got, ok := u.percent(false); got != 50 || !ok {
		t.Errorf("space %v %v, want 50", got, ok)
	}
	if got, ok := u.percent(true); got != 25 || !ok {
		t.Errorf("inodes %v %v, want 25", got, ok)
	}
	if _, ok := (usage{}).percent(false); ok {
		t.Error("a file system without blocks has a percentage")
	}
}

// Between an unmount and the change of the table the point shows what is below.
func TestAMountThatIsGoneIsNotMeasured(t *testing.T) {
	t.Parallel()
	mounts, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	root, ok := under(mounts, "/")
	if !ok {
		t.Fatal("nothing is mounted at /")
	}
	if !root.still() {
		t.Errorf("%+v is not what it is", root)
	}
	root.id++ // as if another one had been there
	if root.still() {
		t.Errorf("%+v is taken for the mount at /", root)
	}
}

func FuzzParseMountsTakesAnything(f *testing.F) {
	f.Add([]byte(mountinfo))
	f.Add([]byte(`1 2 0:1 / \04 rw - x \777` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		mounts, err := parseMounts(b)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, m := range mounts {
			if seen[m.point] {
				t.Errorf("%q gives two mounts at %q", b, m.point)
			}
			seen[m.point] = true
		}
	})
}
