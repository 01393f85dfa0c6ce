package repository_test

import (
	"testing"

	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// Invariants 1 and 3: whatever part of what was not flushed a crash keeps.
func TestCrashImages(t *testing.T) {
	t.Parallel()
	var images repositorytest.Images
	for seed := range uint64(scaled(imageRounds)) {
		if err := repositorytest.CrashUpdates(seed, &images); err != nil {
			t.Fatalf("seed %d, image %d: %v", seed, images.Count, err)
		}
	}
	t.Logf("%d images", images.Count)
}

// bbolt issue 567 is a header that leads nowhere.
func TestCrashImagesOfFormat(t *testing.T) {
	t.Parallel()
	var images repositorytest.Images
	for seed := range uint64(scaled(imageRounds) / 10) {
		if err := repositorytest.CrashFormat(seed, &images); err != nil {
			t.Fatalf("seed %d, image %d: %v", seed, images.Count, err)
		}
	}
	t.Logf("%d images", images.Count)
}
