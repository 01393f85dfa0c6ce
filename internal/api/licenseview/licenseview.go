// Package licenseview is what a cluster's document has of licenses: the input of
// a verdict, the products that it knows, and the changes that people ask for.
//
// It is about values only. Who may change them, and how a generation is
// committed, is decided elsewhere; what a license is worth is decided by package
// license, from these values, on each node by itself (US20120246474).
package licenseview

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/license"
	"github.com/belfry-ha/belfry/internal/repository"
)

// A Clock is what a verdict takes beside the document and the node.
type Clock struct {
	Now      time.Time // by the node's clock
	Mark     time.Time // that the node has saved; the document's counts if it is later
	LastRead time.Time // of the repository; zero: it is within reach
}

// Input is what a document gives one node, of all products: the field Product is
// the caller's to set.
func Input(d *repository.Document, node belfry.NodeID, c Clock) license.Input {
	in := license.Input{
		Cluster: d.Cluster.UUID, Node: node, Now: c.Now, Mark: c.Mark, LastRead: c.LastRead,
		Files: texts(d.Licenses.Files), Revocations: texts(d.Licenses.Revocations), Issuers: Issuers(d),
	}
	if d.Licenses.Mark.After(in.Mark) {
		in.Mark = d.Licenses.Mark
	}
	for _, a := range d.Licenses.Activations {
		in.Activations = append(in.Activations, license.Activation{License: license.ID(a.License), Node: a.Node, Time: a.Time, Operator: a.Operator})
	}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		in.Members = append(in.Members, license.Member{
			Node: n.ID, Joined: n.Joined.Generation, Cores: int64(n.Capacity.Cores), MemoryBytes: int64(n.Capacity.MemoryBytes),
		})
	}
	return in
}

func texts(all []string) [][]byte {
	list := make([][]byte, len(all))
	for i, text := range all {
		list[i] = []byte(text)
	}
	return list
}

// Issuers are the keys that the cluster trusts. None is built in: nothing of
// Belfry itself takes a license.
func Issuers(d *repository.Document) []license.Issuer {
	list := make([]license.Issuer, len(d.Licenses.Issuers))
	for i, k := range d.Licenses.Issuers {
		list[i] = license.Issuer{Product: k.Product, Key: ed25519.PublicKey(k.Key)}
	}
	return list
}

// SortedIssuers are those of Issuers by product and key.
func SortedIssuers(d *repository.Document) []license.Issuer {
	return slices.SortedFunc(slices.Values(Issuers(d)), func(a, b license.Issuer) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), bytes.Compare(a.Key, b.Key))
	})
}

// Products are those that the document has files, lists or keys of, sorted. What
// can not be read is passed over.
func Products(d *repository.Document) []string {
	names := map[string]bool{}
	for _, text := range d.Licenses.Files {
		if f, err := license.Parse([]byte(text)); err == nil {
			names[f.Unproven().Product] = true
		}
	}
	for _, k := range d.Licenses.Issuers {
		names[k.Product] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// A File is one license of a document.
type File struct {
	License    license.License // what it says
	KeyID      license.KeyID
	Proven     bool                  // an issuer that is trusted has signed it
	Activation repository.Activation // the first one; zero: not recorded
}

// Files are those of a product, by id.
func Files(d *repository.Document, product string) (files []File) {
	issuers := Issuers(d)
	for _, text := range d.Licenses.Files {
		f, err := license.Parse([]byte(text))
		if err != nil || f.Unproven().Product != product {
			continue
		}
		_, unproven := f.Verify(issuers)
		file := File{License: f.Unproven(), KeyID: f.KeyID(), Proven: unproven == nil}
		for _, a := range d.Licenses.Activations {
			if a.License == string(file.License.ID) && (file.Activation.Time.IsZero() || a.Time.Before(file.Activation.Time)) {
				file.Activation = a
			}
		}
		files = append(files, file)
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.License.ID, b.License.ID) })
	return files
}

// Serial is that of a product's list of revoked licenses; 0: there is none.
func Serial(d *repository.Document, product string) int64 {
	if i := listOf(d, product); i >= 0 {
		r, _ := license.ParseRevocations([]byte(d.Licenses.Revocations[i])) // listOf has read it
		return r.Unproven().Serial
	}
	return 0
}

// listOf is where the list of a product is; -1: there is none.
func listOf(d *repository.Document, product string) int {
	return slices.IndexFunc(d.Licenses.Revocations, func(text string) bool {
		r, err := license.ParseRevocations([]byte(text))
		return err == nil && r.Unproven().Product == product
	})
}

// Dated tells whether a license ends at some time, or begins later: then clocks
// matter.
func Dated(d *repository.Document) bool {
	return slices.ContainsFunc(d.Licenses.Files, func(text string) bool {
		f, err := license.Parse([]byte(text))
		return err == nil && (!f.Unproven().NotAfter.IsZero() || !f.Unproven().NotBefore.IsZero())
	})
}

// Counts tells whether a license is for so much of a machine that nodes have to
// say how large they are.
func Counts(d *repository.Document) bool {
	return slices.ContainsFunc(d.Licenses.Files, func(text string) bool {
		f, err := license.Parse([]byte(text))
		return err == nil && f.Unproven().Capacity.Cores+f.Unproven().Capacity.MemoryBytes > 0
	})
}

// checkProduct words what is no name of a product.
func checkProduct(product string) error {
	if err := license.CheckProduct(product); err != nil {
		return fmt.Errorf("%w; it is the product that the issuer writes into licenses", err)
	}
	return nil
}
