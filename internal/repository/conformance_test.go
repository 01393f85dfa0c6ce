package repository_test

import (
	"fmt"
	"testing"

	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for disks := 1; disks <= 3; disks++ {
		t.Run(fmt.Sprintf("Disks%d", disks), func(t *testing.T) {
			t.Parallel()
			repositorytest.Run(t, repositorytest.Simulated(disks))
		})
	}
}

// Whichever call of a disk fails: one of three costs nothing, else the update
// says that it is not acknowledged; and it happens once.
func TestAnyCallMayFail(t *testing.T) {
	t.Parallel()
	for disks := 1; disks <= 3; disks++ {
		calls := 0
		for n := 1; ; n++ {
			err, reached := repositorytest.FailingCall(t, disks, n)
			if !reached {
				break
			}
			calls++
			if disks == 3 && err != nil {
				t.Errorf("call %d of one of three disks failed: %v", n, err)
			}
			if err != nil && !repositorytest.TooFew(err) {
				t.Errorf("call %d of one of %d disks failed: %v", n, disks, err)
			}
		}
		if calls < 15 {
			t.Errorf("%d disks: only %d calls were tried", disks, calls)
		}
	}
}
