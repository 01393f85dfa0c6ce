package license

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// Revocations is the list of the licenses of one product that its issuer took
// back. The list with the highest serial counts, and replaces all before it.
type Revocations struct {
	Product  string    `json:"product"`
	Serial   int64     `json:"serial"` // 1 to 2^53-1; each list has a higher one
	IssuedAt time.Time `json:"issued_at"`
	Revoked  []ID      `json:"revoked"` // a set, at most 1024 and what fits into [MaxFile]
}

// RevocationFile is a list as it was signed.
type RevocationFile = Signed[Revocations]

// ParseRevocations reads a file of the form of [Parse], with the label BELFRY
// REVOCATIONS; its signature begins with "belfry-revocation-v1", so that it
// is never one of a license. Errors as there.
func ParseRevocations(text []byte) (RevocationFile, error) { return parse[Revocations](text) }

// SignRevocations makes the file of a list, for vendors. Errors as of [Sign].
func SignRevocations(r Revocations, key ed25519.PrivateKey) (RevocationFile, error) {
	return sign(r, key)
}

// Replaces is nil if r may take the place of old: it is of the same product
// (else ErrUsage), and its serial is higher (else ErrStale). An old list that
// somebody kept would give back what was revoked since.
func (r Revocations) Replaces(old Revocations) error {
	switch {
	case r.Product != old.Product:
		return fail("revoke", r.Product, wrong("the list is of %s; want one of %s", r.Product, old.Product))
	case r.Serial <= old.Serial:
		return fail("revoke", r.Product, fmt.Errorf("%w: serial %d, and %d is in force; ask the issuer for the newest list",
			belfry.ErrStale, r.Serial, old.Serial))
	}
	return nil
}

func (Revocations) kind() kind        { return revocations }
func (r Revocations) product() string { return r.Product }

func (r Revocations) normal() Revocations {
	r.Revoked, r.IssuedAt = set(r.Revoked), utc(r.IssuedAt)
	return r
}

func (r Revocations) check() error {
	for _, err := range []error{checkName("product", r.Product), checkTime("issued_at", r.IssuedAt), checkNames("revoked", r.Revoked)} {
		if err != nil {
			return err
		}
	}
	switch {
	case r.Serial < 1 || r.Serial > maxNumber:
		return wrong("serial is %d; want 1 to %d, higher than that of the list before", r.Serial, int64(maxNumber))
	case r.IssuedAt.IsZero():
		return wrong("issued_at is missing; want the time of signing")
	}
	return nil
}

// newest is the list of a product that counts: the one with the highest serial
// among those that its issuers have signed. Of two with one serial, which only
// an issuer's mistake makes, the second is added to the first: what either
// revokes is revoked.
func newest(product string, texts [][]byte, issuers []Issuer) map[ID]bool {
	serial, revoked := int64(0), map[ID]bool{}
	for _, text := range texts {
		f, err := ParseRevocations(text)
		if err != nil || f.Unproven().Product != product {
			continue
		}
		r, err := f.Verify(issuers)
		if err != nil || r.Serial < serial {
			continue
		}
		if r.Serial > serial {
			serial, revoked = r.Serial, map[ID]bool{}
		}
		for _, id := range r.Revoked {
			revoked[id] = true
		}
	}
	return revoked
}
