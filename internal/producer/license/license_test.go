package license_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer/license"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// newProducer is one whose product stands as it was told last.
func newProducer() (*license.Producer, func(belfry.LicenseState)) {
	var now atomic.Uint32
	state := func(product string) license.State {
		return license.State{Product: product, To: belfry.LicenseState(now.Load()), At: time.Unix(100, 0)}
	}
	p := license.New("a", state, func(product string) error {
		if product == "-" {
			return fmt.Errorf("%w: product -; want a name of letters and digits", belfry.ErrUsage)
		}
		return nil
	})
	p.Known([]string{"acme-db"})
	return p, func(to belfry.LicenseState) {
		now.Store(uint32(to))
		p.Changed(state("acme-db"))
	}
}

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	p, say := newProducer()
	producertest.Run(t, p, producertest.Fixture{
		Class:     license.Class,
		Subject:   "acme-db",
		Cause:     func() { say(belfry.LicenseUnlocked) },
		Undo:      func() { say(belfry.LicenseLocked) },
		Malformed: "-",
		Overflow: func() {
			for range 10_000 {
				say(belfry.LicenseLocked)
			}
		},
	})
}

func TestConformanceOfTheClock(t *testing.T) { // not parallel: it counts goroutines
	p, _ := newProducer()
	producertest.Run(t, p, producertest.Fixture{
		Class:   license.Clock,
		Subject: "a",
		Cause:   func() { p.Drifted(48*time.Hour, time.Unix(100, 0)) },
		Undo:    func() { p.Drifted(0, time.Unix(100, 0)) },
		Absent:  "b",
	})
}

func TestAProductIsNamedAsInLicenses(t *testing.T) {
	t.Parallel()
	p, _ := newProducer()
	if err := p.CheckSubject(license.Class, "-"); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("a product that is called -: %v; want ErrUsage", err)
	}
	if err := p.CheckSubject(license.Clock, "-"); err != nil {
		t.Errorf("a node: %v", err)
	}
}
