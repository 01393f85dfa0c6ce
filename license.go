package belfry

// A LicenseState is what a product may do on one node. The zero state is the
// one without rights, so that what was never judged unlocks nothing. No state
// ever stops detection, events, the witness or fail-over (repository.md,
// Licenses).
type LicenseState uint8

// The states.
const (
	LicenseLocked       LicenseState = iota // nothing that holds here was unlocked
	LicenseUnlocked                         // signed, committed, bound to here, within its dates and capacity
	LicenseGrace                            // works, and warns: it has ended, or the repository is out of reach
	LicenseExpired                          // its days of grace are over too
	LicenseOverCapacity                     // good, but members that joined before this node use it up
	LicenseRevoked                          // the issuer took it back
)

var licenseStateNames = []string{"locked", "unlocked", "grace", "expired", "over_capacity", "revoked"}

// String is the word that listings and events use.
func (s LicenseState) String() string { return name(licenseStateNames, int(s)) }

// ParseLicenseState reads the form that String writes; ErrUsage for any other.
func ParseLicenseState(s string) (LicenseState, error) {
	return parseName[LicenseState]("license state", licenseStateNames, s)
}

// MarshalText is the word of String. It never fails.
func (s LicenseState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Usable tells whether the product may work: unlocked, or in grace.
func (s LicenseState) Usable() bool { return s == LicenseUnlocked || s == LicenseGrace }
