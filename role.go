package belfry

import (
	"fmt"
	"slices"
	"strconv"
)

// A Role is a set of rights. The zero Role has none.
type Role uint8

// The roles. Reader, operator and admin each have the rights of the one before;
// a witness is beside them.
const (
	RoleNone     Role = iota // no right at all
	RoleReader               // sees
	RoleWitness              // registers as a native witness
	RoleOperator             // sees, and runs the cluster
	RoleAdmin                // everything
)

var roleNames = []string{"none", "reader", "witness", "operator", "admin"}

// String is the word that settings, listings and the audit use.
func (r Role) String() string { return wordOf(roleNames, int(r)) }

// ParseRole reads the form that String writes; ErrUsage for any other.
func ParseRole(s string) (Role, error) {
	if i := slices.Index(roleNames, s); i >= 0 {
		return Role(i), nil
	}
	return RoleNone, fmt.Errorf("%w: unknown role %q; one of %q", ErrUsage, s, roleNames)
}

// A Right is what an operation needs. Each operation of the API needs one.
type Right uint8

// The rights.
const (
	RightObserve         Right = iota // status, lists, watch
	RightOperate                      // emit, stop and start nodes, handlers
	RightRegisterWitness              // native witness registration
	RightConfigure                    // the configuration but for what follows
	RightLicense                      // licenses
	RightAdmit                        // tokens, members, CA
	RightOwn                          // roles, repository, debug bundle
)

var rightNames = []string{"observe", "operate", "register-witness", "configure", "license", "admit", "own"}

// String is the word that refusals and the audit use.
func (r Right) String() string { return wordOf(rightNames, int(r)) }

func wordOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown-" + strconv.Itoa(i)
}
