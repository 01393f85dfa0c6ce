package licenseview

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/license"
	"github.com/belfry-ha/belfry/internal/repository"
)

// A Marker is the time mark of the next generation: that of the present one, or
// later. issued is a time that an issuer has signed for; zero: none has.
type Marker func(committed, issued time.Time) time.Time

// An Unlocking is a file that is to go into the document.
type Unlocking struct {
	Text     []byte // as [license.Tidy] gives it
	Product  string // that it must be of; empty: any
	Node     belfry.NodeID
	Operator string
	Mark     Marker
}

// Admit judges a file by a document, before anything is written or sent (P1).
// One that is there already is good.
func (u Unlocking) Admit(d *repository.Document, c Clock) (license.License, error) {
	if f, err := license.Parse(u.Text); err == nil && slices.Contains(d.Licenses.Files, string(u.Text)) && (u.Product == "" || u.Product == f.Unproven().Product) {
		return f.Unproven(), nil
	}
	in := Input(d, u.Node, c)
	in.Product = u.Product
	return license.Admit(u.Text, in)
}

// Change puts the file into the document, with who unlocked it. It is judged
// again, by the document that it goes into. Members are told that there is
// something to unlock, not what (P3).
func (u Unlocking) Change() configview.Change {
	text := "license unlock"
	if f, err := license.Parse(u.Text); err == nil {
		text = fmt.Sprintf("license %s of %s is unlocked", f.Unproven().ID, f.Unproven().Product)
	}
	return configview.Edit(text, repository.NoticeUnlock, func(base repository.Document, at time.Time) (repository.Document, error) {
		l, err := u.Admit(&base, Clock{Now: at})
		if err != nil || slices.Contains(base.Licenses.Files, string(u.Text)) {
			return base, err
		}
		base.Licenses.Files = append(slices.Clone(base.Licenses.Files), string(u.Text))
		base.Licenses.Activations = append(slices.Clone(base.Licenses.Activations), repository.Activation{
			License: string(l.ID), Node: u.Node, Time: at.UTC(), Operator: u.Operator,
		})
		base.Licenses.Mark = u.Mark(base.Licenses.Mark, l.IssuedAt)
		return base, nil
	})
}

// Remove takes a file out. product may be empty if only one has a license of
// that id. ErrNotFound: there is none.
func Remove(id, product string) configview.Change {
	return configview.Edit(fmt.Sprintf("license %s is removed", id), repository.NoticeUnlock, func(base repository.Document, _ time.Time) (repository.Document, error) {
		of, err := Removed(&base, id, product)
		if err != nil {
			return base, err
		}
		is := func(text string, product string) bool {
			f, err := license.Parse([]byte(text))
			return err == nil && string(f.Unproven().ID) == id && (product == "" || f.Unproven().Product == product)
		}
		base.Licenses.Files = slices.DeleteFunc(slices.Clone(base.Licenses.Files), func(text string) bool { return is(text, of) })
		if !slices.ContainsFunc(base.Licenses.Files, func(text string) bool { return is(text, "") }) {
			base.Licenses.Activations = slices.DeleteFunc(slices.Clone(base.Licenses.Activations), func(a repository.Activation) bool { return a.License == id })
		}
		return base, nil
	})
}

// Removed is the product whose license Remove takes out.
func Removed(d *repository.Document, id, product string) (string, error) {
	var products, ids []string
	for _, name := range Products(d) {
		for _, f := range Files(d, name) {
			ids = append(ids, fmt.Sprintf("%s of %s", f.License.ID, name))
			if string(f.License.ID) == id && (product == "" || product == name) {
				products = append(products, name)
			}
		}
	}
	switch {
	case len(products) > 1:
		return "", fmt.Errorf("%w: %s is a license of %s; say which product", belfry.ErrUsage, id, strings.Join(products, " and of "))
	case len(products) == 1:
		return products[0], nil
	case len(ids) == 0:
		return "", fmt.Errorf("%w: no license %s, and no other", belfry.ErrNotFound, id)
	}
	return "", fmt.Errorf("%w: no license %s; there is %s", belfry.ErrNotFound, id, strings.Join(ids, ", "))
}

