package adapter

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// The kinds of subjects but names, which have none.
const (
	macKind  = "mac="
	pathKind = "path="
)

// devices is where sysfs has the devices themselves, not links to them.
const devices = "/sys/devices/"

// forms are those of a subject.
const forms = "NAME | mac=ADDRESS | path=/sys/devices/PATH, each with stars"

func kindOf(subject string) string {
	for _, kind := range []string{macKind, pathKind} {
		if strings.HasPrefix(subject, kind) {
			return kind
		}
	}
	return ""
}

// checkSubject refuses what names no interface, and all but one of the ways to
// write the same: two entries for one interface would be in each other's way.
func checkSubject(class belfry.Class, subject string) error {
	kind := kindOf(subject)
	value := strings.TrimPrefix(subject, kind)
	switch kind {
	case macKind:
		hardware, err := net.ParseMAC(value)
		if err != nil {
			return fmt.Errorf("%w: mac=%q is no hardware address; write %s:mac=52:54:00:12:34:56", belfry.ErrUsage, value, class)
		}
		if hardware.String() != value {
			return fmt.Errorf("%w: mac=%q is not as the kernel writes it; write %s:mac=%s", belfry.ErrUsage, value, class, hardware)
		}
	case pathKind:
		if !strings.HasPrefix(value, devices) || filepath.Clean(value) != value {
			return fmt.Errorf("%w: path=%q is no device in %s; write what `readlink -f /sys/class/net/NAME/device` prints",
				belfry.ErrUsage, value, devices)
		}
	default:
		if !validName(value) {
			return fmt.Errorf("%w: %q is no name of an interface; write NAME, mac=ADDRESS or path=/sys/devices/PATH", belfry.ErrUsage, value)
		}
	}
	return nil
}

// checkPattern refuses what no subject fits.
func checkPattern(pattern string) error {
	if kindOf(pattern) == "" && strings.ContainsAny(pattern, notInNames) {
		return fmt.Errorf("%w: no name of an interface fits %q; write NAME, mac= or path=, each with stars", belfry.ErrUsage, pattern)
	}
	return nil
}

// validName is the kernel's own rule (net/core/dev.c, dev_valid_name).
func validName(name string) bool {
	return name != "" && len(name) < unix.IFNAMSIZ && name != "." && name != ".." && !strings.ContainsAny(name, notInNames)
}

// notInNames are characters that no name has.
const notInNames = "/: \t\n\v\f\r"
