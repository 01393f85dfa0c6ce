package adapter_test

import (
	"testing"

	"github.com/belfry-ha/belfry/internal/producer/adapter"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	again := func() { // without addresses that come by themselves
		m.ip(pair("t1", "p1"), "link set t1 addrgenmode none", "link set t1 up", "link set p1 up", "address add 10.1.0.1/24 dev t1")
		m.until("t1", "state UP")
	}
	again()
	for _, f := range []producertest.Fixture{{
		Class: adapter.StateClass,
		Cause: func() { m.ip("link set p1 down") },
		Undo: func() {
			m.ip("link set p1 up")
			m.until("t1", "state UP")
		},
		Replace: func() {
			m.ip("link del t1")
			again()
		},
		Overflow: func() { m.storm("link set t1 down", "link set t1 up") },
	}, {
		Class:   adapter.RemovedClass,
		Cause:   func() { m.ip("link del t1") },
		Undo:    func() { m.restore(again) },
		Replace: func() { m.ip("link del t1"); again() },
	}, {
		Class:   adapter.AddedClass,
		Arrives: true,
		Cause:   func() { m.ip("link del t1"); again() },
	}, {
		Class:    adapter.AddressAddedClass,
		Cause:    func() { m.ip("address add 10.1.0.2/24 dev t1") },
		Undo:     func() { m.ip("address flush to 10.1.0.2/32") },
		Overflow: func() { m.storm("address add 10.1.0.2/32 dev t1", "address del 10.1.0.2/32 dev t1") },
	}, {
		Class:   adapter.AddressRemovedClass,
		Cause:   func() { m.ip("address del 10.1.0.1/24 dev t1") },
		Undo:    func() { m.restore(again) },
		Replace: func() { m.ip("link del t1"); again() },
	}} {
		f.Subject, f.Absent, f.Malformed = "t1", "t9", "t/1"
		t.Run(string(f.Class), func(t *testing.T) { producertest.Run(t, adapter.New(), f) })
	}
}
