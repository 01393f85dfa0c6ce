package disk

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
)

// longestName is DISK_NAME_LEN of linux/blkdev.h, without the zero byte.
const longestName = 31

// checkSubject refuses what is no name of a disk. A slash in a name of the
// kernel's is an exclamation mark in sysfs, and here.
func checkSubject(name string) error {
	if dev, ok := strings.CutPrefix(name, "/dev/"); ok && validName(path.Base(dev)) {
		if strings.Contains(dev, "/") {
			return fmt.Errorf("%w: %q is no name of a disk; write %s:NAME with what `basename $(readlink -f %s)` prints", belfry.ErrUsage, name, Class, name)
		}
		return fmt.Errorf("%w: %q is a path; write %s:%s", belfry.ErrUsage, name, Class, dev)
	}
	if !validName(name) {
		return fmt.Errorf("%w: %q is no name of a disk; write one that is in /sys/block", belfry.ErrUsage, name)
	}
	return nil
}

// checkPattern refuses what no name fits.
func checkPattern(pattern string) error {
	if strings.Contains(pattern, "/") {
		return fmt.Errorf("%w: no name of a disk fits %q; write it without the directory", belfry.ErrUsage, pattern)
	}
	return nil
}

func validName(name string) bool {
	return name != "" && len(name) <= longestName && name != "." && name != ".." && !strings.Contains(name, "/") && utf8.ValidString(name)
}
