package pressure

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

const pressureFile = `some avg10=1.23 avg60=0.45 avg300=100.00 total=689509773
full avg10=0.00 avg60=0.00 avg300=0.00 total=18446744073709551615
`

func TestAPressureFileIsRead(t *testing.T) {
	t.Parallel()
	some, full := &share{[3]float64{1.23, 0.45, 100}, 689509773}, &share{total: math.MaxUint64}
	for text, want := range map[string]stalls{
		pressureFile: {some, full},
		"some avg10=1.23 avg60=0.45 avg300=100.00 total=689509773\n":                     {some, nil}, // cpu before Linux 5.13
		"irq total=x\n\nsome rate=7 avg10=1.23 avg60=0.45 avg300=100.00 total=689509773": {some, nil},
		"": {},
	} {
		got, err := parseStalls([]byte(text))
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(stalls{}, share{})); diff != "" || err != nil {
			t.Errorf("%q: error %v (-want +got):\n%s", text, err, diff)
		}
	}
	for _, text := range []string{"some avg10=1.00\n", "some total=-1\n", "full avg10=NaN total=1\n", "some avg60=x total=1\n", "some total=18446744073709551616"} {
		if got, err := parseStalls([]byte(text)); err == nil {
			t.Errorf("%q gives %+v, want an error", text, got)
		}
	}
}

func TestWaitingOfAllCPUsIsAddedUp(t *testing.T) {
	t.Parallel()
	const text = `version 17
timestamp 4295000000
cpu0 0 0 0 0 0 0 100 2000000 3
domain0 MC 3 9 9 9 9 9 9 9 9 9 9
cpu1 0 0 0 0 0 0 100 5000000 4
`
	got, err := parseSchedstat([]byte(text))
	if want := (schedule{delay: 7e6, slices: 7, cpus: 2}); got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, text := range []string{"version 17\n", "cpu0 1 2 3\n", "cpu0 0 0 0 0 0 0 100 x 3\n", "cpu0 0 0 0 0 0 0 100 3 -1\n"} {
		if got, err := parseSchedstat([]byte(text)); err == nil {
			t.Errorf("%q gives %+v, want an error", text, got)
		}
	}
}

func TestStallsOfAllZonesAreAddedUp(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{
		"nr_free_pages 12\nallocstall_dma 1\nallocstall_normal 20\nallocstall_movable 300\nallocstalls 9\npgfault 7\n": 321,
		"allocstall 5\n": 5,
	} {
		if got, found, err := parseStallCount([]byte(text)); got != want || !found || err != nil {
			t.Errorf("%q gives %d, %v, %v; want %d", text, got, found, err, want)
		}
	}
	if _, found, err := parseStallCount([]byte("nr_free_pages 12\n")); found || err != nil {
		t.Errorf("found %v, %v; want none", found, err)
	}
	if n, _, err := parseStallCount([]byte("allocstall_dma x\n")); err == nil {
		t.Errorf("a word gives %d, want an error", n)
	}
}

func TestTheRootOfCgroupsIsTheMountThatShowsAll(t *testing.T) {
	t.Parallel()
	const text = `24 1 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
25 1 0:23 /docker/4711 /sys/fs/cgroup/part rw - cgroup2 cgroup2 rw
26 1 0:23 / /mnt/with\040blank rw - cgroup2 cgroup2 rw
27 1 0:23 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw
`
	if root, ok := parseCgroupRoot([]byte(text)); !ok || root != "/sys/fs/cgroup/unified" {
		t.Errorf("root %q, %v", root, ok)
	}
	if root, ok := parseCgroupRoot([]byte("24 1 0:22 / /sys/fs/cgroup rw - cgroup cgroup rw\nx - cgroup2 \n")); ok {
		t.Errorf("root %q, want none", root)
	}
}

