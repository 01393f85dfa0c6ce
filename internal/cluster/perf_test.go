package cluster

import (
	"testing"
	"time"
)

// What a machine costs that has nothing to do: ten times a second it is woken
// to notice that it was not (cluster.md 9).
func BenchmarkQuietTick(b *testing.B) {
	net := warm(1, 24)
	net.run(20 * time.Second)
	m := net.host("a").m
	b.ReportAllocs()
	for b.Loop() {
		m.Advance(net.now)
		m.NextTimeout()
	}
}

// What one heartbeat costs its receiver.
func BenchmarkHeartbeat(b *testing.B) {
	net := warm(1, 24)
	net.run(20 * time.Second)
	m := net.host("a").m
	p := m.peers[0]
	hb := Heartbeat{Link: 0, LinkState: 1, Announced: time.Second, View: m.View()}
	b.ReportAllocs()
	for b.Loop() {
		hb.Seq = nextSeq(hb.Seq)
		m.Receive(net.now, Datagram{From: p.ID, Incarnation: 1, Boot: p.boot, At: net.now, Proven: true, Body: &hb})
	}
}
