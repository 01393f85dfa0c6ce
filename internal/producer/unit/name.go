package unit

import (
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// types are those of units (systemd.unit(5)), with the interface that has what
// only units of the type have, and whether that includes a Result.
var types = map[string]struct {
	iface  string
	result bool
}{
	"automount": {"Automount", true},
	"device":    {"Device", false},
	"mount":     {"Mount", true},
	"path":      {"Path", true},
	"scope":     {"Scope", true},
	"service":   {"Service", true},
	"slice":     {"Slice", false},
	"socket":    {"Socket", true},
	"swap":      {"Swap", true},
	"target":    {"Target", false},
	"timer":     {"Timer", true},
}

// characters are what the name of a unit is made of (systemd.unit(5)).
const characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"

// longest is the greatest length of a name (UNIT_NAME_MAX).
const longest = 255

// typeOf is what stands behind the last dot.
func typeOf(name string) string { return strings.TrimPrefix(path.Ext(name), ".") }

// checkName refuses with ErrUsage what is the name of no unit that can run.
func checkName(name string) error {
	if _, ok := types[typeOf(name)]; !ok {
		return fmt.Errorf("%w: %q has no type of unit at its end; write the full name, as nginx.service", belfry.ErrUsage, short(name))
	}
	stem := strings.TrimSuffix(name, path.Ext(name))
	switch {
	case stem == "", strings.HasPrefix(stem, "@"), len(name) > longest, strings.Trim(name, characters) != "":
		return fmt.Errorf("%w: %q is no name of a unit; write one as `systemctl list-units` prints it", belfry.ErrUsage, short(name))
	case strings.HasSuffix(stem, "@"):
		return fmt.Errorf("%w: %q is a template, which does not run itself; write one of its instances, as %sNAME%s",
			belfry.ErrUsage, name, stem, path.Ext(name))
	}
	return nil
}

// checkPattern refuses what can match no name.
func checkPattern(pattern string) error {
	if pattern == "" || producer.HasStar(pattern) {
		return nil
	}
	return checkName(producer.Literal(pattern))
}

func short(s string) string {
	if len(s) <= 80 {
		return s
	}
	return s[:80] + "…"
}

// unitPaths is below what systemd has its units.
const unitPaths = "/org/freedesktop/systemd1/unit/"

// nameOf takes the name of a unit out of its path, in which systemd writes each
// byte that is no letter or digit as _ and its number.
func nameOf(p dbus.ObjectPath) (string, bool) {
	label, ok := strings.CutPrefix(string(p), unitPaths)
	if !ok {
		return "", false
	}
	var name strings.Builder
	for label != "" {
		c := label[0]
		label = label[1:]
		if c == '_' {
			if len(label) < 2 {
				return "", false
			}
			b, err := hex.DecodeString(label[:2])
			if err != nil {
				return "", false
			}
			c, label = b[0], label[2:]
		}
		name.WriteByte(c)
	}
	return name.String(), name.Len() > 0
}

// pathOf is the inverse of nameOf. What systemd tells of a unit has this path,
// also if it was asked for by an alias.
func pathOf(name string) dbus.ObjectPath {
	var label strings.Builder
	for i, c := range []byte(name) {
		letter, digit := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z', c >= '0' && c <= '9'
		if letter || digit && i > 0 {
			label.WriteByte(c)
		} else {
			fmt.Fprintf(&label, "_%02x", c)
		}
	}
	return dbus.ObjectPath(unitPaths + label.String())
}
