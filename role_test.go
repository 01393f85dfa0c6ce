package belfry_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

func TestRolesReadWhatTheyWrite(t *testing.T) {
	t.Parallel()
	for role := belfry.RoleNone; role <= belfry.RoleAdmin; role++ {
		if got, err := belfry.ParseRole(role.String()); got != role || err != nil {
			t.Errorf("%s: %s, %v", role, got, err)
		}
	}
	_, err := belfry.ParseRole("king")
	if !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "king") {
		t.Errorf("king: %v; want ErrUsage that names it", err)
	}
}
