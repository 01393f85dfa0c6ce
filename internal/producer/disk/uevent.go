package disk

import (
	"bytes"
	"path"
	"strconv"
	"strings"
)

// A uevent is what the kernel tells of one device (lib/kobject_uevent.c):
// ACTION@DEVPATH, then KEY=VALUE, each with a zero byte behind it.
type uevent struct {
	disk string // its name in sysfs
	seq  uint64 // of disk and medium when it was told; 0: before Linux 5.15
}

// parseUevent answers false for what is not about a whole disk.
func parseUevent(datagram []byte) (u uevent, ok bool) {
	block, whole := false, false
	for i, field := range bytes.Split(datagram, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch {
		case i == 0:
		case key == "DEVPATH":
			u.disk = path.Base(value)
		case key == "SUBSYSTEM":
			block = value == "block"
		case key == "DEVTYPE":
			whole = value == "disk"
		case key == "DISKSEQ":
			u.seq, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return u, block && whole && validName(u.disk)
}
