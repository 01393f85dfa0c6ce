// Package license reads, checks and judges license files: what a vendor has
// signed about a product, and what follows from it on one node.
//
// A license is unlocked on a node when its signature holds, the file is in
// the committed generation of the configuration, and binding, dates and
// capacity fit (US8904174; repository.md, Licenses). There is no flag that says
// so: [Evaluate] finds it out each time from plain values. The package is
// pure, and nothing in it ever stops detection, events, witness or fail-over.
package license

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
)

// DefaultGraceDays is what vendors grant who do not say how many days.
const DefaultGraceDays = 14

// Limits of a license. They bound each loop over what comes from outside.
const (
	maxName      = 63        // bytes of a name
	maxCustomer  = 256       // bytes
	maxList      = 1024      // features, superseded licenses, bound nodes
	maxGraceDays = 366       // days
	maxYear      = 9990      // so that the end of grace has four digits too
	maxNumber    = 1<<53 - 1 // the largest that every JSON reader holds (RFC 8259 6)
)

// An ID names a license among those of one product. It is the issuer's
// choice: 1 to 63 letters, digits, dots, underscores and hyphens of ASCII, the
// first a letter or digit.
type ID string

// A License is what an issuer grants. Names (product, edition, features) have
// the form of an [ID]; times are whole seconds UTC from 1970 to 9990, and the
// zero time means none. It is the payload of a file: see [Sign] for its bytes.
type License struct {
	ID       ID       `json:"license_id"`
	Product  string   `json:"product"`
	Edition  string   `json:"edition"`  // may be empty
	Features []string `json:"features"` // a set: sorted, none twice; at most 1024
	Binding  Binding  `json:"binding"`
	Capacity Capacity `json:"capacity"`
	// NotBefore is the first second, NotAfter the last one, both inclusive
	// (as in RFC 5280 4.1.2.5). Zero: from ever, for ever.
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	// GraceDays is for how many days after NotAfter the product goes on with
	// warnings. 0 to 366; a day has 24 hours.
	GraceDays int `json:"grace_days"`
	// MaintenanceUntil is the last second at which a release may have been
	// made that the license covers. Zero: all releases.
	MaintenanceUntil time.Time `json:"maintenance_until,omitzero"`
	IssuedAt         time.Time `json:"issued_at"` // never zero
	// Supersedes are licenses of the same product that this one replaces, from
	// NotBefore on and for good. A set, at most 1024.
	Supersedes []ID   `json:"supersedes"`
	Customer   string `json:"customer"` // for people: at most 256 bytes of UTF-8 in one line; may be empty
}

// A Binding says where a license holds. Exactly one of its fields is set, so
// that a binding left out is refused and does not mean anywhere.
type Binding struct {
	Cluster belfry.ClusterID `json:"cluster,omitzero"`
	Nodes   []belfry.NodeID  `json:"nodes,omitempty"` // a set: sorted, none twice; at most 1024
	Any     bool             `json:"any,omitzero"`
}

// A Capacity is how much of a cluster a license covers: see [Covered]. Each is
// 0 (no limit) to 2^53-1.
type Capacity struct {
	Nodes       int64 `json:"nodes"`
	Cores       int64 `json:"cores"`
	MemoryBytes int64 `json:"memory_bytes"`
}

// holdsOn tells whether the binding fits a node of a cluster.
func (b Binding) holdsOn(cluster belfry.ClusterID, node belfry.NodeID) bool {
	return b.Any || !cluster.IsZero() && b.Cluster == cluster || slices.Contains(b.Nodes, node)
}

// holdsIn tells whether the binding fits a cluster: itself, or a member.
func (b Binding) holdsIn(cluster belfry.ClusterID, members []Member) bool {
	return b.holdsOn(cluster, belfry.NodeID{}) || slices.ContainsFunc(members, func(m Member) bool {
		return slices.Contains(b.Nodes, m.Node)
	})
}

// end is the first instant after the license; zero: it has no end.
func (l License) end() time.Time {
	if l.NotAfter.IsZero() {
		return time.Time{}
	}
	return l.NotAfter.Add(time.Second)
}

// graceEnd is the first instant after the days of grace; zero: it has no end.
func (l License) graceEnd() time.Time {
	if l.NotAfter.IsZero() {
		return time.Time{}
	}
	return l.end().Add(time.Duration(l.GraceDays) * 24 * time.Hour)
}

func (License) kind() kind        { return licenses }
func (l License) product() string { return l.Product }

// normal is the license in the one form that is written.
func (l License) normal() License {
	l.Features, l.Supersedes = set(l.Features), set(l.Supersedes)
	if l.Binding.Nodes != nil {
		l.Binding.Nodes = slices.SortedFunc(slices.Values(l.Binding.Nodes), belfry.NodeID.Compare)
	}
	l.NotBefore, l.NotAfter = utc(l.NotBefore), utc(l.NotAfter)
	l.MaintenanceUntil, l.IssuedAt = utc(l.MaintenanceUntil), utc(l.IssuedAt)
	return l
}

