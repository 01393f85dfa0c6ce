package user_test

import (
	"testing"

	"github.com/belfry-ha/belfry/internal/producer/producertest"
	"github.com/belfry-ha/belfry/internal/producer/user"
)

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	producertest.Run(t, user.New(), producertest.Fixture{Class: "user.*", Subject: "build/web"})
}
