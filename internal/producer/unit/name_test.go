package unit

import (
	"testing"

	"github.com/godbus/dbus/v5"
)

func FuzzPathsNameUnits(f *testing.F) {
	for _, name := range []string{"nginx.service", "0.service", `dev-disk-by\x2dlabel.device`, "a_b@c:d.timer"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path := pathOf(name)
		if back, ok := nameOf(path); name != "" && (!ok || back != name) {
			t.Errorf("%q has the path %s, which is that of %q (%v)", name, path, back, ok)
		}
		if !path.IsValid() && name != "" {
			t.Errorf("%q has the path %s, which is none", name, path)
		}
	})
}

func FuzzNameOf(f *testing.F) {
	for _, path := range []string{unitPaths + "nginx_2eservice", unitPaths + "_2", unitPaths + "_zz", unitPaths, "/"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		name, ok := nameOf(dbus.ObjectPath(path))
		if !ok {
			return
		}
		if again, ok := nameOf(pathOf(name)); !ok || again != name {
			t.Errorf("%s names %q, whose path names %q (%v)", path, name, again, ok)
		}
	})
}
