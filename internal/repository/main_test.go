package repository_test

import (
	"os"
	"runtime/debug"
	"testing"
)

// TestMain has garbage collected rarely: hundreds of thousands of small disks
// live for a moment each, and half of the time went into their collection.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}