func TestSubjectsHaveTheirForm(t *testing.T) {
	t.Parallel()
	const neverFull = "wrong use: a machine as a whole is never full of tasks that wait for a CPU; write pressure.cpu:some, or full:/CGROUP"
	for _, test := range []struct {
		class belfry.Class
		text  string
		want  subject
		fault string
	}{
		{CPU, "some", subject{}, ""},
		{Memory, "full", subject{full: true}, ""},
		{CPU, "/", subject{cgroup: "/"}, ""},
		{IO, "full:/", subject{full: true, cgroup: "/"}, ""},
		{CPU, "full:/system.slice/a b", subject{full: true, cgroup: "/system.slice/a b"}, ""},
		{CPUWait, "", subject{}, ""},
		{CPU, "full", subject{}, neverFull},
		{CPU, "full:/", subject{}, neverFull},
		{CPU, "sum", subject{}, `wrong use: subject "sum"; of pressure.cpu it is some | /CGROUP | full:/CGROUP`},
		{IO, "some:/a", subject{}, `wrong use: subject "some:/a"; of pressure.io it is some | full | /CGROUP | full:/CGROUP`},
		{IO, "full:/a/../b/", subject{}, `wrong use: subject "full:/a/../b/" is no plain path; write full:/b`},
		{IO, "/..", subject{}, `wrong use: subject "/.." is no plain path; write /`},
		{Memory, "/sys/fs/cgroup/a", subject{}, "wrong use: /sys/fs/cgroup/a is where cgroups are mounted; write the path below it, as /proc/PID/cgroup has it"},
		{PagingWait, "some", subject{}, "wrong use: paging.wait has no subject; write paging.wait"},
	} {
		got, err := parseSubject(test.class, test.text)
		fault := ""
		if err != nil {
			fault = err.Error()
		}
		if fault != test.fault || err == nil && got != test.want {
			t.Errorf("%s:%s\n got %+v %s\nwant %+v %s", test.class, test.text, got, fault, test.want, test.fault)
		}
	}
}

func FuzzParsersTakeAnything(f *testing.F) {
	f.Add([]byte(pressureFile))
	f.Add([]byte("cpu0 0 0 0 0 0 0 100 2000000 3\ncpu"))
	f.Add([]byte("allocstall_dma 1\nallocstall_"))
	f.Add([]byte("27 1 0:23 / /x rw - cgroup2 c\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStalls(b)
		if err != nil && (s.some != nil || s.full != nil) {
			t.Errorf("%q gives shares and an error", b)
		}
		for _, share := range []*share{s.some, s.full} {
			if share == nil {
				continue
			}
			for _, avg := range share.avg {
				if math.IsNaN(avg) || math.IsInf(avg, 0) {
					t.Errorf("%q gives the average %v", b, avg)
				}
			}
		}
		if s, err := parseSchedstat(b); err == nil && s.cpus == 0 {
			t.Errorf("%q gives no CPU and no error", b)
		}
		if n, found, err := parseStallCount(b); n != 0 && (!found || err != nil) {
			t.Errorf("%q gives %d stalls that were not found: %v", b, n, err)
		}
		if root, ok := parseCgroupRoot(b); ok && (root == "" || root[0] != '/') {
			t.Errorf("%q gives the root %q", b, root)
		}
	})
}

// A subject that is let through stays below the root of cgroups.
func FuzzSubjectsStayBelowTheRoot(f *testing.F) {
	f.Add("/a/../../etc")
	f.Add("full:/..")
	f.Add("full:some")
	f.Fuzz(func(t *testing.T, text string) {
		for _, class := range []belfry.Class{CPU, Memory, IO} {
			s, err := parseSubject(class, text)
			if err != nil {
				continue
			}
			if s.cgroup == "" && text != "some" && text != "full" {
				t.Errorf("%q means the whole machine", text)
			}
			if s.cgroup != "" && (s.cgroup[0] != '/' || slices.Contains(strings.Split(s.cgroup, "/"), "..")) {
				t.Errorf("%q means %q", text, s.cgroup)
			}
		}
	})
}
