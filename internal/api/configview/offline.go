package configview

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// A File is what a command is given without an agent: a text, or a whole
// document as nodes keep it.
type File struct {
	text     *Text
	document *repository.Document // nil: a text
}

// ReadFile tells by the first bytes which of the two data is. The errors are
// those of [Read], or of [repository.Decode].
func ReadFile(name string, data []byte) (File, error) {
	if !bytes.HasPrefix(data, []byte(`{"schema":`)) {
		t, err := Read(name, data)
		return File{text: t}, err
	}
	d, err := repository.Decode(data)
	if err != nil {
		return File{}, named(name, err)
	}
	return File{document: &d}, nil
}

// named puts the name of a file before each line of an error.
func named(name string, err error) error {
	var e *belfry.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	err = words(err)
	return worded{name + ": " + strings.ReplaceAll(err.Error(), "\n", "\n"+name+": "), err}
}

// Whole tells whether it is a document, which knows its members.
func (f File) Whole() bool { return f.document != nil }

// Check judges a file by itself. Of a text that is as far as it can be known
// without the members: each node that it names is taken for one.
func (f File) Check(name string, known Tunables) error {
	if f.document != nil {
		if err := f.document.Validate(known.Check); err != nil {
			return named(name, err)
		}
		return nil
	}
	return f.text.judge(imagined(f.text.named()), known)
}

// CheckIn judges a text as the next one of a document.
func (f File) CheckIn(base File, known Tunables) error {
	if f.document != nil || base.document == nil {
		return f.Check("", known)
	}
	c, err := Apply(f.text, base.document.Generation(), 0, known)
	if err != nil {
		return err
	}
	settled := *base.document
	settled.Confirm, settled.Moving = nil, nil // whether it is the moment is no question of the text
	_, _, err = c.Next(settled, repository.Entry{Time: settled.History[len(settled.History)-1].Time, Author: "nobody"}, known)
	return err
}

// Compare is what changes from one file to another one. The nodes of two texts
// are not known, so that the effects name none.
func Compare(a, b File, known Tunables) []Effect {
	switch {
	case a.document != nil && b.document != nil:
		return Plan(*a.document, *b.document, known)
	case a.document != nil:
		return Plan(*a.document, b.text.over(*a.document, known), known)
	case b.document != nil:
		return Plan(a.text.over(*b.document, known), *b.document, known)
	}
	base := imagined(append(a.text.named(), b.text.named()...))
	effects := Plan(a.text.over(base, known), b.text.over(base, known), known)
	for i := range effects {
		effects[i].Nodes = nil
	}
	return effects
}

// judge holds a text against a document with imagined members.
func (t *Text) judge(base repository.Document, known Tunables) error {
	to := t.over(base, known)
	if len(to.Networks) < maxNetworks { // the one that the imagined members are on
		to.Networks = append(slices.Clip(to.Networks), repository.Network{Name: imaginedNetwork})
	}
	var kept []error
	for _, problem := range problemsOf(to.Validate(known.Check)) {
		if !strings.HasPrefix(problem.Error(), "nodes[") {
			kept = append(kept, problem)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return t.source.Locate(words(errors.Join(kept...)))
}

// problemsOf are the single errors that Validate joins.
func problemsOf(err error) []error {
	var e *belfry.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return all.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// The limits of a document that the imagined one keeps to.
const (
	maxNetworks = 64
	maxNodes    = 10000
)

// imaginedNetwork is a name that nobody gives to one.
const imaginedNetwork = "imagined:of:belfry"

// imagined is a document whose members have these names; one at least.
func imagined(names []string) repository.Document {
	d := repository.Document{
		Schema: repository.Schema, Cluster: repository.Cluster{UUID: belfry.ClusterID{1}}, Repository: repository.Storage{Kind: repository.KindMembers},
		History: []repository.Entry{{Generation: 1, Time: time.Unix(1, 0).UTC(), Author: "nobody"}},
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) == 0 {
		names = []string{"a"}
	}
	for i, name := range names[:min(len(names), maxNodes)] {
		key := sha256.Sum256([]byte(name))
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], 10<<24+uint32(i)+1)
		at := netip.AddrPortFrom(netip.AddrFrom4(ip), 1)
		d.Nodes = append(d.Nodes, repository.Node{
			Name: name, ID: belfry.NodeID(key[:16]), Number: belfry.NodeNumber(i + 1), Key: key[:], Streams: at,
			Addresses: []repository.Address{{Network: imaginedNetwork, Heartbeat: at}},
		})
	}
	return d
}

// named are the nodes that a text names.
func (t *Text) named() (names []string) {
	v := t.view
	for _, l := range from(v.Links) {
		names = append(names, l.A, l.B)
	}
	for _, r := range from(v.Resources) {
		names = append(names, r.Holders...)
	}
	if v.Witness != nil {
		names = append(names, v.Witness.Drained...)
	}
	for _, h := range from(v.Handlers) {
		names = append(names, h.Nodes...)
	}
	return slices.DeleteFunc(names, func(n string) bool {
		return n == "" || len(n) > 63 || n[0] == '-' || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != ""
	})
}

func from[T any](list *[]T) []T {
	if list == nil {
		return nil
	}
	return *list
}

// Generation is that of a document, or the one that a text names; zero: none.
func (f File) Generation() uint64 {
	if f.document != nil {
		return f.document.Generation()
	}
	return f.text.Generation()
}
