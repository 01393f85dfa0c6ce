package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// A disk is one in sysfs, as it was when it was looked at.
type disk struct {
	name   string
	device string // MAJOR:MINOR
	seq    uint64 // of the disk and its medium (diskseq); 0: the kernel counts none
	size   uint64 // bytes; 0: it has no medium
	uid    string
	state  state
	word   string // the driver's for the state; empty: it keeps none
	since  time.Time
}

// instance is MAJOR:MINOR@DISKSEQ. Numbers of devices are used again soon, the
// other one is not until the machine starts again (Linux 5.15).
func (d *disk) instance() string { return fmt.Sprintf("%s@%d", d.device, d.seq) }

// A state is how a disk is. Its number is the code of disk.state.
type state int32

const (
	nothing state = iota // there is no disk, and was none
	up
	blocked // the driver holds requests back for now
	offline // the driver refuses requests
	absent  // there was a disk or a medium, and it is not there now
	unknown // the driver has a word for it that is not known here
)

var stateNames = []string{"", "up", "blocked", "offline", "absent", "unknown"}

func (s state) String() string { return stateNames[s] }

func (s state) edge() belfry.Edge {
	switch s {
	case up:
		return belfry.EdgeRecovered
	case unknown:
		return belfry.EdgeNone
	}
	return belfry.EdgeFailing
}

// words are those of the drivers: of SCSI (drivers/scsi/scsi_sysfs.c,
// sdev_states), NVMe (drivers/nvme/host/sysfs.c, nvme_sysfs_show_state) and Xen.
var words = map[string]state{
	"": up, "running": up, "live": up, "Connected": up,
	"created": blocked, "created-blocked": blocked, "blocked": blocked, "quiesce": blocked,
	"new": blocked, "resetting": blocked, "connecting": blocked,
	"offline": offline, "transport-offline": offline, "cancel": offline, "deleted": offline,
	"deleting": offline, "deleting (no IO)": offline, "dead": offline, "Closing": offline, "Closed": offline,
}

// errNone says that sysfs has no such file.
var errNone = errors.New("nothing of that name")

// readTries bounds how often a disk is read again that changed meanwhile.
const readTries = 10

// read is what sysfs says of a disk, all of it of the same medium. The size is 0
// if there is none; errNone: there is no disk.
func read(sys, name string) (*disk, error) {
	dir := filepath.Join(sys, "block", name)
	for range readTries {
		d, err := readOnce(dir, name)
		if err != nil {
			return nil, err
		}
		if seq, err := diskseq(dir); err != nil || seq == d.seq {
			return d, err
		}
	}
	return nil, fmt.Errorf("%w: %s changed each time while it was read", belfry.ErrUnknown, name)
}

func readOnce(dir, name string) (*disk, error) {
	d := &disk{name: name}
	var err error
	if d.seq, err = diskseq(dir); err != nil {
		return nil, err
	}
	if d.device, err = attribute(dir, "dev"); err != nil {
		return nil, err
	}
	sectors, err := number(dir, "size")
	if err != nil {
		return nil, err
	}
	d.size = sectors * 512 // sectors of sysfs, whatever those of the disk are
	if d.word, err = attribute(dir, "device/state"); err != nil && !errors.Is(err, errNone) {
		return nil, err
	}
	d.state = stateOf(d.word)
	for _, file := range []string{"wwid", "device/wwid", "serial", "device/serial"} {
		if d.uid, _ = attribute(dir, file); d.uid != "" {
			break
		}
	}
	return d, nil
}

// diskseq is 0 where the kernel counts no media.
func diskseq(dir string) (uint64, error) {
	seq, err := number(dir, "diskseq")
	if errors.Is(err, errNone) {
		return 0, nil
	}
	return seq, err
}

func stateOf(word string) state {
	if s, ok := words[word]; ok {
		return s
	}
	return unknown
}

// attribute is the text of one file; errNone if it is not there. A driver may
// have nothing to say, or the device go while it is asked.
func attribute(dir, file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%w: %s", belfry.ErrPermission, filepath.Join(dir, file))
	case err != nil:
		return "", errNone
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(b)), "\uFFFD"), nil
}

func number(dir, file string) (uint64, error) {
	text, err := attribute(dir, file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %s holds %q, which is no number", belfry.ErrUnknown, filepath.Join(dir, file), text)
	}
	return n, nil
}

// names are those of all disks in sysfs, with or without a medium.
func names(sys string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(sys, "block"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a machine without disks
	}
	all := make([]string, 0, len(entries))
	for _, e := range entries {
		if validName(e.Name()) {
			all = append(all, e.Name())
		}
	}
	return all, err
}

// wholeOf is the disk of which a name is a partition; empty: it is none.
func wholeOf(sys, name string) string {
	dir := filepath.Join(sys, "class/block", name)
	if _, err := attribute(dir, "partition"); err != nil {
		return ""
	}
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	return filepath.Base(filepath.Dir(path))
}