// Revocations reads an issuer's list, and judges it by a document: ErrPermission
// for one that no issuer of its product has signed, ErrStale for an old one.
func Revocations(d *repository.Document, text []byte) (license.Revocations, error) {
	f, err := license.ParseRevocations(text)
	if err != nil {
		return license.Revocations{}, err
	}
	r, err := f.Verify(Issuers(d))
	if err != nil {
		return r, err
	}
	i := listOf(d, r.Product)
	if i < 0 || d.Licenses.Revocations[i] == string(text) {
		return r, nil
	}
	old, err := license.ParseRevocations([]byte(d.Licenses.Revocations[i]))
	if err != nil {
		return r, err
	}
	if _, err := old.Verify(Issuers(d)); err != nil {
		return r, nil //nolint:nilerr // its key is trusted no more: any that is signed may take its place
	}
	return r, r.Replaces(old.Unproven())
}

// Revoke puts a list in the place of the one of its product.
func Revoke(text []byte, mark Marker) configview.Change {
	what := "licenses are revoked"
	if f, err := license.ParseRevocations(text); err == nil {
		what = fmt.Sprintf("list %d of revoked licenses of %s", f.Unproven().Serial, f.Unproven().Product)
	}
	return configview.Edit(what, repository.NoticeUnlock, func(base repository.Document, _ time.Time) (repository.Document, error) {
		r, err := Revocations(&base, text)
		if err != nil {
			return base, err
		}
		lists, i := slices.Clone(base.Licenses.Revocations), listOf(&base, r.Product)
		switch {
		case i < 0:
			lists = append(lists, string(text))
		case lists[i] == string(text):
			return base, nil
		default:
			lists[i] = string(text)
		}
		base.Licenses.Revocations, base.Licenses.Mark = lists, mark(base.Licenses.Mark, r.IssuedAt)
		return base, nil
	})
}

// AddIssuer has a key count for one product.
func AddIssuer(product string, key ed25519.PublicKey) configview.Change {
	return configview.Edit(fmt.Sprintf("issuer %s of %s is trusted", license.KeyIDOf(key), product), repository.NoticeUnlock, func(base repository.Document, _ time.Time) (repository.Document, error) {
		if err := checkProduct(product); err != nil {
			return base, err
		}
		if slices.ContainsFunc(base.Licenses.Issuers, func(k repository.Issuer) bool { return k.Product == product && bytes.Equal(k.Key, key) }) {
			return base, nil
		}
		base.Licenses.Issuers = append(slices.Clone(base.Licenses.Issuers), repository.Issuer{Product: product, Key: key})
		return base, nil
	})
}

// RemoveIssuer has a key count no more for a product, named by its KeyID as text.
// ErrNotFound: it does not count.
func RemoveIssuer(product, keyID string) configview.Change {
	return configview.Edit(fmt.Sprintf("issuer %s of %s is trusted no more", keyID, product), repository.NoticeUnlock, func(base repository.Document, _ time.Time) (repository.Document, error) {
		var known []string
		for _, k := range base.Licenses.Issuers {
			known = append(known, k.Product+" "+license.KeyIDOf(k.Key).String())
		}
		kept := slices.DeleteFunc(slices.Clone(base.Licenses.Issuers), func(k repository.Issuer) bool {
			return k.Product == product && license.KeyIDOf(k.Key).String() == keyID
		})
		if len(kept) == len(known) {
			return base, fmt.Errorf("%w: no issuer of %s has the key %s; there is %s", belfry.ErrNotFound, product, keyID, strings.Join(append(known, "no other"), ", "))
		}
		base.Licenses.Issuers = kept
		return base, nil
	})
}

// Mark raises the time mark, and changes nothing else.
func Mark(mark Marker) configview.Change {
	return configview.Edit("the time mark of licenses", repository.NoticeConfiguration, func(base repository.Document, _ time.Time) (repository.Document, error) {
		base.Licenses.Mark = mark(base.Licenses.Mark, time.Time{})
		return base, nil
	})
}

// ReadIssuer reads what AddIssuer takes, in PEM.
func ReadIssuer(product, text string) (ed25519.PublicKey, error) {
	if err := checkProduct(product); err != nil {
		return nil, err
	}
	key, err := license.ParsePublicKey([]byte(text))
	var e *belfry.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return key, err
}
