package filesystem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount is one line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	id     int
	device string // major:minor
	point  string
	kind   string // of the file system
	source string
}

// instance names the mount until it is unmounted: numbers are used again, but
// hardly for the same device.
func (m mount) instance() string { return fmt.Sprintf("%s@%d", m.device, m.id) }

var errMounts = errors.New("not a line of /proc/self/mountinfo")

// parseMounts reads the table. Of several mounts on one point the last one is
// seen; the others are left out. The order is the table's.
func parseMounts(b []byte) ([]mount, error) {
	var all []mount
	at := map[string]int{}
	for line := range bytes.Lines(b) {
		m, err := parseMount(strings.TrimSuffix(string(line), "\n"))
		if err != nil {
			return nil, err
		}
		if i, ok := at[m.point]; ok {
			all[i] = m
			continue
		}
		at[m.point] = len(all)
		all = append(all, m)
	}
	return all, nil
}

// parseMount reads
//
//	36 35 98:0 /root /point options [optional…] - type source options
func parseMount(line string) (m mount, err error) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Split(before, " "), strings.Split(after, " ")
	if !ok || len(left) < 6 || len(right) < 2 {
		return m, fmt.Errorf("%w: %q", errMounts, line)
	}
	if m.id, err = strconv.Atoi(left[0]); err != nil {
		return m, fmt.Errorf("%w: %q", errMounts, line)
	}
	m.device, m.point, m.kind, m.source = left[2], unescape(left[4]), right[0], unescape(right[1])
	return m, nil
}

// unescape reads \040 and its like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// under is the mount that a clean absolute path lies on.
func under(mounts []mount, path string) (best mount, ok bool) {
	for _, m := range mounts {
		inside := m.point == "/" || path == m.point || strings.HasPrefix(path, m.point+"/")
		if inside && (!ok || len(m.point) > len(best.point)) {
			best, ok = m, true
		}
	}
	return best, ok
}

// remote are file systems where statfs(2) waits for another machine, and with
// it everything here.
var remote = map[string]bool{
	"nfs": true, "nfs4": true, "cifs": true, "smb3": true, "smbfs": true, "ceph": true, "afs": true, "coda": true,
	"fuse.sshfs": true, "fuse.glusterfs": true, "fuse.s3fs": true, "fuse.rclone": true, "fuse.ceph": true,
}

// A table is the open mount table. The kernel reports each change of it as an
// error condition of the file, which the runtime's poller hands on.
type table struct{ file *os.File }

func openTable() (*table, error) {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/self/mountinfo", Err: err}
	}
	return &table{os.NewFile(uintptr(fd), "/proc/self/mountinfo")}, nil
}

// wait reports changes until close, and one at once for what was before it. It
// stays in one call of Read, because each new one forgets what the poller has
// seen so far.
func (t *table) wait(ctx context.Context, changed chan<- error) {
	report := func(err error) bool {
		select {
		case changed <- err:
			return true
		case <-ctx.Done():
			return false
		}
	}
	conn, err := t.file.SyscallConn()
	if err == nil {
		err = conn.Read(func(uintptr) bool { return !report(nil) })
	}
	if err != nil {
		report(err)
	}
}

func (t *table) close() error { return t.file.Close() }

func readMounts() ([]mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(b)
}

// A usage is what statfs(2) says, in bytes and inodes.
type usage struct {
	total, used, available uint64 // bytes; available to unprivileged users
	inodes, usedInodes     uint64
}

func measure(path string) (usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return usage{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	unit := uint64(st.Frsize)
	if unit == 0 {
		unit = uint64(st.Bsize)
	}
	return usage{
		total:      st.Blocks * unit,
		used:       (st.Blocks - min(st.Bfree, st.Blocks)) * unit,
		available:  st.Bavail * unit,
		inodes:     st.Files,
		usedInodes: st.Files - min(st.Ffree, st.Files),
	}, nil
}

// still tells whether the mount is what its point shows, where the kernel can
// say (Linux 5.8). True after a measurement means that it was true during it.
func (m mount) still() bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, m.point, unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	return err == nil && (st.Mask&unix.STATX_MNT_ID == 0 || st.Mnt_id == uint64(m.id))
}

// percent is what df(1) shows before it rounds up: of what unprivileged users
// can have. It answers false where the file system does not count.
func (u usage) percent(inodes bool) (float64, bool) {
	used, all := u.used, u.used+u.available
	if inodes {
		used, all = u.usedInodes, u.inodes
	}
	if all == 0 {
		return 0, false
	}
	return 100 * float64(used) / float64(all), true
}