// check is given a normal license and says the first thing that is wrong.
func (l License) check() error {
	checks := []error{
		checkName("license_id", string(l.ID)), checkName("product", l.Product),
		checkNames("features", l.Features), l.Binding.check(), l.Capacity.check(),
		checkTime("not_before", l.NotBefore), checkTime("not_after", l.NotAfter),
		checkTime("maintenance_until", l.MaintenanceUntil), checkTime("issued_at", l.IssuedAt),
		checkNames("supersedes", l.Supersedes), checkText("customer", l.Customer),
	}
	if l.Edition != "" {
		checks = append(checks, checkName("edition", l.Edition))
	}
	if i := slices.IndexFunc(checks, func(err error) bool { return err != nil }); i >= 0 {
		return checks[i]
	}
	switch {
	case l.IssuedAt.IsZero():
		return wrong("issued_at is missing; want the time of signing")
	case !l.NotAfter.IsZero() && l.NotAfter.Before(l.NotBefore):
		return wrong("not_after %s is before not_before %s; want it later", stamp(l.NotAfter), stamp(l.NotBefore))
	case l.GraceDays < 0 || l.GraceDays > maxGraceDays:
		return wrong("grace_days is %d; want 0 to %d", l.GraceDays, maxGraceDays)
	case slices.Contains(l.Supersedes, l.ID):
		return wrong("supersedes names the license itself, %s; want others", l.ID)
	}
	return nil
}

func (b Binding) check() error {
	kinds := 0
	for _, set := range []bool{!b.Cluster.IsZero(), len(b.Nodes) > 0, b.Any} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return wrong("binding says %d things; want exactly one of cluster, nodes, any", kinds)
	case len(b.Nodes) > maxList:
		return wrong("binding has %d nodes; want at most %d", len(b.Nodes), maxList)
	case len(b.Nodes) > 0 && b.Nodes[0].IsZero():
		return wrong("binding names the node %s, which is none; want the ids of nodes", b.Nodes[0])
	case len(slices.Compact(slices.Clone(b.Nodes))) != len(b.Nodes):
		return wrong("binding names a node twice; want each once")
	}
	return nil
}

func (c Capacity) check() error {
	for _, part := range []struct {
		name string
		n    int64
	}{{"nodes", c.Nodes}, {"cores", c.Cores}, {"memory_bytes", c.MemoryBytes}} {
		if part.n < 0 || part.n > maxNumber {
			return wrong("capacity %s is %d; want 0 (no limit) to %d", part.name, part.n, int64(maxNumber))
		}
	}
	return nil
}

// set is a sorted copy that is never nil: null and [] would be two forms.
func set[T cmp.Ordered](list []T) []T {
	sorted := append(make([]T, 0, len(list)), list...)
	slices.Sort(sorted)
	return sorted
}

// utc drops the zone and the monotonic reading, which no file has.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Round(0)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func checkTime(field string, t time.Time) error {
	switch {
	case t.IsZero():
		return nil
	case t.Year() < 1970 || t.Year() > maxYear:
		return wrong("%s is in the year %d; want 1970 to %d", field, t.Year(), maxYear)
	case t.Nanosecond() != 0:
		return wrong("%s has parts of a second; want whole seconds", field)
	}
	return nil
}

// CheckProduct says what is wrong with the name of a product; ErrUsage.
func CheckProduct(name string) error { return checkName("product", name) }

func checkName(field, s string) error {
	good := s != "" && len(s) <= maxName && !strings.ContainsRune("._-", rune(s[0]))
	for i := 0; good && i < len(s); i++ {
		c := s[i]
		good = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
	}
	if !good {
		return wrong("%s is %.100q; want 1 to %d of a-z A-Z 0-9 . _ -, the first a letter or digit", field, s, maxName)
	}
	return nil
}

// checkNames is given a sorted list.
func checkNames[T ~string](field string, list []T) error {
	if len(list) > maxList {
		return wrong("%s has %d names; want at most %d", field, len(list), maxList)
	}
	for i, s := range list {
		if err := checkName(field, string(s)); err != nil {
			return err
		}
		if i > 0 && list[i-1] == s {
			return wrong("%s has %s twice; want each once", field, s)
		}
	}
	return nil
}

// checkText refuses what has more than one form in JSON (characters that some
// writers escape and some do not), and what would break a listing.
func checkText(field, s string) error {
	if len(s) > maxCustomer || !utf8.ValidString(s) {
		return wrong("%s has %d bytes; want at most %d of UTF-8", field, len(s), maxCustomer)
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return wrong("%s has the control character %U; want one line of text", field, r)
		}
	}
	return nil
}

// wrong is about a part of what an issuer grants.
func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", belfry.ErrUsage, fmt.Sprintf(format, args...))
}

// fail is an error of one operation on one license, list or key.
func fail(op, subject string, err error) error {
	return &belfry.Error{Op: "license." + op, Subject: subject, Err: err}
}
