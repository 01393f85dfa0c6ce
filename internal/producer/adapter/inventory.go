package adapter

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/belfry-ha/belfry/internal/netlink"
)

// An adapter is an interface that is there.
type adapter struct {
	netlink.Interface
	path      string // of its device, in /sys/devices; empty: it has none
	state     state
	since     time.Time                // of the state
	addresses map[netlink.Address]bool // by identity
	keys      []string                 // the subjects that name it; none any more once it is gone
}

// borrowed are kinds of interfaces whose hardware address is that of a card
// below them, or of one of their ports.
var borrowed = map[string]bool{
	"bond": true, "bridge": true, "hsr": true, "ipvlan": true, "macsec": true, "team": true, "vlan": true,
}

// subjects are those that name the interface as it is now.
func (a *adapter) subjects() (keys []string) {
	if utf8.ValidString(a.Name) { // else nobody can write it
		keys = append(keys, a.Name)
	}
	mac := a.Permanent // a port of a bond has another one for the time being
	if mac == "" {
		mac = a.MAC
	}
	if mac != "" && !borrowed[a.Kind] {
		keys = append(keys, macKind+mac)
	}
	if a.path != "" {
		keys = append(keys, pathKind+a.path)
	}
	return keys
}

func (a *adapter) has(subject string) bool { return slices.Contains(a.keys, subject) }

// identity is an address without what may change while it stays.
func identity(a netlink.Address) netlink.Address {
	a.Flags = 0
	return a
}

func (a *adapter) sortedAddresses() []netlink.Address {
	all := make([]netlink.Address, 0, len(a.addresses))
	for address := range a.addresses {
		all = append(all, address)
	}
	slices.SortFunc(all, func(x, y netlink.Address) int {
		if n := x.Prefix.Compare(y.Prefix); n != 0 {
			return n
		}
		return x.Peer.Compare(y.Peer)
	})
	return all
}

// An inventory is all interfaces there are.
type inventory struct {
	byIndex map[int]*adapter
	byKey   map[string][]*adapter // by subject, sorted by index; names have one each
}

// rekey gives an interface other subjects; none takes it out. It answers those
// that it had or has.
func (v *inventory) rekey(a *adapter, keys []string) (concerned []string) {
	concerned = slices.Clone(a.keys)
	for _, k := range a.keys {
		if rest := slices.DeleteFunc(v.byKey[k], func(other *adapter) bool { return other == a }); len(rest) > 0 {
			v.byKey[k] = rest
		} else {
			delete(v.byKey, k)
		}
	}
	a.keys = keys
	for _, k := range keys {
		v.byKey[k] = append(v.byKey[k], a)
		slices.SortFunc(v.byKey[k], func(x, y *adapter) int { return x.Index - y.Index })
		if !slices.Contains(concerned, k) {
			concerned = append(concerned, k)
		}
	}
	return concerned
}

// find is the interface that a subject names: of several the oldest. Nil: none.
func (v *inventory) find(subject string) *adapter {
	if same := v.byKey[subject]; len(same) > 0 {
		return same[0]
	}
	return nil
}

// listed are the subjects of a kind, sorted.
func (v *inventory) listed(kind string) (all []string) {
	for k := range v.byKey {
		if kindOf(k) == kind {
			all = append(all, k)
		}
	}
	slices.Sort(all)
	return all
}

// devicePath is where sysfs has the device of an interface. The bus shows the
// devices of all network namespaces, and since Linux 5.14 the kernel names it;
// before that, /sys/class/net has those of the one it was mounted in.
func devicePath(sys string, i netlink.Interface) string {
	link := filepath.Join(sys, "bus", i.Bus, "devices", i.Device)
	if i.Bus == "" || i.Device == "" {
		class := filepath.Join(sys, "class/net", i.Name)
		index, err := os.ReadFile(filepath.Join(class, "ifindex"))
		if err != nil || strings.TrimSpace(string(index)) != fmt.Sprint(i.Index) {
			return ""
		}
		link = filepath.Join(class, "device")
	}
	path, err := filepath.EvalSymlinks(link)
	if err != nil {
		return ""
	}
	rest, ok := strings.CutPrefix(path, filepath.Join(sys, "devices")+"/")
	if !ok || !utf8.ValidString(rest) {
		return ""
	}
	return devices + rest
}
