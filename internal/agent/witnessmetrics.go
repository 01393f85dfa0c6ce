package agent

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/witness"
)

var (
	metricWitnessRegistrations = metric("witness_registrations", "Registrations of clients at this node's witness.", "protocol")
	metricWitnessRegisters     = metric("witness_registers_total", "Registrations that were asked for, by what came of it.", "protocol", "result")
	metricWitnessNotifications = metric("witness_notifications_total", "Notifications that were handed to a client's connection.", "protocol", "type")
	metricWitnessWaits         = metric("witness_waits", "Calls that wait for changes.")
	metricWitnessNotify        = metric("witness_notify_seconds", "From a change at this witness until it is handed to a client's connection.")
)

// notifyBuckets are upper bounds in seconds.
var notifyBuckets = []float64{0.001, 0.005, 0.02, 0.05, 0.1, 0.15, 0.3, 1, 5, 30}

// A witnessCall is somebody who waits for an answer of the witness.
type witnessCall struct {
	reply    chan<- witness.Answer // with room for it
	protocol string
	register bool
}

// callOf is the call that a message makes.
func callOf(msg witness.Message, reply chan<- witness.Answer) witnessCall {
	c := witnessCall{reply: reply}
	switch msg := msg.(type) {
	case witness.Register:
		c.protocol, c.register = msg.Owner.Protocol, true
	case witness.Wait:
		c.protocol = msg.Owner.Protocol
	}
	return c
}

// A witnessCount is what the witness loop has handed out. It is safe for concurrent
// use.
type witnessCount struct {
	mu            sync.Mutex
	registers     map[[2]string]uint64 // by protocol and result
	notifications map[[2]string]uint64 // by protocol and type
	took          []uint64             // by bucket, each without those below it
	seconds       float64
	handed        uint64
}

func newWitnessCount() *witnessCount {
	return &witnessCount{registers: map[[2]string]uint64{}, notifications: map[[2]string]uint64{}, took: make([]uint64, len(notifyBuckets)+1)}
}

// answered counts one answer.
func (w *witnessCount) answered(c witnessCall, a *witness.Answer, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.register {
		result := "ok"
		if a.Err != nil {
			result = strings.ToLower(belfry.Code(a.Err))
		}
		w.registers[[2]string{c.protocol, result}]++
	}
	for i := range a.Changes {
		change, kind := &a.Changes[i], "change"
		switch {
		case change.Move != nil:
			kind = "move"
		case change.Reregister:
			kind = "reregister"
		default:
			took := now.Sub(change.Last).Seconds()
			at, _ := slices.BinarySearch(notifyBuckets, took)
			w.took[at]++
			w.handed++
			w.seconds += took
		}
		w.notifications[[2]string{c.protocol, kind}]++
	}
}

// collectWitness asks the machine once.
func (m metrics) collectWitness(ch chan<- prometheus.Metric, gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	l := m.agent.witness
	var load map[string]witness.Load
	if l.look(m.agent.ended, func(machine *witness.Machine) { load = machine.Load() }) != nil {
		return // the agent stops
	}
	waits := 0
	for _, protocol := range slices.Sorted(maps.Keys(load)) {
		gauge(metricWitnessRegistrations, float64(load[protocol].Registrations), protocol)
		waits += load[protocol].Waits
	}
	gauge(metricWitnessWaits, float64(waits))
	c := l.count
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, by := range sortedPairs(c.registers) {
		counter(metricWitnessRegisters, c.registers[by], by[0], by[1])
	}
	for _, by := range sortedPairs(c.notifications) {
		counter(metricWitnessNotifications, c.notifications[by], by[0], by[1])
	}
	buckets, below := map[float64]uint64{}, uint64(0)
	for i, bound := range notifyBuckets {
		below += c.took[i]
		buckets[bound] = below
	}
	ch <- prometheus.MustNewConstHistogram(metricWitnessNotify, c.handed, c.seconds, buckets)
}

func sortedPairs(m map[[2]string]uint64) [][2]string {
	return slices.SortedFunc(maps.Keys(m), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
}

// witnessStatus is for listings; nil: the agent stops.
func (a *Agent) witnessStatus(ctx context.Context) *belfryv1.WitnessStatus {
	s := &belfryv1.WitnessStatus{Drained: slices.Sorted(slices.Values(a.members.Table().Drained))}
	err := a.witness.look(ctx, func(m *witness.Machine) {
		for _, l := range m.Load() {
			s.Registrations += uint32(l.Registrations)
			s.Waits += uint32(l.Waits)
			s.Unread += uint32(l.Unread)
		}
		all, _ := m.NodeInformation(witness.Question{})
		s.Witnesses = uint32(len(all))
		s.State = standingWord(witness.Standing{Off: m.Off(), Draining: m.Draining()})
		others := m.Others()
		for _, name := range slices.Sorted(maps.Keys(others)) {
			s.Others = append(s.Others, &belfryv1.WitnessStanding{Node: name, State: standingWord(others[name]), Registrations: uint32(others[name].Registrations)})
		}
	})
	if err != nil {
		return nil
	}
	s.MaxRegistrations = uint32(a.witness.settings.Load().Registrations)
	return s
}
