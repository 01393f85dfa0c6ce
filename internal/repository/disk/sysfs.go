package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sectorSize is the unit of sizes in sysfs, whatever the device's own is.
const sectorSize = 512

// A candidate is a device or file that may hold a disk of a repository.
type candidate struct {
	path    string
	key     Identity // as sysfs or stat(2) say
	world   string   // world-wide name: two paths to one disk have the same
	backing Identity // of the file that a loop device shows
}

// blocks are the block devices, partitions included, that nothing lies on and
// that are large enough. One that comes or goes while we look is left out.
func (f *Finder) blocks() (all []candidate, problems []error) {
	class := filepath.Join(f.cfg.Sysfs, "class/block")
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, []error{fail("find", class, err)}
	}
	for _, e := range entries {
		// Partitions lie inside their disk, so the link must be followed.
		dir, err := filepath.EvalSymlinks(filepath.Join(class, e.Name()))
		if err != nil {
			continue
		}
		if c, ok := f.block(e.Name(), dir); ok {
			all = append(all, c)
		}
	}
	return all, nil
}

// block reads what sysfs says of one device (Documentation/ABI/stable/sysfs-block).
func (f *Finder) block(name, dir string) (candidate, bool) {
	holders, err := os.ReadDir(filepath.Join(dir, "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(holders) > 0 {
		return candidate{}, false // a volume or a multipath device lies on it: that one counts
	}
	sectors, err := strconv.ParseInt(attribute(dir, "size"), 10, 64)
	if err != nil || sectors*sectorSize < f.cfg.Least {
		return candidate{}, false
	}
	major, minor, ok := strings.Cut(attribute(dir, "dev"), ":")
	number := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		ok = ok && err == nil
		return uint32(n)
	}
	device := unix.Mkdev(number(major), number(minor))
	if !ok {
		return candidate{}, false
	}
	disk := dir
	if attribute(dir, "partition") != "" {
		disk = filepath.Dir(dir)
	}
	c := candidate{
		path: filepath.Join(f.cfg.Dev, strings.ReplaceAll(name, "!", "/")), // as udev does
		key:  Identity{Device: device, Size: sectors * sectorSize},
	}
	c.key.Sequence, _ = strconv.ParseUint(attribute(disk, "diskseq"), 10, 64) // zero: before Linux 5.15
	for _, from := range []string{"device/wwid", "wwid"} {                    // SCSI, NVMe
		if c.world = attribute(disk, from); c.world != "" {
			c.world += " " + attribute(dir, "partition")
			break
		}
	}
	if path := attribute(dir, "loop/backing_file"); path != "" {
		c.backing, _ = fileIdentity(path) // none: it has lost its name, so that it is not found as a file
	}
	return c, true
}

// attribute is empty if there is none of the name.
func attribute(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// files are those named *.belfry in the folders of the configuration.
func (f *Finder) files() (all []candidate, problems []error) {
	for _, folder := range f.cfg.Folders {
		entries, err := os.ReadDir(folder)
		if err != nil {
			problems = append(problems, fail("find", folder, err))
			continue
		}
		for _, e := range entries {
			path, err := filepath.EvalSymlinks(filepath.Join(folder, e.Name()))
			if filepath.Ext(e.Name()) != Suffix || err != nil {
				continue
			}
			if id, ok := fileIdentity(path); ok && id.Size >= f.cfg.Least {
				all = append(all, candidate{path: path, key: id})
			}
		}
	}
	return all, problems
}

// fileIdentity is of a regular file only.
func fileIdentity(path string) (Identity, bool) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Identity{}, false
	}
	return Identity{Device: st.Dev, Inode: st.Ino, Size: st.Size}, true
}
