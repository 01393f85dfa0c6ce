package resource_test

import (
	"errors"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
	"github.com/belfry-ha/belfry/internal/producer/resource"
)

// newProducer answers each question at once, as the agent does when it knows.
func newProducer() (*resource.Producer, func(belfry.ResourceState)) {
	var p *resource.Producer
	seq := uint64(0)
	say := func(state belfry.ResourceState) {
		seq++
		p.Changed(resource.State{Resource: "service/db", State: state, Incarnation: 1, Seq: seq, At: time.Unix(100, 0)})
	}
	p = resource.New(func(name belfry.Resource, on bool) {
		if on && name == "service/db" {
			say(belfry.ResourceAvailable)
		}
	})
	p.Declare([]belfry.Resource{"service/db"})
	return p, say
}

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	p, say := newProducer()
	producertest.Run(t, p, producertest.Fixture{
		Class:     resource.Class,
		Subject:   "service/db",
		Cause:     func() { say(belfry.ResourceUnavailable) },
		Undo:      func() { say(belfry.ResourceAvailable) },
		Absent:    "service/web",
		Malformed: "db",
		Overflow: func() {
			for range 10_000 {
				say(belfry.ResourceAvailable)
			}
		},
	})
}

func TestNamesHaveOneForm(t *testing.T) {
	t.Parallel()
	p := resource.New(func(belfry.Resource, bool) {})
	for subject, want := range map[string]error{
		"service/db": nil, "address/10.0.0.1": nil, "service/my db": belfry.ErrUsage, "disk/x": belfry.ErrUsage, "node/a": belfry.ErrUsage,
	} {
		if err := p.CheckSubject(resource.Class, subject); !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", subject, err, want)
		}
	}
}
